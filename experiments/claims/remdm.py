# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masking tokens again keeps an exact law and repairs hasty answers.

Wang et al. 2025, arXiv:2503.00307: a reverse process that masks revealed tokens
again has the marginals of the one that does not, for any rate, and samples of a
trained MDLM get better with more steps (OpenWebText, 1,024 steps: MAUVE 0.40
for 0.04, generative perplexity 28.6 for 51.3).

Check, exactness: rows of 16 of a Markov chain of two symbols with its exact
denoiser (`jaxtok/tasks/markov_chain`, a chain per seed), 10,000 samples of 256
steps, eta as released. The statistic of a sampler is the chi-square, with 4
degrees of freedom, of the mean number of each symbol and of each pair of
neighbours in a row, whose means and covariances the chain gives exactly.
Thresholds are for no remasking, cap, rescale and loop: smallest_p is the
smallest of their p-values times 12, the number of these samplers and seeds
(Bonferroni), and 0.0027 is 3 sigma. p_few is the control, 8 steps without
remasking. Reported without threshold: p_confidence, as choosing by confidence
looks at tokens and is not exact (see `remdm.Confidence`), and p_most, which is
sigma_max itself (rescale, eta 1).

What is revealed in one step is drawn as if independent, an error of every
ancestral sampler that remasking adds to. tv_* is the total variation of the
exact law of each sampler, which is the product of the kernels of its steps for
rows of 3, to that of the chain; tv_*_1024 is the same with 1,024 steps and a
quarter of eta, that is with as many remaskings (of sigma_max and confidence
with eta as it is). What does not fall with the steps is no error of steps.

Check, repair: the dice task (`jaxtok/tasks/dice_countdown`) with a trained
denoiser per seed (64 x 3, 2,500 steps), greedy tokens, 512 prompts. Two random
positions revealed per call, 10 calls, against the same with the least probable
token masked again after each call (`remdm.Lowest(1)`), 20 calls: gain. With 20
calls one could also reveal one random position each: gain_at_equal_calls is
what remasking has more than that. best_first is the most confident one each.
"""

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from experiments.unmasking import selection, training
from experiments.unmasking.configs import dice
from jaxtok.diffusion import ancestral, remdm, samplers, selectors
from jaxtok.tasks import base, dice_countdown, markov_chain

TITLE = 'ReMDM'
PAPER = 'Wang et al. 2025, arXiv:2503.00307'
CLAIM = (
  'Masking tokens again keeps the law of an exact denoiser at any rate that '
  'does not look at tokens, and with twice the calls repairs answers of which '
  'two tokens are revealed per call.'
)
THRESHOLD = {
  'smallest_p': 'every >= 0.0027',
  'p_few': 'every <= 0.0027',
  'gain': '>= 0.1',
}
SEEDS = (0, 1, 2)
_ROWS, _LENGTH, _STEPS, _FEW, _SHORT = 10_000, 16, 256, 8, 3
_EXACT = ('never', 'cap', 'rescale', 'loop')
_PROMPTS = 512


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  return exactness(seed) | errors(seed) | repair(workdir, seed)


def _chain(seed: int, length: int) -> markov_chain.MarkovChain:
  return markov_chain.MarkovChain(
    num_symbols=2, length=length, seed=seed, num_forbidden=0
  )


def _way(name: str, steps: int, scale: float = 1.0):
  """Alphas and rule of a sampler; `scale` multiplies eta where it is small."""
  if name in ('never', 'few'):
    return remdm.Config().alphas(steps), ancestral.never
  if name == 'most':
    return remdm.Config().alphas(steps), remdm.Rescale(1.0)
  config = remdm.Config(kind=name)
  rule = config.make()
  if name != 'confidence':
    rule = dataclasses.replace(rule, eta=scale * rule.eta)
  return config.alphas(steps), rule


def exactness(seed: int) -> dict[str, float]:
  """P-values of samples."""
  task = _chain(seed, _LENGTH)
  ways = {name: _STEPS for name in (*_EXACT, 'confidence', 'most')}
  found = {
    f'p_{name}': p_value(task, samples(task, name, steps, seed))
    for name, steps in (ways | {'few': _FEW}).items()
  }
  smallest = min(found[f'p_{name}'] for name in _EXACT)
  tests = len(_EXACT) * len(SEEDS)
  return {'smallest_p': min(1.0, tests * smallest)} | found


def samples(task, name: str, steps: int, seed: int) -> np.ndarray:
  """Rows that a sampler draws with the exact denoiser."""
  shape = (_ROWS, task.length)
  canvas = samplers.start(
    jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), task.mask_id
  )
  alphas, rule = _way(name, steps)
  decode = functools.partial(
    ancestral.decode, task.exact_denoiser, mask_id=task.mask_id, remask=rule
  )
  rngs_b = samplers.row_rngs(jax.random.key(seed), _ROWS)
  return np.asarray(jax.jit(decode)(canvas, alphas, rngs_b).tokens_bt)


def p_value(task, tokens: np.ndarray) -> float:
  """Chi-square of the mean counts of symbols and pairs of a row."""
  mean, covariance = moments(task)
  off = features(task, tokens).mean(0) - mean
  values, vectors = np.linalg.eigh(covariance)
  # Counts of symbols, and of pairs, add up: these directions have no variance.
  has = values > 1e-9 * values.max()
  statistic = len(tokens) * ((vectors.T @ off)[has] ** 2 / values[has]).sum()
  return float(stats.chi2.sf(statistic, has.sum()))


def features(task, tokens: np.ndarray) -> np.ndarray:
  """Number of each symbol and of each pair of neighbours, [row, v + v * v]."""
  v = task.num_symbols
  pairs = tokens[:, :-1] * v + tokens[:, 1:]
  count = lambda x, n: (x[..., None] == np.arange(n)).sum(1)
  return np.concatenate([count(tokens, v), count(pairs, v * v)], axis=1)


def moments(task) -> tuple[np.ndarray, np.ndarray]:
  """Mean and covariance of `features` of a row of the chain.

  The events are "symbol a at t" and "a, b at t, t + 1"; of two events the law
  is stationary[a] times the steps to the end of the first, the power of the
  transitions over the gap, and the steps within the second.
  """
  v, p = task.num_symbols, task.transitions
  events = [(a,) for a in range(v)] + list(
    itertools.product(range(v), repeat=2)
  )
  within = lambda e: np.prod([p[a, b] for a, b in itertools.pairwise(e)])
  alone = np.array([task.stationary[e[0]] * within(e) for e in events])
  times = np.array([task.length + 1 - len(e) for e in events])
  powers = [np.linalg.matrix_power(p, n) for n in range(task.length)]

  def together(e, at, f, start):
    """Probability of e at time `at` and of f at `start` >= at."""
    end = at + len(e) - 1
    if start > end:
      gap = powers[start - end][e[-1], f[0]]
      return task.stationary[e[0]] * within(e) * gap * within(f)
    seen = dict(enumerate(e, at))
    if any(seen.setdefault(i, x) != x for i, x in enumerate(f, start)):
      return 0.0
    both = [seen[i] for i in sorted(seen)]
    return task.stationary[both[0]] * within(both)

  second = np.zeros((len(events), len(events)))
  for (i, e), (j, f) in itertools.product(enumerate(events), repeat=2):
    for at, start in itertools.product(range(times[i]), range(times[j])):
      first, last = (
        ((e, at), (f, start)) if at <= start else ((f, start), (e, at))
      )
      second[i, j] += together(*first, *last)
  mean = times * alone
  return mean, second - np.outer(mean, mean)


def errors(seed: int) -> dict[str, float]:
  """Total variation of the samplers' exact laws to the chain's."""
  task, found = _chain(seed, _SHORT), {}
  want = np.array([task.stationary[0], task.stationary[1]])
  for _ in range(task.length - 1):
    want = want[..., None] * task.transitions
  for steps in (_STEPS, 4 * _STEPS):
    more = '' if steps == _STEPS else f'_{steps}'
    for name in (*_EXACT, 'confidence', 'most'):
      alphas, rule = _way(name, steps, _STEPS / steps)
      got = law(task, rule, np.asarray(alphas, np.float64))
      found[f'tv_{name}{more}'] = 0.5 * np.abs(got - want).sum()
  return found


def law(task, rule, alphas: np.ndarray) -> np.ndarray:
  """Law of rows of three that a sampler draws, [v, v, v].

  The state of a position is masked, or a token and, if the rule asks, what its
  probability was when it was revealed. In a step all positions go
  on independently of each other, given the states of all.
  """
  asks = isinstance(rule, remdm.Confidence)
  places = [_Place(task, i, asks) for i in range(task.length)]
  states = np.array(
    list(itertools.product(*(range(len(p.tokens)) for p in places)))
  )
  pick = lambda name: np.stack(
    [getattr(p, name)[states[:, i]] for i, p in enumerate(places)], axis=1
  )
  tokens, psi = pick('tokens'), pick('psi')
  canvas = samplers.start(
    jnp.asarray(tokens), jnp.asarray(tokens == task.mask_id), task.mask_id
  )
  canvas = dataclasses.replace(canvas, psi_bt=jnp.asarray(psi, jnp.float32))
  is_free = jnp.ones(tokens.shape, bool)
  rates = jax.jit(lambda *alphas: rule(canvas, is_free, *alphas))
  stays = [np.eye(len(p.tokens))[states[:, i]] for i, p in enumerate(places)]
  drawn = [p.drawn(tokens) for p in places]
  now = np.zeros(len(states))
  now[0] = 1.0  # All masked.
  for step, (t, s) in enumerate(itertools.pairwise(alphas)):
    sigma = np.asarray(rates(jnp.float32(t), jnp.float32(s)), np.float64)
    reveal = np.clip((s - (1 - sigma) * t) / (1 - t), 0, 1)
    if step == len(alphas) - 2:
      sigma, reveal = np.zeros_like(sigma), np.ones_like(reveal)
    to = []
    for i in range(len(places)):
      is_masked, go = tokens[:, i] == task.mask_id, sigma[:, i]
      go = np.where(is_masked, reveal[:, i], go)[:, None]
      gone = np.where(
        is_masked[:, None], drawn[i], np.eye(1, drawn[i].shape[1])
      )
      to.append((1 - go) * stays[i] + go * gone)
    pairs = now[:, None, None] * to[0][:, :, None] * to[1][:, None, :]
    now = (pairs.reshape(len(now), -1).T @ to[2]).reshape(-1)
  found = np.zeros((task.num_symbols + 1,) * 3)
  np.add.at(found, tuple(tokens.T), now)
  return found[:-1, :-1, :-1]


class _Place:
  """The states of one position.

  Attributes:
    tokens: Of each state; the mask is the first.
    psi: Probability of the token when it was revealed; 1 of the mask, and of
      all if it is not asked for.
  """

  def __init__(self, task, index: int, has_psi: bool):
    self._task, self._index, self._has_psi = task, index, has_psi
    rows = np.array(
      list(itertools.product(range(task.num_symbols + 1), repeat=task.length))
    )
    probs = self._probs(rows[rows[:, index] == task.mask_id])
    found = {self._state(v, p) for row in probs for v, p in enumerate(row)}
    self._states = [(task.mask_id, 1.0), *sorted(found)]
    self.tokens = np.array([v for v, _ in self._states])
    self.psi = np.array([p for _, p in self._states])

  def _state(self, token: int, prob: float) -> tuple[int, float]:
    return token, float(prob) if self._has_psi else 1.0

  def _probs(self, rows: np.ndarray) -> np.ndarray:
    logits = self._task.exact_denoiser(jnp.asarray(rows))[:, self._index]
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    return probs[:, : self._task.num_symbols].round(6)

  def drawn(self, tokens: np.ndarray) -> np.ndarray:
    """Law of the state that rows would reveal here, [row, state]."""
    number = {state: i for i, state in enumerate(self._states)}
    is_masked = tokens[:, self._index] == self._task.mask_id
    probs = self._probs(tokens)
    found = np.zeros((len(tokens), len(self._states)))
    for row in np.flatnonzero(is_masked):
      for v, p in enumerate(probs[row]):
        found[row, number[self._state(v, p)]] += p
    return found / np.maximum(found.sum(-1, keepdims=True), 1e-9)


def repair(workdir: pathlib.Path, seed: int) -> dict[str, float]:
  """Right answers and calls on the dice task.

  Args:
    workdir: Of the seed.
    seed: Of the denoiser and of the rows' chance.
  """
  task = dice_countdown.DiceCountdown()
  config = dataclasses.replace(dice.get_config('tiny').denoiser, seed=seed)
  denoiser = training.trained_denoiser(workdir, task, config, print)
  rows = base.batch(task, training.TEST, 0, _PROMPTS)
  two, one = (selectors.Random(jnp.asarray(k)) for k in (2, 1))
  ways = {
    'two': (two, None),
    'remasked': (two, remdm.Lowest(jnp.asarray(1))),
    'one': (one, None),
    'best_first': (selectors.TopK(jnp.asarray(1)), None),
  }
  right, numbers = {}, {}
  for name, (selector, remask) in ways.items():
    judge = selection.Judge(task, denoiser, rows, remask=remask)
    right_b, calls_b = judge.judged(selector, rows, seed)
    right[name] = float(right_b.mean())
    numbers[f'accuracy_{name}'] = right[name]
    numbers[f'calls_{name}'] = float(calls_b.mean())
  return {
    'gain': right['remasked'] - right['two'],
    'gain_at_equal_calls': right['remasked'] - right['one'],
  } | numbers

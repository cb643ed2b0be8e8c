# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Samplers and bounds of masked diffusion are exact where exactness is known.

Zheng et al. 2024, arXiv:2409.02908: drawing one token at a time samples what
the denoiser defines; float32 Gumbel noise is cut off and makes samples too
cold. Ou et al. 2024, arXiv:2406.03736: the bounds of all absorbing objectives
are the mean over orders of the log-likelihood. arXiv:2512.09106: a policy of
331,265 parameters with two laws of its choices.

Check, samplers: rows of 4 of a Markov chain of 3 symbols with its exact
denoiser (`jaxtok/tasks/markov_chain`), 20,000 samples of each sampler that
writes one token at a time or at many times, chi-square against the chain's law.
smallest_p is the smallest of the p-values times their number (Bonferroni). The
control writes all four tokens in one call; together_tv is its total variation.

Check, bounds: an exact denoiser gives log p(row) in every order, so for each
objective the estimate less -log p(row) has mean zero; bound_in_errors is the
largest of these means over its standard error (20,000 rows, one mask each).
sedd_less_mdlm is the largest difference of the two losses of a row at the same
masks, where scores are normalised, over the loss.

Check, policy: sums of probabilities of all actions, and the number of
parameters less 331,265. Check, noise: of 1e8 Gumbel draws of float32 how many
are above 16.2, where 9.2 are expected: the default of JAX has none, ours has.

More identities (blocks, caches, remasking, gradient of GRPO) are tests, in
tests/diffusion.
"""

import functools
import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy import stats

from jaxtok.diffusion import (
  ancestral,
  any_order,
  first_hitting,
  md4,
  mdlm,
  policy,
  remasking,
  samplers,
  schedules,
  sedd,
  selectors,
)
from jaxtok.models import base as model_base
from jaxtok.tasks import markov_chain

TITLE = 'Exactness of masked diffusion'
PAPER = ''
CLAIM = (
  'Samplers draw from the law that the denoiser defines, all bounds estimate '
  "its log-likelihood, and a policy's probabilities sum to one."
)
THRESHOLD = {
  'smallest_p': 'every >= 0.01',
  'together_tv': 'every >= 0.1',
  'bound_in_errors': 'every <= 4',
  'sedd_less_mdlm': 'every <= 1e-5',
  'sums_error': 'every <= 1e-5',
  'parameters_missing': 'every <= 0',
  'tail_default': 'every <= 0',
  'tail_ours': 'every >= 1',
}
SEEDS = (0, 1, 2)
_ROWS = 20_000


class _Exact(nnx.Module):
  """The exact denoiser as a model; `shift` is added to its logits."""

  def __init__(self, task: markov_chain.MarkovChain, shift: float = 0.0):
    self.task, self.shift = task, shift

  def __call__(self, tokens_bt, **unused):
    logits_btv = self.task.exact_denoiser(tokens_bt) + self.shift
    return model_base.Output(hidden_btd=logits_btv)

  def logits(self, hidden_btd):
    return hidden_btd


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  del workdir
  task = markov_chain.MarkovChain(
    num_symbols=3, length=4, seed=seed, num_forbidden=0
  )
  return _samples(task, seed) | _bounds(task, seed) | _policy() | _tails(seed)


def _joint(task) -> tuple[np.ndarray, np.ndarray]:
  """All rows [r, t] and their probabilities."""
  rows = np.array(
    list(itertools.product(range(task.num_symbols), repeat=task.length))
  )
  steps = task.transitions[rows[:, :-1], rows[:, 1:]].prod(-1)
  return rows, task.stationary[rows[:, 0]] * steps


def _decoders(task):
  """Name -> function of a canvas and keys."""
  loop = functools.partial(
    samplers.decode,
    task.exact_denoiser,
    prompt_len=0,
    mask_id=task.mask_id,
    temperature=1.0,
  )
  chosen = lambda rule: lambda canvas, rngs: loop(canvas, rule, rngs)
  alphas = schedules.Linear().alpha(schedules.grid(500))
  timed = lambda tokens, times: task.exact_denoiser(tokens)
  backwards = lambda rule: (
    lambda canvas, rngs: ancestral.decode(
      task.exact_denoiser,
      canvas,
      alphas,
      rngs,
      mask_id=task.mask_id,
      remask=rule,
    )
  )
  return {
    'random': chosen(selectors.Random(1)),
    'entropy': chosen(selectors.Entropy(1)),
    'first_hitting': lambda canvas, rngs: first_hitting.decode(
      timed, canvas, rngs, mask_id=task.mask_id
    )[0],
    'ancestral': backwards(ancestral.never),
    'remasking': backwards(remasking.Rescale(0.05)),
    'together': chosen(selectors.Random(task.length)),
  }


def _samples(task, seed: int) -> dict[str, float]:
  _, law = _joint(task)
  shape = (_ROWS, task.length)
  canvas = samplers.start(
    jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), task.mask_id
  )
  rngs_b = samplers.row_rngs(jax.random.key(seed), _ROWS)
  place = task.num_symbols ** np.arange(task.length - 1, -1, -1)
  numbers, together = {}, 0.0
  for name, decode in _decoders(task).items():
    tokens = np.asarray(jax.jit(decode)(canvas, rngs_b).tokens_bt)
    counts = np.bincount(tokens @ place, minlength=len(law))
    if name == 'together':
      together = 0.5 * np.abs(counts / _ROWS - law).sum()
    else:
      numbers[f'p_{name}'] = _p_value(counts, _ROWS * law)
  smallest = min(1.0, len(numbers) * min(numbers.values()))
  return {'smallest_p': smallest, 'together_tv': float(together)} | numbers


def _p_value(counts: np.ndarray, want: np.ndarray) -> float:
  """Of chi-square; outcomes expected less than five times are one."""
  rare = want < 5
  if rare.any():
    counts = np.append(counts[~rare], counts[rare].sum())
    want = np.append(want[~rare], want[rare].sum())
  statistic = ((counts - want) ** 2 / want).sum()
  return float(stats.chi2.sf(statistic, len(want) - 1))


def _bounds(task, seed: int) -> dict[str, float]:
  rows, law = _joint(task)
  chosen = np.random.default_rng(seed).choice(len(law), _ROWS, p=law)
  tokens = jnp.asarray(rows[chosen], jnp.int32)
  ones = jnp.ones_like(tokens)
  batch = {
    'tokens_bt': tokens,
    'targets_bt': tokens,
    'loss_mask_bt': ones.astype(jnp.float32),
    'segment_ids_bt': ones,
    'positions_bt': ones * jnp.arange(task.length),
    'num_bytes_bt': ones,
  }
  fields = dict(mask_id=task.mask_id, eval_samples=1)
  # Scores are normalised where exp(logits) sum to the number of symbols.
  model = _Exact(task, float(np.log(task.num_symbols)))
  nats = {
    name: _row_nats(config.make(), model, batch, seed)
    for name, config in {
      'mdlm': mdlm.Config(**fields),
      'md4': md4.Config(schedule='cosine', **fields),
      'any_order': any_order.Config(**fields),
      'sedd': sedd.Config(**fields),
    }.items()
  }
  errors = {}
  for name, value in nats.items():
    off = value + np.log(law[chosen])
    errors[f'errors_{name}'] = float(
      abs(off.mean()) / (off.std() / np.sqrt(_ROWS))
    )
  off = np.abs(nats['sedd'] - nats['mdlm']) / np.maximum(nats['mdlm'], 1.0)
  return {
    'bound_in_errors': max(errors.values()),
    'sedd_less_mdlm': float(off.max()),
  } | errors


def _row_nats(objective, model, batch, seed: int) -> np.ndarray:
  run = jax.jit(lambda rng: objective.per_row(model, batch, rng)['nats_bound'])
  return np.asarray(run(jax.random.key(seed)).total, np.float64)


def _policy() -> dict[str, float]:
  """Sums over all actions at four places, of which one is not allowed."""
  allowed = np.array([True, True, False, True])
  places = np.flatnonzero(allowed)
  logits = np.random.default_rng(0).normal(size=4).astype(np.float32)
  sets = np.array(list(itertools.product([False, True], repeat=4)))
  sets = np.unique(sets & allowed, axis=0)
  orders = [
    [*order, *([-1] * (4 - len(order)))]
    for k in range(1, len(places) + 1)
    for order in itertools.permutations(places, k)
  ]
  total = lambda log_prob, actions: float(
    np.exp(
      np.asarray(
        log_prob(
          jnp.tile(logits, (len(actions), 1)),
          jnp.asarray(actions),
          jnp.tile(allowed, (len(actions), 1)),
        ),
        np.float64,
      )
    ).sum()
  )
  sums = (
    total(policy.bernoulli_log_prob, sets),
    total(policy.dpls_log_prob, np.array(orders)),
  )
  model = nnx.eval_shape(lambda: policy.Config().make(nnx.Rngs(0)))
  shapes = [x.shape for x in jax.tree.leaves(nnx.state(model, nnx.Param))]
  return {
    'sums_error': max(abs(value - 1) for value in sums),
    'parameters_missing': float(abs(sum(map(math.prod, shapes)) - 331_265)),
  }


def _tails(seed: int) -> dict[str, float]:
  def above(mode, rng):
    return (jax.random.gumbel(rng, (1_000_000,), mode=mode) > 16.2).sum()

  rngs = jax.random.split(jax.random.key(seed), 100)
  count = lambda mode: float(
    jax.lax.map(functools.partial(above, mode), rngs).sum()
  )
  return {'tail_default': count('low'), 'tail_ours': count('high')}

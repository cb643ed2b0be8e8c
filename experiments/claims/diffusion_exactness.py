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
writes one token at a time (also in blocks of 2 with the exact cache, of which
the denoiser sees none behind) or at many times (also GenMD4's, all rates 1.5),
chi-square against the chain's law. smallest_p is the smallest of the p-values
times their number (Bonferroni). The control writes all four tokens in one call;
together_tv is its total variation.

Check, bounds: an exact denoiser gives log p(row) in every order, so for each
objective the estimate of evaluation less -log p(row) has mean zero;
bound_in_errors is the largest of these means over its standard error (20,000
rows, one mask each). LLaDA's is that of any_order. GenMD4's is tight only where
masks say nothing of the tokens, with equal rates (1.5), and up to t_min.
sedd_less_mdlm is the largest difference of the two losses of a row at the same
masks, where scores are normalised, over the loss.

Check, policy: sums of probabilities of all actions, and the number of
parameters less 331,265. Check, noise: 6e8 draws of a token of probability
exp(-18.1), of which 8.3 are expected (none but with probability 2e-4), by
samplers.decode, by ancestral.decode and by JAX's default, which expects 0.01.

More identities (orders, blocks, caches, remasking) are the claim
`diffusion_identities`; samplers that must fail are `sampler_bias`.
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
  bd3lm,
  block_cache,
  first_hitting,
  genmd4,
  llada,
  md4,
  mdlm,
  policy,
  remdm,
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
  'Samplers draw from the law that the denoiser defines, the bounds of MDLM, '
  'MD4, any-order models, SEDD, LLaDA, BD3-LM and GenMD4 with equal rates '
  "estimate its log-likelihood, and a policy's probabilities sum to one."
)
THRESHOLD = {
  'smallest_p': 'every >= 0.01',
  'together_tv': 'every >= 0.1',
  'bound_in_errors': 'every <= 4',
  'sedd_less_mdlm': 'every <= 1e-5',
  'sums_error': 'every <= 1e-5',
  'parameters_missing': 'every <= 0',
  'tail_default': 'every <= 0',
  'tail_samplers': 'every >= 1',
  'tail_ancestral': 'every >= 1',
}
SEEDS = (0, 1, 2)
_ROWS, _BLOCK, _RATE = 20_000, 2, 1.5
_FEW, _TRIES, _DRAWS = -18.1, 600, 1_000_000  # See the check of noise.


class _Exact(nnx.Module):
  """The exact denoiser as a model; `shift` is added to its logits."""

  def __init__(self, task: markov_chain.MarkovChain, shift: float = 0.0):
    self.task, self.shift = task, shift

  def __call__(self, tokens_bt, **unused):
    logits_btv = self.task.exact_denoiser(tokens_bt) + self.shift
    return model_base.Output(hidden_btd=logits_btv)

  def logits(self, hidden_btd):
    return hidden_btd

  def rates(self):
    return jnp.full(self.task.num_symbols, _RATE)


class _ExactInBlocks(_Exact):
  """Likewise, of [noisy; clean]: a block sees itself and clean ones before."""

  def __call__(self, tokens_bt, **unused):
    noisy_bt, clean_bt = jnp.split(tokens_bt, 2, axis=1)
    block_t = jnp.arange(noisy_bt.shape[1]) // _BLOCK
    logits_btv = 0.0
    for block in range(self.task.length // _BLOCK):
      seen_bt = jnp.where(block_t == block, noisy_bt, self.task.mask_id)
      seen_bt = jnp.where(block_t < block, clean_bt, seen_bt)
      found_btv = self.task.exact_denoiser(seen_bt)
      logits_btv += jnp.where((block_t == block)[:, None], found_btv, 0.0)
    twice_btv = jnp.concatenate([logits_btv, logits_btv], axis=1)
    return model_base.Output(hidden_btd=twice_btv)


class _Cached:
  """The exact denoiser for `block_cache`; the cache holds the tokens."""

  def __init__(self, task: markov_chain.MarkovChain):
    self._task = task

  def init_cache(self, tokens_bt):
    return jnp.full_like(tokens_bt, self._task.mask_id)

  def window(self, tokens_bw, cache, start, *, offset, size):
    cache = jax.lax.dynamic_update_slice_in_dim(cache, tokens_bw, start, 1)
    logits_btv = self._task.exact_denoiser(cache)
    at = start + offset
    return jax.lax.dynamic_slice_in_dim(logits_btv, at, size, 1), cache


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  del workdir
  task = markov_chain.MarkovChain(
    num_symbols=3, length=4, seed=seed, num_forbidden=0
  )
  return _samples(task, seed) | _bounds(task, seed) | _policy() | _tails(seed)


def joint(task) -> tuple[np.ndarray, np.ndarray]:
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
  in_blocks = functools.partial(
    block_cache.decode,
    _Cached(task),
    kind='exact',
    block=_BLOCK,
    prompt_len=0,
    mask_id=task.mask_id,
    temperature=1.0,
  )
  rates = jnp.full(task.num_symbols, _RATE)
  times = schedules.grid(500)
  alphas = schedules.Linear().alpha(times)
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
    'remasking': backwards(remdm.Rescale(0.05)),
    'blocks': lambda canvas, rngs: in_blocks(canvas, selectors.Random(1), rngs),
    'genmd4': lambda canvas, rngs: genmd4.decode(
      task.exact_denoiser, rates, canvas, times, rngs
    ),
    'together': chosen(selectors.Random(task.length)),
  }


def _samples(task, seed: int) -> dict[str, float]:
  _, law = joint(task)
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
      numbers[f'p_{name}'] = p_value(counts, _ROWS * law)
  smallest = min(1.0, len(numbers) * min(numbers.values()))
  return {'smallest_p': smallest, 'together_tv': float(together)} | numbers


def p_value(counts: np.ndarray, want: np.ndarray) -> float:
  """Of chi-square; outcomes expected less than five times are one."""
  rare = want < 5
  if rare.any():
    counts = np.append(counts[~rare], counts[rare].sum())
    want = np.append(want[~rare], want[rare].sum())
  statistic = ((counts - want) ** 2 / want).sum()
  return float(stats.chi2.sf(statistic, len(want) - 1))


def _bounds(task, seed: int) -> dict[str, float]:
  rows, law = joint(task)
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
      'llada': llada.Config(**fields),
      'genmd4': genmd4.Config(**fields),
    }.items()
  }
  blocks = bd3lm.Config(block=_BLOCK, **fields).make()
  nats['bd3lm'] = _row_nats(blocks, _ExactInBlocks(task), batch, seed)
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
  """How often each draws the second of two tokens, which is rare."""
  shape = (1, _DRAWS)
  logits = jnp.broadcast_to(jnp.array([0.0, _FEW]), (*shape, 2))
  canvas = samplers.start(jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), 2)
  denoiser = lambda tokens: logits
  every = lambda view: view.allowed_bt
  ways = {
    'default': lambda rng: jax.random.categorical(rng, logits),
    'samplers': lambda rng: (
      samplers.decode(
        denoiser,
        canvas,
        every,
        rng[None],
        prompt_len=0,
        mask_id=2,
        temperature=1.0,
      ).tokens_bt
    ),
    'ancestral': lambda rng: (
      ancestral.decode(
        denoiser, canvas, jnp.array([0.0, 1.0]), rng[None], mask_id=2
      ).tokens_bt
    ),
  }
  rngs = jax.random.split(jax.random.key(seed), _TRIES)
  count = lambda draw: jax.lax.map(lambda rng: draw(rng).sum(), rngs).sum()
  return {f'tail_{name}': float(count(way)) for name, way in ways.items()}

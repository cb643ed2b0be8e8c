# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds, remasking, blocks and caches of masked diffusion are what they say.

Ou et al. 2024, arXiv:2406.03736: the bounds of absorbing objectives are the
mean over orders of the log-likelihood. Shi et al. 2024, arXiv:2406.04329:
GenMD4 with equal rates is MD4. Lou et al. 2023, arXiv:2310.16834: scores are
converted from probabilities. Wang et al. 2025, arXiv:2503.00307: remasking
keeps the marginals. Arriola et al. 2025, arXiv:2503.09573: one call on a noisy
and a clean copy scores all blocks. The bounds with an exact denoiser are in
`diffusion_exactness`.

Check, bounds: rows of 4 of 3 symbols, a denoiser of random logits, whose orders
do not agree. orders_in_errors is the largest difference of the estimates of
MDLM and any-order models to the mean over all 24 orders of a row, over its
standard error (20,000 rows, one mask each). genmd4_less_md4 is the largest
difference of the losses of a row at the same masks, rates of 1, over the loss;
head_less_mdlm that of the score entropy of `sedd.ScoreHead` and MDLM.

Check, remasking: 20,000 rows of a Markov chain of 3 symbols
(`jaxtok/tasks/markov_chain`) with its exact denoiser, masked at one time, after
one step: each position holds each symbol, and the mask, as often as at the next
time. smallest_p is the smallest chi-square p-value of any position, with no
remasking, cap, rescale and loop, times their number (Bonferroni).

Check, blocks: a small transformer of random weights. concatenation_error is the
largest difference in nats of a token scored by BD3-LM's one call and by a call
for each block. rows_that_differ counts rows of 64 in which a prefix or dual
cache that is refreshed at every call, or the exact cache under the mask of
blocks, changes tokens, calls or the order of revealing.
"""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.claims import diffusion_exactness
from jaxtok.diffusion import (
  ancestral,
  any_order,
  bd3lm,
  block_cache,
  denoisers,
  genmd4,
  losses,
  md4,
  mdlm,
  remdm,
  samplers,
  sedd,
  selectors,
)
from jaxtok.models import base as model_base
from jaxtok.models import transformer
from jaxtok.tasks import markov_chain

TITLE = 'Identities of masked diffusion'
PAPER = ''
CLAIM = (
  'Bounds are means over orders, GenMD4 with equal rates is MD4, score entropy '
  'of converted probabilities is MDLM, remasking keeps marginals, two copies '
  'score all blocks, and caches that are refreshed change nothing.'
)
THRESHOLD = {
  'orders_in_errors': 'every <= 4',
  'genmd4_less_md4': 'every <= 1e-5',
  'head_less_mdlm': 'every <= 1e-5',
  'smallest_p': 'every >= 0.01',
  'concatenation_error': 'every <= 1e-4',
  'rows_that_differ': 'every <= 0',
}
SEEDS = (0, 1, 2)
_ROWS = 20_000
_VOCAB, _LENGTH, _MASK = 12, 16, 11  # Of the transformer.


class _Lookup(nnx.Module):
  """Random logits for each input: conditionals of no joint law.

  Its rates are those of GenMD4, all 1.
  """

  def __init__(self, task, seed: int):
    self.task, base = task, task.vocab_size
    shape = (base**task.length, task.length, base)
    table = 1.5 * np.random.default_rng(seed).normal(size=shape)
    self.table = nnx.Param(jnp.asarray(table, jnp.float32))

  def rates(self):
    return jnp.ones(self.task.num_symbols)

  def __call__(self, tokens_bt, **unused):
    place_t = self.task.vocab_size ** jnp.arange(self.task.length)
    return model_base.Output(self.table[(tokens_bt * place_t).sum(-1)])

  def logits(self, hidden_btd):
    return hidden_btd


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  del workdir
  task = markov_chain.MarkovChain(
    num_symbols=3, length=4, seed=seed, num_forbidden=0
  )
  return (
    _orders(task, seed)
    | _kernel(task, seed)
    | _concatenation(seed)
    | _caches(seed)
  )


def _batch(tokens: np.ndarray) -> dict[str, jax.Array]:
  tokens = jnp.asarray(tokens, jnp.int32)
  ones = jnp.ones_like(tokens)
  return {
    'tokens_bt': tokens,
    'targets_bt': tokens,
    'loss_mask_bt': ones.astype(jnp.float32),
    'segment_ids_bt': ones,
    'positions_bt': ones * jnp.arange(tokens.shape[1]),
    'num_bytes_bt': ones,
  }


def _row_nats(config, model, batch, seed: int) -> np.ndarray:
  per_row = config.make().per_row
  run = jax.jit(lambda rng: per_row(model, batch, rng)['nats_bound'].total)
  return np.asarray(run(jax.random.key(seed)), np.float64)


def _in_errors(off: np.ndarray) -> float:
  """The mean over its standard error."""
  return float(abs(off.mean()) / (off.std() / np.sqrt(len(off))))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
  return float((np.abs(a - b) / np.maximum(b, 1.0)).max())


def _orders(task, seed: int) -> dict[str, float]:
  """Estimates of one row by random logits, against all orders."""
  model = _Lookup(task, seed)
  row = np.random.default_rng(seed).integers(0, task.num_symbols, task.length)
  batch = _batch(np.tile(row, (_ROWS, 1)))
  want = _mean_over_orders(task, np.asarray(model.table[...], np.float64), row)
  # What MDLM's t_min of 1e-3 changes is less than 1e-3 of the bound, below the
  # standard error.
  fields = dict(mask_id=task.mask_id, eval_samples=1)
  nats = lambda config, model=model: _row_nats(config, model, batch, seed)
  plain = nats(mdlm.Config(**fields))
  head = sedd.ScoreHead(model, task.mask_id)
  errors = {
    'orders_mdlm': _in_errors(plain - want),
    'orders_any_order': _in_errors(nats(any_order.Config(**fields)) - want),
  }
  equal = genmd4.Config(**fields), md4.Config(eps=1e-3, **fields)
  return {
    'orders_in_errors': max(errors.values()),
    'genmd4_less_md4': _apart(*map(nats, equal)),
    'head_less_mdlm': _apart(nats(sedd.Config(**fields), head), plain),
  } | errors


def _mean_over_orders(task, table: np.ndarray, row: np.ndarray) -> float:
  """Mean negative log-likelihood over all orders of revealing, nats."""
  places = range(task.length)
  total, orders = 0.0, list(itertools.permutations(places))
  for order in orders:
    tokens = np.full(task.length, task.mask_id)
    for place in order:
      code = int((tokens * task.vocab_size ** np.arange(task.length)).sum())
      logits = table[code, place, : task.num_symbols]
      total -= logits[row[place]] - np.log(np.exp(logits).sum())
      tokens[place] = row[place]
  return total / len(orders)


def _kernel(task, seed: int) -> dict[str, float]:
  """One step from the law at alpha_t, against the law at alpha_s."""
  rows, law = diffusion_exactness.joint(task)
  chosen = np.random.default_rng(seed).choice(len(law), _ROWS, p=law)
  tokens = rows[chosen]
  rules = {
    'never': (ancestral.never, 0.4, 0.5),
    'cap': (remdm.Cap(0.2), 0.4, 0.5),
    'rescale': (remdm.Rescale(1.0), 0.4, 0.5),
    'loop': (remdm.Loop(0.3), 0.5, 0.5),
  }
  numbers = {}
  for name, (rule, alpha_t, alpha_s) in rules.items():
    hit = np.random.default_rng(seed + 1).random(tokens.shape) < 1 - alpha_t
    canvas = samplers.start(
      jnp.asarray(tokens, jnp.int32), jnp.asarray(hit), task.mask_id
    )
    step = jax.jit(
      lambda canvas, alpha_t, alpha_s, rule=rule: (
        ancestral.step(
          task.exact_denoiser,
          canvas,
          alpha_t,
          alpha_s,
          0,
          rngs_b=samplers.row_rngs(jax.random.key(seed), _ROWS),
          is_free_bt=jnp.ones(canvas.tokens_bt.shape, bool),
          mask_id=task.mask_id,
          remask=rule,
        ).tokens_bt
      )
    )
    after = np.asarray(step(canvas, jnp.float32(alpha_t), jnp.float32(alpha_s)))
    want = _ROWS * np.append(alpha_s * task.stationary, 1 - alpha_s)
    numbers[f'p_{name}'] = task.length * min(
      diffusion_exactness.p_value(np.bincount(x, minlength=len(want)), want)
      for x in after.T
    )
  smallest = min(1.0, len(rules) * min(numbers.values()))
  return {'smallest_p': smallest} | numbers


def _transformer(seed: int) -> transformer.Transformer:
  """Random weights with logits of about 1."""
  config = transformer.Config.llama(
    vocab_size=_VOCAB, dim=16, num_layers=2, num_heads=2, is_causal=False
  )
  model = config.make(nnx.Rngs(seed))
  kernel = model.head.out.kernel
  kernel[...] = 10 * kernel[...]
  return model


def _random_rows(seed: int) -> tuple[jax.Array, jax.Array]:
  """64 rows of tokens, and which of them are masked: about half."""
  rng, shape = np.random.default_rng(seed), (64, _LENGTH)
  tokens = rng.integers(0, _MASK, shape).astype(np.int32)
  return jnp.asarray(tokens), jnp.asarray(rng.random(shape) < 0.5)


def _concatenation(seed: int) -> dict[str, float]:
  """BD3-LM's one call against a call for each block after clean ones."""
  model, (clean, is_masked) = _transformer(seed), _random_rows(seed)
  worst = 0.0
  for block in (1, 4):
    corruption = losses.Corruption(is_masked, is_masked.astype(jnp.float32))
    got = nnx.jit(
      lambda model, block=block, corruption=corruption: (
        bd3lm.scores(
          model, _batch(clean), corruption, _MASK, None, block=block
        ).nats_bt
      )
    )(model)
    alone = nnx.jit(
      lambda model, tokens, block=block: model.logits(
        model(tokens, mask=bd3lm.block_mask(block)).hidden_btd
      )
    )
    for start in range(0, _LENGTH, block):
      inside = (np.arange(_LENGTH) // block) == start // block
      noisy = jnp.where(is_masked & inside, _MASK, clean)
      logits = np.asarray(alone(model, noisy), np.float64)[..., :_MASK]
      log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      want = -np.take_along_axis(log_p, np.asarray(clean)[..., None], -1)
      off = np.abs(np.asarray(got) - want[..., 0])
      worst = max(worst, float(off[np.asarray(is_masked & inside)].max()))
  return {'concatenation_error': worst}


def _caches(seed: int) -> dict[str, float]:
  """Rows that a cache which is never out of date decodes otherwise."""
  model, (tokens, is_masked) = _transformer(seed), _random_rows(seed)
  is_masked &= jnp.arange(_LENGTH) >= 4
  canvas = samplers.start(tokens, is_masked, _MASK)
  rngs_b = samplers.row_rngs(jax.random.key(seed), len(tokens))
  rule = selectors.Threshold(jnp.float32(0.3))
  options = dict(prompt_len=4, mask_id=_MASK, block=4)
  free = denoisers.OfModel.make(model)
  causal = denoisers.OfModel.make(model, mask=bd3lm.block_mask(4))
  plain = jax.jit(lambda d: samplers.decode(d, canvas, rule, rngs_b, **options))
  numbers = {}
  for kind, denoiser, refresh in (
    ('prefix', free, 1),
    ('dual', free, 1),
    ('exact', causal, 0),
  ):
    cached = jax.jit(
      lambda d, kind=kind, refresh=refresh: block_cache.decode(
        d, canvas, rule, rngs_b, kind=kind, refresh_every=refresh, **options
      )
    )
    got, want = cached(denoiser), plain(denoiser)
    numbers[f'rows_that_differ_{kind}'] = float(
      (
        (got.tokens_bt != want.tokens_bt).any(-1)
        | (got.reveal_step_bt != want.reveal_step_bt).any(-1)
        | (got.num_calls_b != want.num_calls_b)
      ).sum()
    )
  return {'rows_that_differ': sum(numbers.values())} | numbers

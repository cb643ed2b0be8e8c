# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cached decoding: refresh identity, stale keys written out, accounting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.cache import overwrite
from jaxtok.diffusion import (
  block_cache,
  denoisers,
  pretrained,
  samplers,
  selectors,
)
from jaxtok.models import transformer
from jaxtok.nn import block_masks

VOCAB, MASK, P, BLOCK, LENGTH = 12, 11, 4, 4, 16
B = 3


@pytest.fixture(scope='module')
def model():
  config = transformer.Config.llama(
    vocab_size=VOCAB, dim=16, num_layers=2, num_heads=2, is_causal=False
  )
  model = config.make(nnx.Rngs(1))
  # Logits of about 1 instead of 0.1, so that confidences differ.
  kernel = model.head.out.kernel
  kernel[...] = 10 * kernel[...]
  return model


@pytest.fixture(scope='module')
def canvas():
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, 10, (B, LENGTH)).astype(np.int32)
  masked = np.tile(np.arange(LENGTH) >= P, (B, 1))
  masked[1, 9] = False  # Given inside the answer.
  masked[2, P : P + BLOCK] = False  # A block with nothing to do.
  return samplers.start(jnp.asarray(tokens), jnp.asarray(masked), MASK)


@functools.partial(
  jax.jit, static_argnames=('kind', 'refresh_every', 'temperature')
)
def cached(denoiser, canvas, selector, rngs_b, **options):
  return block_cache.decode(
    denoiser,
    canvas,
    selector,
    rngs_b,
    prompt_len=P,
    mask_id=MASK,
    block=BLOCK,
    **options,
  )


@jax.jit
def plain(denoiser, canvas, selector, rngs_b):
  return samplers.decode(
    denoiser,
    canvas,
    selector,
    rngs_b,
    prompt_len=P,
    mask_id=MASK,
    block=BLOCK,
  )


RNGS = samplers.row_rngs(jax.random.key(0), B)
RULE = selectors.Threshold(jnp.float32(0.3))


def assert_same(got, want):
  for name in ('tokens_bt', 'num_calls_b', 'reveal_step_bt', 'is_masked_bt'):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name), name)
  # The same sums over 16 keys in another order: 16 x 6e-8, through two layers
  # and a head that multiplies by 10.
  np.testing.assert_allclose(got.psi_bt, want.psi_bt, atol=2e-5)


@pytest.mark.parametrize('kind', ['prefix', 'dual'])
def test_a_cache_refreshed_at_every_call_is_no_cache(model, canvas, kind):
  denoiser = denoisers.OfModel.make(model)
  got = cached(denoiser, canvas, RULE, RNGS, kind=kind, refresh_every=1)
  assert_same(got, plain(denoiser, canvas, RULE, RNGS))


def test_the_exact_cache_changes_nothing(model, canvas):
  mask = block_masks.BlockCausal(BLOCK)
  denoiser = denoisers.OfModel.make(model, mask=mask)
  got = cached(denoiser, canvas, RULE, RNGS, kind='exact')
  assert_same(got, plain(denoiser, canvas, RULE, RNGS))
  # A block that is given in all rows must enter the cache as well.
  at = jnp.arange(LENGTH)
  given = canvas.is_masked_bt & ((at < 2 * BLOCK) | (at >= 3 * BLOCK))
  tokens = jnp.where(canvas.is_masked_bt & ~given, 5, canvas.tokens_bt)
  middle = samplers.start(tokens, given, MASK)
  got_middle = cached(denoiser, middle, RULE, RNGS, kind='exact')
  assert_same(got_middle, plain(denoiser, middle, RULE, RNGS))
  # Without the mask it would: later positions are seen.
  free = plain(denoisers.OfModel.make(model), canvas, RULE, RNGS)
  assert (free.tokens_bt != got.tokens_bt).any()


@pytest.fixture(scope='module')
def keys_of(model):
  """Keys and values of a model call, layer by layer, by NumPy."""
  return {k: np.asarray(v[...], np.float64) for k, v in _weights(model)}


def _weights(model):
  state = nnx.to_flat_state(nnx.state(model, nnx.Param))
  return [('.'.join(map(str, path)), leaf) for path, leaf in state]


def numpy_logits(weights, tokens, begin, stored):
  """Logits of tokens at `begin`, ..., with the stored keys overwritten.

  Args:
    weights: By name.
    tokens: [w].
    begin: Position of the first token.
    stored: Per layer {'k', 'v'} [t, n, h], changed in place; positions that
      were never stored are NaN and not seen.
  """
  position = begin + np.arange(len(tokens))
  rms = lambda x, g: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * g
  x = weights['embed.tokens.table'][tokens]
  for layer, kept in enumerate(stored):
    w = lambda name, layer=layer: weights[f'stack.blocks.{layer}.{name}']
    y = rms(x, w('attention_norm.scale'))
    q, k, v = (
      np.einsum('td,dnh->tnh', y, w(f'attention.{c}.kernel')) for c in 'qkv'
    )
    kept['k'][position], kept['v'][position] = rotate(k, position), v
    seen = ~np.isnan(kept['k'][:, 0, 0])
    score = np.einsum('tnh,snh->nts', rotate(q, position), kept['k'][seen])
    score = np.exp(score / np.sqrt(q.shape[-1]))
    share = score / score.sum(-1, keepdims=True)
    mixed = np.einsum('nts,snh->tnh', share, kept['v'][seen])
    x = x + np.einsum('tnh,nhd->td', mixed, w('attention.out.kernel'))
    y = rms(x, w('mlp_norm.scale'))
    gate, up = y @ w('mlp.gate.kernel'), y @ w('mlp.up.kernel')
    x = x + (gate / (1 + np.exp(-gate)) * up) @ w('mlp.down.kernel')
  return rms(x, weights['stack.norm.scale']) @ weights['head.out.kernel']


def rotate(x_tnh, position):
  half = x_tnh.shape[-1] // 2
  angle = position[:, None] * 1e4 ** (-np.arange(half) / half)
  cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
  a, b = x_tnh[..., :half], x_tnh[..., half:]
  return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def numpy_decode(weights, tokens, masked, kind, refresh_every):
  """Greedy Threshold(0.3) of one row with stale keys, and its calls."""
  tokens, masked, calls = tokens.copy(), masked.copy(), 0
  new = lambda: np.full((LENGTH, 2, 8), np.nan)
  stored = [{'k': new(), 'v': new()} for _ in range(2)]
  for start in range(P, LENGTH, BLOCK):
    inside = (np.arange(LENGTH) >= start) & (np.arange(LENGTH) < start + BLOCK)
    num = 0
    while (masked & inside).any():
      begin, end = start, {'dual': start + BLOCK, 'prefix': LENGTH}[kind]
      if num % (refresh_every or BLOCK) == 0:
        begin, end = 0, LENGTH
      logits = np.full((LENGTH, VOCAB), -np.inf)
      logits[begin:end] = numpy_logits(
        weights, tokens[begin:end], begin, stored
      )[:, :VOCAB]
      logits[:, MASK] = -np.inf
      p = np.exp(logits[start : start + BLOCK])
      p /= p.sum(-1, keepdims=True)
      conf = np.where(masked[inside], p.max(-1), -1)
      chosen = (conf >= 0.3) | (np.arange(BLOCK) == conf.argmax())
      chosen = start + np.flatnonzero(chosen & masked[inside])
      tokens[chosen] = logits.argmax(-1)[chosen]
      masked[chosen] = False
      calls, num = calls + 1, num + 1
  return tokens, calls


@pytest.mark.parametrize(
  ('kind', 'refresh_every'), [('prefix', 0), ('dual', 0), ('dual', 2)]
)
def test_stale_keys_are_those_of_a_loop_in_numpy(
  model, keys_of, canvas, kind, refresh_every
):
  denoiser = denoisers.OfModel.make(model)
  got = cached(
    denoiser, canvas, RULE, RNGS, kind=kind, refresh_every=refresh_every
  )
  for row in range(B):
    tokens, calls = numpy_decode(
      keys_of,
      np.asarray(canvas.tokens_bt[row]),
      np.asarray(canvas.is_masked_bt[row]),
      kind,
      refresh_every,
    )
    np.testing.assert_array_equal(got.tokens_bt[row], tokens)
    assert got.num_calls_b[row] == calls
  assert not got.is_masked_bt.any()


def test_a_row_decodes_alone_as_in_a_batch(model, canvas):
  denoiser = denoisers.OfModel.make(model)
  options = dict(kind='dual', temperature=1.0)
  whole = cached(denoiser, canvas, RULE, RNGS, **options)
  for row in range(B):
    one = lambda x, row=row: x[row : row + 1]
    alone = cached(
      denoiser, jax.tree.map(one, canvas), RULE, RNGS[row][None], **options
    )
    assert_same(alone, jax.tree.map(one, whole))
  # The row whose first block is given is not charged for it.
  steps = np.asarray(whole.reveal_step_bt)
  assert steps[2, P + BLOCK :].min() == 0
  np.testing.assert_array_equal(whole.num_calls_b, steps.max(-1) + 1)


def test_canvases_of_one_shape_compile_once(model, canvas):
  denoiser = denoisers.OfModel.make(model)
  before = cached._cache_size()
  for seed in range(3):
    rngs = samplers.row_rngs(jax.random.key(seed), B)
    rule = selectors.Threshold(jnp.float32(0.1 * seed))
    cached(denoiser, canvas, rule, rngs, kind='dual', refresh_every=3)
  assert cached._cache_size() == before + 1


@pytest.mark.parametrize(
  'fields',
  [
    dict(guidance=1.5),
    dict(shift=True, order='entropy', eos='logits'),
  ],
  ids=str,
)
def test_llada_and_dream_with_a_fresh_cache_are_those_without(model, fields):
  prompt = jnp.asarray(np.random.default_rng(2).integers(0, 10, (2, P)))
  fields = fields | dict(length=8, block=4, steps=4)

  def generate(**cache):
    config = pretrained.Config(**fields, **cache)
    call = functools.partial(
      pretrained.generate, config=config, mask_id=MASK, eos_ids=(3,)
    )
    return nnx.jit(call)(model, prompt, rng=jax.random.key(0))

  want = generate()
  assert_same(generate(cache='dual', refresh_every=1), want)
  stale = generate(cache='dual')
  np.testing.assert_array_equal(stale.num_calls_b, want.num_calls_b)
  assert not (stale.tokens_bt == MASK).any()


def test_padding_on_the_left_is_not_seen(model, canvas):
  """A padded row decodes as the row without the padding."""
  pad = 2
  rule, options = RULE, dict(kind='dual')
  short = jax.tree.map(lambda x: x[:1, pad:] if x.ndim == 2 else x[:1], canvas)

  def decode(canvas, segments, prompt_len):
    denoiser = denoisers.OfModel.make(model, segments)
    return jax.jit(
      lambda d, c: block_cache.decode(
        d,
        c,
        rule,
        RNGS[:1],
        prompt_len=prompt_len,
        mask_id=MASK,
        block=BLOCK,
        **options,
      )
    )(denoiser, canvas)

  row = jax.tree.map(lambda x: x[:1], canvas)
  segments = (jnp.arange(LENGTH) >= pad).astype(jnp.int32)[None]
  got, want = decode(row, segments, P), decode(short, None, P - pad)
  np.testing.assert_array_equal(got.tokens_bt[:, pad:], want.tokens_bt)
  np.testing.assert_array_equal(got.num_calls_b, want.num_calls_b)


def test_a_window_is_written_over_what_was_there(model):
  cache = overwrite.Overwrite.of(model.init_cache(1, 6))
  tokens = jnp.arange(6)[None]
  write = nnx.jit(lambda model, x, cache: model(x, cache=cache).cache)
  cache = write(model, tokens, cache)
  assert cache.length_b == 6
  again = write(model, tokens[:, 2:4] + 1, cache.at(2))
  assert again.length_b == 6
  moved = (np.asarray(again.k[0]) != np.asarray(cache.k[0])).any((0, 1, 3))
  np.testing.assert_array_equal(moved, [0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(kind='paged'), "kind='paged'"),
    (dict(block=5), 'block=5 must be'),
    (dict(prompt_len=16), 'prompt_len=16'),
    (dict(kind='exact', refresh_every=1), 'never goes out of date'),
    (dict(kind='exact', prompt_len=2, block=7), 'multiple of block=7'),
    (dict(refresh_every=-1), 'refresh_every=-1'),
  ],
)
def test_wrong_settings_are_refused(model, canvas, fields, message):
  options = dict(kind='dual', prompt_len=P, mask_id=MASK, block=BLOCK)
  denoiser = denoisers.OfModel.make(model)
  with pytest.raises(ValueError, match=message):
    block_cache.decode(denoiser, canvas, RULE, RNGS, **options | fields)


def test_a_refresh_without_a_cache_is_refused():
  with pytest.raises(ValueError, match="Set cache='dual'"):
    pretrained.Config(length=8, steps=8, refresh_every=2)

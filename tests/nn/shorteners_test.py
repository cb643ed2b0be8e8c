# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shorteners against float64 NumPy and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from jaxtok.nn import attention, pooling_shorteners, shorteners

B, S, D = 3, 12, 8
# Row 0 has two documents; row 1 padding at the end; row 2 nothing at all.
SEGMENTS = np.array([[1] * 7 + [2] * 5, [1] * 9 + [0] * 3, [0] * S], np.int32)


def states(seed=0):
  return np.random.default_rng(seed).normal(size=(B, S, D)).astype('float32')


def call(config, rng=None, tokens=None, x=None, module=None):
  module = module or config.make(D, nnx.Rngs(0))
  tokens = np.zeros((B, S), np.int32) if tokens is None else tokens
  run = nnx.jit(
    lambda module, x, tokens: module(
      x, tokens_bs=tokens, segment_ids_bs=jnp.asarray(SEGMENTS), rng=rng
    )
  )
  x = states() if x is None else x
  return run(module, jnp.asarray(x), jnp.asarray(tokens))


def test_the_gate_is_the_formula():
  module = shorteners.Gate().make(D, nnx.Rngs(1))
  module.rate.proportional[...] = jnp.float32(0.5)
  got = call(None, module=module)
  x = states().astype('float64')
  y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  z = (y @ np.asarray(module.kernel[...], 'float64'))[..., 0] + 1.0
  gate = -30 / (1 + np.exp(z))
  gate[SEGMENTS == 0] = -30
  # float32 sums of 8 products of order 1, times 30.
  np.testing.assert_allclose(got.bias_bs, gate, atol=1e-4)
  np.testing.assert_array_equal(got.keep_bs, gate > -15)
  valid = SEGMENTS != 0
  np.testing.assert_allclose(got.penalty, 0.5 * gate[valid].mean(), rtol=1e-5)
  deleted = got.metrics['deleted']
  np.testing.assert_array_equal(deleted.weight, [12, 9, 0])
  np.testing.assert_array_equal(deleted.total, (valid & (gate <= -15)).sum(1))


def test_most_positions_are_kept_at_first():
  """E[G] is about -8, and 14 to 15 % lie below k/2, by the paper's start."""
  module = shorteners.Gate().make(512, nnx.Rngs(0))
  count = sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))
  assert count == 2 * 512 + 1
  x = np.random.default_rng(0).normal(size=(4, 2048, 512)).astype('float32')
  # One direction w per model: average over several models.
  shares, gates = [], []
  for seed in range(8):
    module = shorteners.Gate().make(512, nnx.Rngs(seed))
    z = x[0] @ np.asarray(module.kernel[...]) + 1.0
    gate = -30 / (1 + np.exp(z))
    shares.append((gate < -15).mean())
    gates.append(gate.mean())
  # |w| of Xavier-uniform is sqrt(2) to 3 %: z ~ N(1, 2), P(z < 0) = 0.24;
  # the share is that of z < 0.
  np.testing.assert_allclose(
    np.mean(shares), stats.norm.cdf(-1 / np.sqrt(2 * 512 / 513)), atol=0.01
  )
  assert -10.5 < np.mean(gates) < -8.5


def test_gumbel_noise_moves_the_gate_in_training_only():
  config = shorteners.Gate(gumbel=True)
  plain = call(shorteners.Gate())
  np.testing.assert_array_equal(call(config).bias_bs, plain.bias_bs)
  noisy = call(config, rng=jax.random.key(0))
  assert np.abs(noisy.bias_bs - plain.bias_bs).max() > 1


def test_random_deletion_takes_its_share_of_each_row():
  got = call(shorteners.Random(mean=0.5))
  np.testing.assert_array_equal(got.keep_bs.sum(1), [6, 5, 0])
  np.testing.assert_array_equal(got.bias_bs, np.where(got.keep_bs, 0.0, -30.0))
  shares = [
    1 - call(shorteners.Random(), rng=jax.random.key(i)).keep_bs[0].mean()
    for i in range(3)
  ]
  assert len({float(x) for x in shares}) > 1 or shares[0] != 0.5


@pytest.mark.parametrize('share', [0.5, 0.7])
def test_fixed_deletion_keeps_the_beginning_of_each_word(share):
  rows = [b'ab cde fghij', b'a bcd ef   ', b'']
  tokens = np.zeros((B, S), np.int32)
  for row, data in zip(tokens, rows, strict=True):
    row[: len(data)] = [i + 3 for i in data]
  got = call(shorteners.Fixed(share=share), tokens=tokens)
  for b in range(B):
    start = 0
    for i in range(1, S + 1):
      is_end = (
        i == S
        or SEGMENTS[b, i] != SEGMENTS[b, i - 1]
        or tokens[b, i - 1] == ord(' ') + 3
      )
      # Ids that are no bytes are words of one.
      is_end |= i < S and (tokens[b, i] < 3 or tokens[b, i - 1] < 3)
      if not is_end:
        continue
      kept = int(np.ceil(round((1 - share) * (i - start), 6)))
      want = np.arange(i - start) < kept
      want &= SEGMENTS[b, start:i] != 0
      np.testing.assert_array_equal(got.keep_bs[b, start:i], want)
      start = i


def test_units_of_the_boundary_predictor_are_means_that_end_documents():
  config = pooling_shorteners.Boundaries(prior=0.3, weight=2.0)
  got = call(config, rng=jax.random.key(2))
  x, keep, loss = states(), np.asarray(got.keep_bs), []
  assert keep[0, 6]
  assert keep[0, 11]
  assert keep[1, 8]
  assert not keep[SEGMENTS == 0].any()
  assert 2 < keep.sum() < 21
  for b in range(2):
    start, n = 0, int((SEGMENTS[b] != 0).sum())
    for i in np.flatnonzero(keep[b]):
      np.testing.assert_allclose(
        got.x_bsd[b, i], x[b, start : i + 1].mean(0), atol=1e-6
      )
      start = i + 1
    loss.append(-stats.binom.logpmf(keep[b].sum(), n, 0.3) / n)
  # lgamma in float32 of numbers up to 13.
  np.testing.assert_allclose(got.penalty, 2.0 * np.mean(loss), rtol=1e-4)
  again = call(config)
  np.testing.assert_array_equal(again.keep_bs, call(config).keep_bs)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_unit_of_a_whole_long_document_has_its_mean(dtype):
  config = pooling_shorteners.Boundaries(bias=-50.0)  # No other ends.
  module = config.make(D, nnx.Rngs(0))
  x = np.random.default_rng(1).normal(1.0, 0.5, size=(1, 1024, D))
  x = jnp.asarray(x, dtype)
  ones = jnp.ones((1, 1024), jnp.int32)
  run = nnx.jit(
    lambda module, x: module(x, tokens_bs=ones, segment_ids_bs=ones, rng=None)
  )
  got = run(module, x)
  assert got.x_bsd.dtype == dtype
  np.testing.assert_array_equal(np.flatnonzero(got.keep_bs[0]), [1023])
  want = np.asarray(x, np.float64)[0].mean(0)
  # One rounding of the result, and 1,024 additions in float32.
  half_ulp = {'bfloat16': 2**-8, 'float16': 2**-11}[dtype]
  np.testing.assert_allclose(
    np.asarray(got.x_bsd[0, -1], np.float64),
    want,
    rtol=half_ulp + 1024 * 2**-24 * np.abs(x).mean() / want.min(),
  )


def test_the_boundary_predictor_learns_through_the_means():
  module = pooling_shorteners.Boundaries(weight=0.0).make(D, nnx.Rngs(0))
  graph, params = nnx.split(module)
  weights = jnp.asarray(states(5))

  @jax.jit
  @jax.grad
  def gradient(params):
    got = nnx.merge(graph, params)(
      jnp.asarray(states()),
      tokens_bs=jnp.zeros((B, S), jnp.int32),
      segment_ids_bs=jnp.asarray(SEGMENTS),
      rng=jax.random.key(2),
    )
    return (got.x_bsd * weights).sum()

  for x in jax.tree.leaves(gradient(params)):
    assert np.isfinite(x).all()
    assert (x != 0).any()


def test_convolution_mixes_groups_of_each_document():
  module = pooling_shorteners.Convolution(rate=4).make(D, nnx.Rngs(0))
  module.mix.bias[...] += 0.5
  got = call(None, module=module)
  kernel = np.asarray(module.mix.kernel[...], 'float64')
  x = states().astype('float64')
  # Row 0 has more groups than one in four positions.
  starts = {
    0: [(0, 4), (4, 7), (7, 11), (11, 12)],
    1: [(0, 4), (4, 8), (8, 9)],
    2: [],
  }
  for b, groups in starts.items():
    want = np.zeros((S, D))
    for low, high in groups:
      want[low] = 0.5 + sum(
        x[b, low + j] @ kernel[j] for j in range(high - low)
      )
    np.testing.assert_allclose(got.x_bsd[b], want, atol=1e-5)
    np.testing.assert_array_equal(
      np.flatnonzero(got.keep_bs[b]), [low for low, _ in groups]
    )


@pytest.mark.parametrize('implementation', ['dense', 'cpu'])
def test_softmax_one_is_a_softmax_with_a_zero_that_is_dropped(implementation):
  config = attention.Config(
    dim=D,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    softmax_one=True,
    implementation=implementation,
  )
  layer = attention.Attention(config, rngs=nnx.Rngs(0))
  x = jnp.asarray(states())
  bias = jnp.full((1, 1, S, S), -50.0).at[:, :, :, :4].set(3.0)
  got = layer.attend(layer.queries(x), *layer.keys_values(x), bias=bias)
  q, k, v = (
    np.einsum(
      'bsd,dnh->bnsh',
      states().astype('float64'),
      np.asarray(part.kernel[...], 'float64'),
    )
    for part in (layer.q, layer.k, layer.v)
  )
  score = q @ k.swapaxes(2, 3) / 2 + np.asarray(bias)
  score = np.concatenate([score, np.zeros((B, 2, S, 1))], -1)
  weight = np.exp(score - score.max(-1, keepdims=True))
  weight = (weight / weight.sum(-1, keepdims=True))[..., :-1]
  want = np.einsum(
    'bnsh,nhd->bsd', weight @ v, np.asarray(layer.out.kernel[...], 'float64')
  )
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: shorteners.Random(mean=1.5), r'mean=1\.5 must be in'),
    (lambda: shorteners.Fixed(share=-0.1), r'share=-0\.1 must be in'),
    (lambda: pooling_shorteners.Boundaries(prior=1.0), r'prior=1\.0 must be'),
    (lambda: pooling_shorteners.Boundaries(temperature=0.0), 'must be > 0'),
    (lambda: pooling_shorteners.Convolution(rate=0), 'rate=0 must be >= 1'),
  ],
)
def test_impossible_configs_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()

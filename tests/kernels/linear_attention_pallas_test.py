# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Interpreted Pallas linear attention, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import linear_attention, tuning
from jaxtok_kernels.linear_attention import cost

from tests.kernels import interpreted

B, T, N, H, E = 1, 70, 2, 8, 5


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def operands(dtype=jnp.float32):
  return (
    draw(B, T, N, H, dtype=dtype),
    draw(B, T, N, H, seed=1, dtype=dtype),
    draw(B, T, N, E, seed=2, dtype=dtype),
  )


@pytest.fixture(autouse=True)
def short_chunks():
  """Two chunks of 16 per block: three blocks, the last one not full."""
  tpu = {'chunk': 16, 'chunks': 2}
  with (
    tuning.override('linear_attention', tpu),
    tuning.override('linear_attention_gated', tpu),
  ):
    yield


# Resets at the start of documents, and many decays that are large.
RESETS = np.full((B, T, N), -0.01, np.float32)
RESETS[0, [3, 37], 0] = -np.inf, -1e4
RESETS[0, 16:26, 1] = -100
ENC = draw(B, 9, N, H, seed=3), draw(B, 9, N, E, seed=4)
CASES = {
  'taylor2': (
    dict(feature='taylor2', valid_bt=jnp.arange(T)[None] < 60),
    dict(k_enc=ENC[0], v_enc=ENC[1]),
  ),
  'elu': (
    dict(feature='elu'),
    dict(decay=-0.1 * jnp.abs(draw(B, T, N, seed=5))),
  ),
  'identity': (
    dict(feature='identity', normalize=False),
    dict(decay=-jnp.abs(draw(B, T, N, seed=5))),
  ),
  'resets': (
    dict(feature='identity', normalize=False),
    dict(decay=jnp.asarray(RESETS)),
  ),
  # Up to the limit of 5 per token, which spans e^80 within a chunk.
  'gated': (
    dict(feature='identity', normalize=False),
    dict(decay=-6 * jnp.abs(draw(B, T, N, H, seed=5)) ** 2),
  ),
}


def loss(name, static, args, arrays):
  """Uses the outputs and the last state."""
  y, state = linear_attention(
    *args, **arrays, **static, chunk=16, implementation=name
  )
  total = jnp.sin(y).sum() + jnp.sin(0.1 * state.sums_bnfe).sum()
  return total, (y, state)


def run(name, static, args, arrays):
  fn = functools.partial(loss, name, static)
  grad = jax.value_and_grad(fn, argnums=(0, 1), has_aux=True)
  (_, found), grads = interpreted.run(grad, args, arrays)
  return jax.tree.leaves(found), jax.tree.leaves(grads)


# The two share the arithmetic of a chunk.
QUICK = (
  ('tpu', 'taylor2'),
  ('tpu', 'resets'),
  ('triton', 'gated'),
  ('triton', 'resets'),
)
PAIRS = [
  pytest.param(x, y, marks=() if (x, y) in QUICK else pytest.mark.slow)
  for x in ('tpu', 'triton')
  for y in CASES
]


@pytest.mark.parametrize(('implementation', 'name'), PAIRS)
def test_values_and_gradients_equal_those_of_the_recurrence(
  name, implementation
):
  static, arrays = CASES[name]
  got = run(implementation, static, operands(), arrays)
  want = run('reference', static, operands(), arrays)
  # Sums of up to 70 signed float32 terms; a gradient has three such factors.
  for x, y in zip(got[0], want[0], strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max())
  for x, y in zip(got[1], want[1], strict=True):
    error = np.linalg.norm(x - y) / np.linalg.norm(y)
    assert error < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_bfloat16_gradients_are_close_to_float32(implementation):
  args = operands(jnp.bfloat16)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), args)
  static = dict(feature='taylor2')
  got = run(implementation, static, args, {})
  want = run('reference', static, wide, {})
  for x, y in zip(got[1], want[1], strict=True):
    assert x.dtype == jnp.bfloat16
    error = np.linalg.norm(x.astype(np.float32) - y) / np.linalg.norm(y)
    assert error < 2e-2


@pytest.mark.parametrize('name', CASES)
def test_segments_side_by_side_equal_the_recurrence(name, monkeypatch):
  """Five segments of a chunk; a prefix and decay come from before them."""
  monkeypatch.setattr(cost, 'segments', lambda programs, chunks: chunks)
  static, arrays = CASES[name]
  fn = lambda name: functools.partial(loss, name, static)
  _, got = interpreted.run(fn('triton'), operands(), arrays)
  _, want = interpreted.run(fn('reference'), operands(), arrays)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max())


def test_segments_are_for_few_programs_only():
  assert cost.segments(96, 1024) == 1
  assert cost.segments(12, 1024) == 16
  assert cost.segments(1, 64) == 4  # At least 16 chunks.
  assert cost.segments(1, 63) == 1


def test_features_that_are_no_power_of_two_are_taken_in_parts():
  """153 features of width 16 take 160 columns: 128 and 32."""
  args = tuple(draw(1, 40, 1, x, seed=i) for i, x in enumerate((16, 16, 5)))
  got, want = (
    run(name, dict(feature='taylor2'), args, {})
    for name in ('triton', 'reference')
  )
  for x, y in zip(got[0] + got[1], want[0] + want[1], strict=True):
    assert np.linalg.norm(x - y) / np.linalg.norm(y) < 1e-5


def test_heads_share_lanes_only_in_whole_tiles():
  assert cost.heads_per_group(16, 16, 64) == 8
  assert cost.heads_per_group(16, 64, 128) == 8
  assert cost.heads_per_group(4, 16, 64) == 4  # All, whatever their width.
  assert cost.heads_per_group(12, 16, 64) == 12


def test_blocks_of_the_tpu_kernel_are_whole_tiles_or_the_sequence():
  for by_feature in (False, True):
    config = cost.tpu(by_feature)
    for t in (1, 70, 128, 129, 400, 512, 513, 10_000):
      chunk, number = cost.tpu_chunks(t, config)
      rows = chunk * number
      assert rows % 128 == 0 or rows >= t
      assert chunk % 16 == 0


def test_what_a_kernel_cannot_serve_is_named():
  wide = draw(1, 4, 1, 40)
  with pytest.raises(NotImplementedError, match='q of width 40 > 32'):
    linear_attention(wide, wide, wide, implementation='triton')
  half = wide.astype(jnp.float16)
  with pytest.raises(NotImplementedError, match='q of type float16'):
    linear_attention(half, half, half, implementation='tpu')

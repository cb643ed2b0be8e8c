# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pallas decoding kernels on a CPU: interpreted, checked for races, lowered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import (
  _compat,
  block_decode,
  gather_decode,
  interpret_mode,
  paged_decode,
)
from jaxtok_kernels.selected_decode import cost, tpu

B, T, N, K, H = 2, 2, 4, 2, 32
ATOL = 2e-5  # As in flash_attention_test.


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
  """16 tokens per step, so that lists take several; two splits."""
  monkeypatch.setattr(
    cost, 'tpu_units_per_step', lambda unit: max(1, 16 // unit)
  )
  monkeypatch.setattr(cost, 'triton_block', lambda itemsize: 16)
  monkeypatch.setattr(cost, 'splits', lambda tokens, programs: 2)


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def token_lists(heads, size=50, num=60):
  rng = np.random.default_rng(0)
  ids = np.full((B, heads, size), -1, np.int32)
  count = np.array([[41, 7], [0, 50]])[:, :heads]
  for b, k in np.ndindex(B, heads):
    ids[b, k, : count[b, k]] = rng.permutation(num)[: count[b, k]]
  ids[0, 0, 8:24] = np.arange(16) + 20  # Runs, which are one copy.
  return jnp.asarray(ids), jnp.asarray(count, jnp.int32)


def compare(fn, implementation, *args):
  want = fn(*args, implementation='reference')
  with interpret_mode():
    got = jax.jit(functools.partial(fn, implementation=implementation))(*args)
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)
  np.testing.assert_allclose(got.lse, want.lse, atol=ATOL)


@pytest.mark.parametrize(
  ('implementation', 'heads'),
  [('tpu', 1), ('tpu', K), ('triton', 1), ('triton', K)],
)
def test_selected_tokens_equal_the_reference(implementation, heads):
  ids, count = token_lists(heads)
  rows = draw(61, 2 * K, H, seed=1).at[60].set(jnp.nan)
  # Entries past the count may point to garbage.
  ids = jnp.where(ids < 0, 60, ids)
  fn = functools.partial(gather_decode, softcap=2.0)
  compare(fn, implementation, draw(B, T, N, H), rows, ids, count)


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_pages_equal_the_reference(implementation):
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.permutation(24).reshape(B, 12), jnp.int32)
  pages, length = draw(24, 4, 2 * K, H, seed=1), jnp.array([47, 5])
  compare(paged_decode, implementation, draw(B, T, N, H), pages, table, length)


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_blocks_of_a_contiguous_cache_equal_the_reference(implementation):
  k, v = draw(B, 256, K, H, seed=1), draw(B, 256, K, H, seed=2)
  ids = jnp.array([[[0, 3, 6, 7]], [[1, 2, -1, -1]]])
  count = jnp.array([[4], [2]])
  fn = functools.partial(block_decode, block=32, length_b=jnp.array([250, 80]))
  compare(fn, implementation, draw(B, T, N, H), k, v, ids, count)


def race_params(mode):
  return pltpu.InterpretParams(
    detect_races=True, uninitialized_memory='nan', dma_execution_mode=mode
  )


def run_with_races(mode):
  ids, count = token_lists(1)
  args = draw(B, 1, N, H), draw(60, 2 * K, H, seed=1), ids, count
  with interpret_mode(race_params(mode)):
    got = gather_decode(*args, implementation='tpu')
    jax.block_until_ready(got)
  races = _compat.tpu_races()
  pltpu.reset_tpu_interpret_mode_state()
  want = gather_decode(*args, implementation='reference')
  return got, want, races


@pytest.mark.parametrize('mode', ['on_wait', 'eager'])
def test_copies_are_waited_for(mode):
  got, want, races = run_with_races(mode)
  assert not races
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)


def test_the_race_detector_finds_a_missing_wait(monkeypatch):
  """Without it the two tests above would prove nothing."""
  monkeypatch.setattr(tpu, '_wait', lambda copy: None)
  got, want, races = run_with_races('eager')
  assert races
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)


def test_kernels_lower_without_their_device(monkeypatch):
  monkeypatch.undo()
  shape = jax.ShapeDtypeStruct
  q = shape((8, 1, 32, 128), jnp.bfloat16)
  rows = shape((4096, 16, 128), jnp.bfloat16)
  pages = shape((256, 16, 16, 128), jnp.bfloat16)
  ids, count = shape((8, 1, 1024), jnp.int32), shape((8, 1), jnp.int32)
  table, length = shape((8, 32), jnp.int32), shape((8,), jnp.int32)
  check = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  for fn, args in (
    (gather_decode, (q, rows, ids, count)),
    (paged_decode, (q, pages, table, length)),
  ):
    on = lambda name, fn=fn: jax.jit(functools.partial(fn, implementation=name))
    exported = jax.export.export(
      on('tpu'), platforms=['tpu'], disabled_checks=[check]
    )(*args)
    assert 'selected_decode' in exported.mlir_module()
    lowered = on('triton').trace(*args).lower(lowering_platforms=('cuda',))
    assert '__gpu$xla.gpu.triton' in lowered.as_text()


def test_what_a_kernel_cannot_serve_is_named():
  ids, count = token_lists(K)
  rows, q = draw(60, 2 * K, H), draw(B, T, N, H)
  table = jnp.ones((50, H // 2))
  with pytest.raises(NotImplementedError, match='rope with lists that differ'):
    gather_decode(
      q, rows, ids, count, rope=(table, table), implementation='tpu'
    )
  with pytest.raises(NotImplementedError, match='heads of width 24'):
    gather_decode(
      q[..., :24], rows[..., :24], ids, count, implementation='triton'
    )

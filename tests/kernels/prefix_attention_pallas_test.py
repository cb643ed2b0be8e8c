# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared prefixes by Pallas kernels, with several levels and on Hopper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import (
  PrefixLevel,
  _compat,
  interpret_mode,
  shared_prefix_attention,
  tuning,
)
from jaxtok_kernels.flash_attention import cost
from jaxtok_kernels.prefix_attention import cost as prefix_cost

from tests.kernels import interpreted, paging

# Of decoding: several steps, two parts.
STEPS = {'tokens': 8, 'block': 16, 'least': 10}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  tpu, triton = cost.TpuTiles(16, 128, 128), cost.TritonTiles(16, 32)
  monkeypatch.setattr(cost, 'tpu_tiles', lambda *_: tpu)
  monkeypatch.setattr(cost, 'triton_tiles', lambda *_: triton)
  monkeypatch.setattr(cost, 'mosaic_tiles', lambda h: cost.MosaicTiles(64, 2))
  monkeypatch.setattr(prefix_cost, 'sequences_per_tile', lambda b, t: min(b, 3))
  # Two parts of each prefix: of the shorter branch one holds nothing.
  monkeypatch.setattr(prefix_cost, 'prefix_splits', lambda p, programs: 2)


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def tree_of_prefixes(dtype, h):
  """A root for most, two branches below it, own suffixes; one sits alone."""
  level = lambda m, p, seed: (
    draw(m, p, 1, h, seed=seed, dtype=dtype),
    draw(m, p, 1, h, seed=seed + 1, dtype=dtype),
  )
  root = PrefixLevel(
    *level(1, 70, 1), jnp.array([66]), jnp.array([0, 0, 0, -1, 0])
  )
  branches = PrefixLevel(
    *level(2, 40, 3), jnp.array([40, 9]), jnp.array([0, 1, 0, -1, 1])
  )
  suffix = level(5, 20, 5)
  q = draw(5, 2, 2, h, seed=7, dtype=dtype)
  return q, (root, branches), *suffix, jnp.array([20, 2, 7, 20, 3])


@pytest.mark.parametrize(
  'fuse', [True, pytest.param(False, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_pages_equal_a_contiguous_suffix(implementation, fuse):
  q, (level, _), k, v, length = tree_of_prefixes(jnp.float32, 32)
  levels, length = (level,), length.at[1].set(0)
  want = shared_prefix_attention(
    q, levels, k, v, length, implementation='reference'
  )
  pages = paging.in_pages(k, v, length, page=4)
  attend = functools.partial(
    shared_prefix_attention, fuse=fuse, implementation=implementation
  )
  with tuning.override('selected_decode', STEPS):
    got = interpreted.run(attend, q, levels, pages, None, length)
  np.testing.assert_allclose(got.out, want.out, atol=2e-5)
  np.testing.assert_allclose(got.lse, want.lse, atol=2e-5)


@pytest.mark.parametrize(
  'fuse', [False, pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_two_levels_of_prefixes_equal_the_reference(implementation, fuse):
  args = tree_of_prefixes(jnp.float32, 32)
  want = shared_prefix_attention(*args, implementation='reference')
  attend = functools.partial(
    shared_prefix_attention, fuse=fuse, implementation=implementation
  )
  with interpret_mode():
    got = jax.jit(attend)(*args)
  # As in flash_attention_test.
  np.testing.assert_allclose(got.out, want.out, atol=2e-5)
  np.testing.assert_allclose(got.lse, want.lse, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_a_state_of_several_row_tiles_is_continued(implementation):
  """300 rows per key head; the second sequence has no prefix."""
  t, h = 150, 16
  k, v = draw(2, 160, 1, h, seed=1), draw(2, 160, 1, h, seed=2)
  level = PrefixLevel(
    k[:1, :40], v[:1, :40], jnp.array([40]), jnp.array([0, -1])
  )
  length = jnp.array([160, 151])
  pages = paging.in_pages(k, v, length, page=8)
  args = draw(2, t, 2, h), (level,)
  want = shared_prefix_attention(
    *args, k, v, length, implementation='reference'
  )
  attend = functools.partial(
    shared_prefix_attention, fuse=True, implementation=implementation
  )
  got = interpreted.run(attend, *args, pages, None, length)
  np.testing.assert_allclose(got.out, want.out, atol=2e-5)
  np.testing.assert_allclose(got.lse, want.lse, atol=2e-5)


@pytest.mark.slow
def test_prefixes_on_hopper_equal_the_reference_without_races():
  args = tree_of_prefixes(jnp.bfloat16, 64)
  widen = lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
  want = shared_prefix_attention(
    *jax.tree.map(widen, args), implementation='reference'
  )
  with interpret_mode(_compat.gpu_interpret_params(detect_races=True)):
    got = shared_prefix_attention(*args, implementation='mosaic_gpu')
    jax.block_until_ready(got)
  assert not _compat.gpu_races()
  np.testing.assert_allclose(got.out, want.out, atol=2e-2)
  np.testing.assert_allclose(got.lse, want.lse, atol=1e-3)


def test_prefixes_are_cut_until_the_processors_of_a_gpu_have_work(monkeypatch):
  monkeypatch.undo()
  assert prefix_cost.prefix_splits(16384, 64) == 2  # 128 of 132.
  assert prefix_cost.prefix_splits(16384, 264) == 1
  assert prefix_cost.prefix_splits(16384, 8) == 16  # 128 of 132.
  assert prefix_cost.prefix_splits(4096, 8) == 4  # At least 1024 keys.
  assert prefix_cost.prefix_splits(1500, 8) == 1

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pallas decoding kernels on a CPU: interpreted, checked for races."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import (
  _compat,
  block_decode,
  gather_decode,
  paged_decode,
  tree_attention,
  tuning,
)
from jaxtok_kernels.selected_decode import rows, tpu
from jaxtok_kernels.selected_decode.units import Units

from tests.kernels import interpreted

B, T, N, K, H = 2, 2, 4, 2, 32
ATOL = 2e-5  # As in flash_attention_test.


@pytest.fixture(autouse=True)
def small_steps():
  """16 tokens per step, so that lists take several; two splits."""
  config = {'tokens': 16, 'block': 16, 'least': 20}
  with tuning.override('selected_decode', config):
    yield


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
  got = interpreted.run(
    functools.partial(fn, implementation=implementation), *args
  )
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)
  np.testing.assert_allclose(got.lse, want.lse, atol=ATOL)


def tokens_case(heads):
  ids, count = token_lists(heads)
  pool = draw(61, 2 * K, H, seed=1).at[60].set(jnp.nan)
  # Entries past the count may point to garbage.
  return draw(B, T, N, H), pool, jnp.where(ids < 0, 60, ids), count


@pytest.mark.parametrize(
  ('implementation', 'heads'),
  [
    ('triton', K),
    pytest.param('tpu', K, marks=pytest.mark.slow),
    pytest.param('tpu', 1, marks=pytest.mark.slow),
    pytest.param('triton', 1, marks=pytest.mark.slow),
  ],
)
def test_selected_tokens_equal_the_reference(implementation, heads):
  fn = functools.partial(gather_decode, softcap=2.0)
  compare(fn, implementation, *tokens_case(heads))


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_rotated_tokens_equal_the_reference(implementation):
  angle = jnp.arange(50.0)[:, None] * 0.3 ** jnp.arange(H // 2)
  rope = jnp.cos(angle), jnp.sin(angle)
  fn = functools.partial(gather_decode, rope=rope)
  compare(fn, implementation, *tokens_case(1))


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
@pytest.mark.parametrize('group', [1, 7, 8])
def test_pages_equal_the_reference_for_any_group(implementation, group):
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.permutation(24).reshape(B, 12), jnp.int32)
  pages, length = draw(24, 4, 2 * K, H, seed=1), jnp.array([47, 5])
  q = draw(B, T, K * group, H)
  compare(paged_decode, implementation, q, pages, table, length)


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
@pytest.mark.parametrize('heads', [1, K])
def test_blocks_of_a_contiguous_cache_equal_the_reference(
  implementation, heads
):
  k, v = draw(B, 64, K, H, seed=1), draw(B, 64, K, H, seed=2)
  ids = jnp.array([[[0, 3, 6, 7], [1, 2, 3, -1]], [[1, 2, -1, -1], [-1] * 4]])
  count = jnp.array([[4, 3], [2, 0]])
  fn = functools.partial(block_decode, block=8, length_b=jnp.array([62, 20]))
  args = draw(B, T, N, H), k, v, ids[:, :heads], count[:, :heads]
  compare(fn, implementation, *args)


def tree_case(g=6, s=40, k=K):
  rng = np.random.default_rng(1)
  parent = np.array([[rng.integers(-1, i) for i in range(g)]] * B)
  valid = np.ones((B, g), bool)
  valid[1, 4] = False
  nan = lambda x: x.at[0, 31:].set(jnp.nan).at[1].set(jnp.nan)
  args = (
    draw(B, g, 2 * k, H),
    nan(draw(B, s, k, H, seed=1)),
    nan(draw(B, s, k, H, seed=2)),
    jnp.array([31, 0]),
    draw(B, g, k, H, seed=3).at[1, 4].set(jnp.nan),
    draw(B, g, k, H, seed=4).at[1, 4].set(jnp.nan),
  )
  extra = dict(parent_bg=jnp.asarray(parent), valid_bg=jnp.asarray(valid))
  return functools.partial(tree_attention, **extra), args


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_trees_are_the_last_step_of_the_same_kernels(implementation):
  fn, args = tree_case(k=1)
  compare(fn, implementation, *args)


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_trees_of_several_words_and_row_tiles_equal_the_reference(
  implementation,
):
  fn, args = tree_case(g=150)  # 300 rows per key head, 5 words.
  compare(fn, implementation, *args)


def test_lists_of_heads_join_without_losing_repeats():
  ids = jnp.array([[[5, 2, 5, 9], [2, 7, 0, 0]]])
  count = jnp.array([[3, 2]])
  first = 10 * ids
  joint = rows.union(Units(ids, count, first, jnp.ones((1, 1), jnp.int32)))
  seen = {0: [], 1: []}
  for slot in range(int(joint.count[0, 0])):
    for head in (0, 1):
      pos = int(joint.first[0, head, slot])
      if pos != np.iinfo(np.int32).max:
        assert pos == 10 * int(joint.ids[0, 0, slot])
        seen[head].append(int(joint.ids[0, 0, slot]))
  assert seen == {0: [2, 5, 5], 1: [2, 7]}
  assert int(joint.count[0, 0]) == 4  # 2, 5, 5 again, 7.


def run_with_races(mode):
  """A short list: one of two heads, two steps, runs and single copies."""
  ids, count = token_lists(1)
  pool = draw(60, 2, H, seed=1)
  args = draw(B, 1, 2, H), pool, ids[..., :32], jnp.minimum(count, 32)
  params = pltpu.InterpretParams(
    detect_races=True, uninitialized_memory='nan', dma_execution_mode=mode
  )
  fn = functools.partial(gather_decode, implementation='tpu')
  got = interpreted.run(fn, *args, params=params)
  races = _compat.tpu_races()
  pltpu.reset_tpu_interpret_mode_state()
  return got, gather_decode(*args, implementation='reference'), races


@pytest.mark.parametrize(
  'mode', ['on_wait', pytest.param('eager', marks=pytest.mark.slow)]
)
def test_copies_are_waited_for(mode):
  got, want, races = run_with_races(mode)
  assert not races
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)


def test_the_race_detector_finds_a_missing_wait(monkeypatch):
  """Without it the tests above would prove nothing."""
  monkeypatch.setattr(tpu, '_wait', lambda copy: None)
  got, want, races = run_with_races('eager')
  assert races
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)


def test_what_a_kernel_cannot_serve_is_named():
  ids, count = token_lists(K)
  pool, q = draw(60, 2 * K, H), draw(B, T, N, H)
  table = jnp.ones((50, H // 2))
  with pytest.raises(NotImplementedError, match='rope with lists that differ'):
    gather_decode(
      q, pool, ids, count, rope=(table, table), implementation='tpu'
    )
  with pytest.raises(NotImplementedError, match='heads of width 24'):
    gather_decode(
      q[..., :24], pool[..., :24], ids, count, implementation='triton'
    )

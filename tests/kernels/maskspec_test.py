# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import BlockLists, masks

T = 13
SEGMENTS = np.array(
  [
    [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 0, 0],
    [1, 1, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4],
  ]
)


def by_predicate(fn, b, t, s):
  return np.array(
    [
      [[bool(fn(x, i, j)) for j in range(s)] for i in range(t)]
      for x in range(b)
    ]
  )


def first_of(b, i):
  return next(j for j in range(T) if SEGMENTS[b, j] == SEGMENTS[b, i])


def same(b, i, j):
  return SEGMENTS[b, i] == SEGMENTS[b, j] != 0


def diffusion(b, i, j, n=6, block=4):
  if j < n:
    return i < n and i // block == j // block
  if i < n:
    return (j - n) // block < i // block
  return (j - n) // block <= (i - n) // block


def prompt(b, i, j):
  p = (4, 2)[b]
  if i < p:
    return j <= i
  if SEGMENTS[b, i] == 0:
    return False
  return j < p or (j <= i and SEGMENTS[b, i] == SEGMENTS[b, j])


NAMED = {
  'full': (masks.full(), lambda b, i, j: True),
  'causal': (masks.causal(), lambda b, i, j: j <= i),
  'causal_offset': (masks.causal(3), lambda b, i, j: j <= i + 3),
  'window': (masks.window(4), lambda b, i, j: i - 4 < j <= i),
  'window_offset': (
    masks.window(4, offset=2),
    lambda b, i, j: i - 2 < j <= i + 2,
  ),
  'band': (masks.band(2, 3), lambda b, i, j: i - 2 <= j <= i + 3),
  'sinks': (
    masks.sinks(2, 3),
    lambda b, i, j: j <= i and (j < 2 or i - 3 < j),
  ),
  'prefix': (
    masks.prefix(np.array([5, 0])),
    lambda b, i, j: j <= i or j < (5, 0)[b],
  ),
  'lengths': (
    masks.lengths(jnp.array([13, 6]), T),
    lambda b, i, j: j <= i + (0, -7)[b],
  ),
  'packed': (
    masks.packed(SEGMENTS),
    lambda b, i, j: same(b, i, j) and j <= i,
  ),
  'packed_both_ways': (
    masks.packed(SEGMENTS, is_causal=False),
    lambda b, i, j: same(b, i, j),
  ),
  'packed_window': (
    masks.packed(SEGMENTS, window_size=2),
    lambda b, i, j: same(b, i, j) and i - 2 < j <= i,
  ),
  'packed_prefix': (
    masks.packed(SEGMENTS, prefix_len=jnp.full((2, T), 3)),
    lambda b, i, j: same(b, i, j) and (j <= i or j < first_of(b, i) + 3),
  ),
  'shared_prompt': (
    masks.shared_prompt(
      jnp.array([4, 2]),
      jnp.asarray(SEGMENTS),
    ),
    prompt,
  ),
}


@pytest.mark.parametrize('name', NAMED)
def test_named_masks_equal_their_predicate(name):
  mask, predicate = NAMED[name]
  want = by_predicate(predicate, 2, T, T)
  got = np.broadcast_to(mask.dense(T, T), want.shape)
  np.testing.assert_array_equal(got, want)
  assert mask.pairs(T, T, batch=2) == want.sum()


def test_block_diffusion_equals_its_predicate():
  mask = masks.block_diffusion(6, 4)
  want = by_predicate(diffusion, 1, 12, 12)
  np.testing.assert_array_equal(mask.dense(12, 12), want)


def test_permuted_positions_permute_the_mask_and_hide_padding():
  rng = np.random.default_rng(0)
  q_pos, kv_pos = rng.permutation(T), rng.permutation(T)
  kv_pos[3] = -1
  for mask in (masks.causal(), masks.window(3), masks.sinks(2, 3)):
    dense = np.asarray(mask.dense(T, T))[0]
    moved = dataclasses.replace(mask, q_pos=q_pos[None], kv_pos=kv_pos[None])
    want = dense[q_pos][:, kv_pos] & (kv_pos >= 0)
    np.testing.assert_array_equal(moved.dense(T, T)[0], want)
    assert moved.pairs(T, T) == want.sum()


def test_intersection_shows_what_both_masks_show():
  names = ['sinks', 'packed', 'prefix', 'shared_prompt', 'band']
  for x in names:
    for y in names:
      a, b = NAMED[x][0], NAMED[y][0]
      got = masks.intersect(a, b, T).dense(T, T)
      want = np.asarray(a.dense(T, T)) & np.asarray(b.dense(T, T))
      np.testing.assert_array_equal(np.broadcast_to(got, want.shape), want)


def test_block_lists_restrict_rows_except_in_full_blocks():
  lists = BlockLists(
    ids=jnp.array([[[[0, 0], [0, 1], [1, 3]]]]),
    count=jnp.array([[[1, 2, 2]]]),
    full=jnp.array([[[[False, True], [True, False], [False, False]]]]),
    block_q=4,
    block_kv=4,
  )
  mask = masks.blocks(lists, masks.causal())
  got = np.asarray(mask.dense(12, 16))[0]
  causal = np.asarray(masks.causal().dense(12, 16))[0]
  want = np.zeros((12, 16), bool)
  want[:4, :4] = causal[:4, :4]
  want[4:8, :4] = True
  want[4:8, 4:8] = causal[4:8, 4:8]
  want[8:, 4:8], want[8:, 12:] = causal[8:, 4:8], causal[8:, 12:]
  np.testing.assert_array_equal(got, want)
  assert mask.pairs(12, 16, batch=3) == 3 * want.sum()


def test_full_blocks_hide_padding_keys():
  pos = np.array([0, -1, 1, 2, 3, 4, -1, 5])
  lists = BlockLists(
    ids=jnp.array([[[[0, 1]]]]),
    count=jnp.array([[[2]]]),
    full=jnp.array([[[[True, False]]]]),
    block_q=4,
    block_kv=4,
  )
  mask = dataclasses.replace(
    masks.blocks(lists, masks.causal(1)), kv_pos=jnp.asarray(pos)[None]
  )
  want = np.tile(pos >= 0, (4, 1))
  want[:, 4:] &= pos[4:] <= np.arange(4)[:, None] + 1
  np.testing.assert_array_equal(mask.dense(4, 8)[0], want)


def test_tree_bits_rule_the_last_keys():
  bits = np.zeros((1, 2, 1), np.uint32)
  bits[0, 0, 0], bits[0, 1, 0] = 0b01, 0b10
  got = np.asarray(masks.tree(jnp.asarray(bits)).dense(2, 5))[0]
  np.testing.assert_array_equal(got, [[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]])


@pytest.mark.parametrize('tiles', [(4, 4), (2, 8), (16, 4)])
@pytest.mark.parametrize('seed', range(3))
def test_schedule_lists_exactly_the_tiles_with_visible_pairs(seed, tiles):
  rng = np.random.default_rng(seed)
  cuts = np.sort(rng.integers(0, 17, (2, 16, 4)), -1)
  rows = cuts.reshape(2, 16, 2, 2).astype(np.int32)
  mask = masks.from_intervals(jnp.asarray(rows))
  bq, bk = tiles
  pos = jnp.arange(16, dtype=jnp.int32)[None]
  found = jax.jit(masks.schedule, static_argnums=(2, 3))(
    mask.row_intervals(16, 16), pos, bq, bk
  )
  dense = np.asarray(mask.dense(16, 16)).reshape(2, 16 // bq, bq, 16 // bk, bk)
  for b, i in np.ndindex(2, 16 // bq):
    want = np.flatnonzero(dense[b, i].any((0, 2)))
    got = found.ids[b, i][: found.count[b, i]]
    np.testing.assert_array_equal(got, want)
    full = np.asarray(found.full[b, i])[: len(want)]
    # A row may see a whole tile through two touching intervals: no harm.
    assert not (full & ~dense[b, i].all((0, 2))[want]).any()


def test_full_tiles_of_causal_and_window_masks_are_marked():
  rows = masks.causal().row_intervals(16, 16)
  found = masks.schedule(rows, jnp.arange(16)[None], 4, 4)
  np.testing.assert_array_equal(found.count[0], [1, 2, 3, 4])
  np.testing.assert_array_equal(found.full[0, 3], [1, 1, 1, 0])


def test_masks_name_the_argument_that_does_not_fit():
  with pytest.raises(ValueError, match=r'mask.intervals has shape \(1, 13'):
    masks.from_intervals(jnp.zeros((1, 13, 1, 2), jnp.int32)).dense(12, 12)
  for name in ('q_pos', 'kv_pos'):
    flat = dataclasses.replace(masks.causal(), **{name: jnp.arange(12)})
    with pytest.raises(ValueError, match=rf'mask.{name} has shape \(12,\)'):
      flat.dense(12, 12)
  rows = masks.from_intervals(jnp.zeros((1, 12, 1, 2), jnp.int32))
  placed = dataclasses.replace(rows, q_pos=jnp.arange(12)[None])
  with pytest.raises(ValueError, match='q_pos would be ignored'):
    placed.dense(12, 12)
  bits = masks.tree(jnp.zeros((1, 40, 1), jnp.uint32))
  with pytest.raises(ValueError, match='40 nodes need 2 words'):
    bits.dense(40, 40)
  bits = masks.tree(jnp.zeros((1, 12, 1), jnp.uint32))
  with pytest.raises(ValueError, match='12 queries, but there are only 7 keys'):
    bits.dense(12, 7)
  lists = BlockLists(
    ids=jnp.zeros((1, 1, 3, 2), jnp.int32),
    count=jnp.zeros((1, 1, 1), jnp.int32),
    full=jnp.zeros((1, 1, 3, 2), bool),
    block_q=4,
    block_kv=4,
  )
  with pytest.raises(ValueError, match=r'count has shape \(1, 1, 1\); it must'):
    masks.blocks(lists).dense(12, 12)
  with pytest.raises(ValueError, match='size=0 must be at least 1'):
    masks.window(0)
  with pytest.raises(ValueError, match='need is_causal=True'):
    masks.packed(SEGMENTS, is_causal=False, window_size=3)
  with pytest.raises(ValueError, match='intervals has shape'):
    masks.from_intervals(jnp.zeros((13, 2), jnp.int32))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks against predicates written as Python loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.nn import lowering, masks
from jaxtok.nn.masks import Causal, Full, Prefix, Segments, Sinks, Window

# Row 0 ends with padding, row 1 starts with it.
SEGMENTS = np.array(
  [[1, 1, 1, 2, 2, 2, 2, 3, 0, 0], [0, 0, 1, 1, 1, 1, 2, 2, 2, 3]]
)
T = SEGMENTS.shape[1]


def start(row, i):
  """First index of the document of token i."""
  while i > 0 and SEGMENTS[row, i - 1] == SEGMENTS[row, i]:
    i -= 1
  return i


def same(row, i, j):
  return SEGMENTS[row, i] == SEGMENTS[row, j] != 0


CASES = {
  'full': (Full(), lambda r, i, j: True),
  'causal': (Causal(), lambda r, i, j: j <= i),
  'window': (Window(3), lambda r, i, j: abs(i - j) < 3),
  'segments': (Segments(), same),
  'packed causal': (
    Segments() & Causal(),
    lambda r, i, j: same(r, i, j) and j <= i,
  ),
  'sliding window': (
    Causal() & Window(3),
    lambda r, i, j: i - 3 < j <= i,
  ),
  'packed prefix-LM': (
    Segments() & (Causal() | Prefix(2)),
    lambda r, i, j: same(r, i, j) and (j <= i or j < start(r, i) + 2),
  ),
  'prefix per row': (
    Segments() & (Causal() | Prefix(jnp.array([1, 3]))),
    lambda r, i, j: same(r, i, j) and (j <= i or j < start(r, i) + (1, 3)[r]),
  ),
  'streaming': (
    Segments() & Causal() & (Window(2) | Sinks(1)),
    lambda r, i, j: (
      same(r, i, j) and j <= i and (i - j < 2 or j < start(r, i) + 1)
    ),
  ),
  'block diffusion': (
    # Rows 0-4 are noisy, 5-9 clean, in blocks of 2.
    masks.Ranges(
      jnp.array(
        [
          [
            [[i // 2 * 2, min(i // 2 * 2 + 2, 5)], [5, 5 + i // 2 * 2]]
            if i < 5
            else [[5, min(5 + (i - 5) // 2 * 2 + 2, 10)], [0, 0]]
            for i in range(10)
          ]
        ]
      )
    ),
    lambda r, i, j: (
      (i < 5 and j < 5 and i // 2 == j // 2)
      or (i < 5 and j >= 5 and (j - 5) // 2 < i // 2)
      or (i >= 5 and j >= 5 and (j - 5) // 2 <= (i - 5) // 2)
    ),
  ),
}


def brute_force(predicate):
  return np.array(
    [
      [[predicate(r, i, j) for j in range(T)] for i in range(T)]
      for r in range(2)
    ]
  )


def packed_layout():
  segments = jnp.asarray(SEGMENTS)
  return masks.Layout(T, T, q_segments_bt=segments, kv_segments_bs=segments)


def from_intervals(intervals, num_keys):
  """Booleans [b, t, s] from ranges, checking that they are well formed."""
  bounds = np.asarray(intervals)
  assert (bounds[..., 0] <= bounds[..., 1]).all()
  assert (bounds >= 0).all()
  assert (bounds <= num_keys).all()
  if bounds.shape[2] == 2:
    has_both = bounds[:, :, 1, 0] < bounds[:, :, 1, 1]
    assert (bounds[:, :, 0, 0] < bounds[:, :, 0, 1])[has_both].all()
    assert (bounds[:, :, 0, 1] < bounds[:, :, 1, 0])[has_both].all()
  key = np.arange(num_keys)[None, None, :, None]
  seen = (key >= bounds[:, :, None, :, 0]) & (key < bounds[:, :, None, :, 1])
  return seen.any(-1)


@pytest.mark.parametrize('name', CASES)
def test_dense_and_intervals_equal_a_python_predicate(name):
  mask, predicate = CASES[name]
  want = brute_force(predicate)
  layout = packed_layout()
  got = np.broadcast_to(masks.visible(mask, layout), want.shape)
  np.testing.assert_array_equal(got, want)
  ranges = lowering.intervals(mask, layout)
  got = np.broadcast_to(from_intervals(ranges, T), want.shape)
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('name', CASES)
def test_span_bounds_every_visible_key(name):
  mask, predicate = CASES[name]
  want = brute_force(predicate)
  for first in range(T):
    for last in range(first + 1, T + 1):
      low, high = mask.span(packed_layout(), first, last)
      seen = want[:, first:last].any(axis=(0, 1))
      assert 0 <= low <= high <= T
      assert not seen[:low].any()
      assert not seen[high:].any()


def test_span_is_tight_for_causal_and_sliding_windows():
  layout = masks.Layout(T, T)
  assert Causal().span(layout, 4, 6) == (0, 6)
  assert (Causal() & Window(3)).span(layout, 4, 6) == (2, 6)
  assert (Causal() | Prefix(3)).span(layout, 4, 6) == (0, T)


@pytest.mark.parametrize('name', CASES)
def test_queries_of_a_cached_step_see_what_they_see_in_the_full_row(name):
  mask, predicate = CASES[name]
  if name == 'block diffusion':
    pytest.skip('Ranges are per query of one call.')
  slots, length = T + 3, jnp.array([7, 7])
  index = jnp.array([[5, 6], [5, 6]])
  kv_segments = jnp.pad(jnp.asarray(SEGMENTS), ((0, 0), (0, 3)))
  layout = masks.Layout(
    2,
    slots,
    q_index_bt=index,
    q_segments_bt=jnp.asarray(SEGMENTS[:, 5:7]),
    # Slots from the length on hold garbage.
    kv_segments_bs=kv_segments.at[:, 7:].set(1),
    kv_length_b=length,
  )
  want = np.zeros((2, 2, slots), bool)
  want[:, :, :7] = brute_force(predicate)[:, 5:7, :7]
  got = np.broadcast_to(masks.visible(mask, layout), want.shape)
  np.testing.assert_array_equal(got, want)
  got = from_intervals(lowering.intervals(mask, layout), slots)
  np.testing.assert_array_equal(np.broadcast_to(got, want.shape), want)


def test_order_of_a_ring_cache_decides_not_the_slot():
  layout = masks.Layout(
    1,
    4,
    q_index_bt=jnp.array([[9]]),
    kv_index_bs=jnp.array([[8, 9, 0, 7]]),
  )
  streaming = Causal() & (Window(2) | Sinks(1))
  got = masks.visible(streaming, layout)
  np.testing.assert_array_equal(got, [[[True, True, True, False]]])
  with pytest.raises(NotImplementedError, match='ring cache'):
    lowering.intervals(streaming, layout)


def test_tree_nodes_see_the_past_and_their_ancestors():
  # Committed tokens 0-2; nodes 3..6 with parents root, root, 0, 2.
  parents = jnp.array([[-1, -1, 0, 2]])
  layout = masks.Layout(4, 8, q_index_bt=jnp.array([[3, 4, 5, 6]]))
  got = masks.visible(masks.Tree.from_parents(parents), layout)[0]
  want = np.zeros((4, 8), bool)
  want[:, :3] = True
  for node, path in enumerate([[0], [1], [0, 2], [0, 2, 3]]):
    want[node, [3 + p for p in path]] = True
  np.testing.assert_array_equal(got, want)


def test_block_sparse_mask_shows_the_chosen_blocks():
  chosen = np.array([[[1, 0, 0], [0, 1, 0], [1, 0, 1]]], bool)
  got = masks.Blocks(jnp.asarray(chosen), 2).dense(masks.Layout(6, 6))
  want = chosen[0].repeat(2, axis=0).repeat(2, axis=1)
  np.testing.assert_array_equal(got[0], want)


def test_dense_mask_is_used_as_given_and_checked():
  visible = jnp.eye(4, dtype=bool)[None]
  layout = masks.Layout(4, 4)
  got = (masks.Dense(visible) & Full()).dense(layout)
  np.testing.assert_array_equal(got, visible)
  with pytest.raises(ValueError, match='3 queries and 4 keys'):
    masks.Dense(visible).dense(masks.Layout(3, 4))


@pytest.mark.parametrize(
  'mask',
  [
    masks.Dense(jnp.ones((1, 4, 4), bool)),
    masks.Tree(jnp.ones((1, 4, 4), bool)),
    masks.Blocks(jnp.ones((1, 2, 2), bool), 2),
    Window(2) | (Sinks(1) | Window(3)),
  ],
)
def test_masks_that_are_no_ranges_say_what_to_do(mask):
  with pytest.raises(NotImplementedError, match="implementation='dense'"):
    lowering.intervals(mask, masks.Layout(4, 4))


def test_masks_are_pytrees_and_work_under_jit():
  mask = Segments() & (Causal() | Prefix(jnp.array([1, 3])))
  layout = packed_layout()
  got = jax.jit(masks.visible)(mask, layout)
  np.testing.assert_array_equal(got, masks.visible(mask, layout))


def test_window_of_no_tokens_is_refused():
  with pytest.raises(ValueError, match='size must be >= 1, got 0'):
    Window(0)


@pytest.mark.parametrize('name', CASES)
def test_lowered_mask_shows_the_kernels_the_same(name):
  mask, predicate = CASES[name]
  spec = lowering.lower(mask, packed_layout())
  want = brute_force(predicate)
  got = np.broadcast_to(spec.dense(T, T), want.shape)
  np.testing.assert_array_equal(got, want)


def test_static_bands_lower_without_arrays():
  layout = masks.Layout(T, T)
  for mask in (Causal(), Segments() & Causal(), Causal() & Window(3), Full()):
    spec = lowering.lower(mask, layout)
    assert not jax.tree.leaves(spec)
    want = masks.visible(mask, layout)
    np.testing.assert_array_equal(spec.dense(T, T), want)


def test_block_sparse_mask_lowers_to_block_lists():
  chosen = jnp.array([[[1, 0, 0], [0, 1, 0], [1, 0, 1]]], bool)
  mask = Causal() & masks.Blocks(chosen, 4)
  layout = masks.Layout(T, T)
  spec = lowering.lower(mask, layout)
  np.testing.assert_array_equal(spec.dense(T, T), masks.visible(mask, layout))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merging tokens against loops in NumPy and the dense source matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.nn import merge, ragged

B, W, D = 2, 13, 4


def make_tokens(seed=0, w=W, num=(13, 10)):
  rng = np.random.default_rng(seed)
  valid = np.arange(w) < np.array(num)[:, None]
  sizes = rng.integers(1, 4, (B, w)) * valid
  segments = np.where(np.arange(w) < 7, 1, 2) * valid
  can = valid & (rng.random((B, w)) < 0.9)
  return merge.Tokens(
    jnp.asarray(rng.normal(size=(B, w, D)) * valid[..., None], jnp.float32),
    jnp.asarray(sizes, jnp.float32),
    jnp.asarray(np.cumsum(sizes, 1) - sizes, jnp.int32),
    jnp.asarray(segments, jnp.int32),
    jnp.asarray(can),
  )


def to_numpy(tokens):
  return {
    name: np.asarray(getattr(tokens, name), np.float64)
    for name in ('x_bwd', 'size_bw', 'first_bw', 'segment_bw', 'can_merge_bw')
  }


def greedy_pairs(score, tokens, b, num, window, parity):
  """Sorted greedy matching of neighbours, the left one of one parity."""
  t = to_numpy(tokens)
  pairs, used = [], set()
  order = sorted(range(W - 1), key=lambda i: -score[i])
  for i in order:
    if len(pairs) == num or i % 2 != parity or i // window != (i + 1) // window:
      continue
    segments = t['segment_bw'][b, i], t['segment_bw'][b, i + 1]
    if segments[0] != segments[1] or segments[0] == 0 or {i, i + 1} & used:
      continue
    if not (t['can_merge_bw'][b, i] and t['can_merge_bw'][b, i + 1]):
      continue
    pairs.append(i)
    used |= {i, i + 1}
  return set(pairs)


def choose(tokens, score, num, window, parity, scope='sequence'):
  can = merge.candidates(tokens, window, parity)
  return can, merge.adjacent_pairs(
    jnp.asarray(score, jnp.float32),
    can,
    jnp.asarray(num),
    window=window,
    scope=scope,
  )


@pytest.mark.parametrize('parity', [0, 1])
@pytest.mark.parametrize('window', [4, 16])
def test_pairs_are_those_of_sorted_greedy_matching(parity, window):
  tokens = make_tokens(parity)
  score = np.random.default_rng(3).normal(size=(B, W))
  _, pairs = choose(tokens, score, [3, 2], window, parity)
  for b, num in enumerate([3, 2]):
    want = greedy_pairs(score[b], tokens, b, num, window, parity)
    assert set(np.flatnonzero(pairs[b])) == want


def test_scope_window_shares_pairs_out_evenly():
  w = 16
  tokens = make_tokens(w=w, num=(16, 16))
  ones = jnp.ones((B, w), jnp.int32)
  tokens = merge.Tokens(
    tokens.x_bwd, tokens.size_bw, tokens.first_bw, ones, ones > 0
  )
  score = np.arange(B * w).reshape(B, w)  # The last window is best.
  _, pairs = choose(tokens, score, [4, 5], 4, 0, 'window')
  per_window = np.asarray(pairs).reshape(B, 4, 4).sum(2)
  np.testing.assert_array_equal(per_window, [[1, 1, 1, 1], [2, 1, 1, 1]])
  _, pairs = choose(tokens, score, [4, 5], 4, 0)
  per_window = np.asarray(pairs).reshape(B, 4, 4).sum(2)
  np.testing.assert_array_equal(per_window, [[0, 0, 2, 2], [0, 1, 2, 2]])


def test_a_merge_is_the_weighted_average_and_goes_back():
  tokens = make_tokens()
  score = np.random.default_rng(4).normal(size=(B, W))
  weight = np.random.default_rng(5).random((B, W))
  _, pairs = choose(tokens, score, [3, 3], 16, 1)
  new, index, lost = jax.jit(merge.merge_adjacent, static_argnums=3)(
    tokens, pairs, jnp.asarray(weight, jnp.float32), W
  )
  assert not np.asarray(lost).any()
  t, got = to_numpy(tokens), to_numpy(new)
  for b in range(B):
    rows, sizes, firsts, source = [], [], [], []
    i = 0
    while i < int((t['segment_bw'][b] > 0).sum()):
      x, m = t['x_bwd'][b, i], t['size_bw'][b, i]
      members = [i]
      if pairs[b, i]:
        other = t['size_bw'][b, i + 1] * weight[b, i]
        x = (m * x + other * t['x_bwd'][b, i + 1]) / (m + other)
        m += t['size_bw'][b, i + 1]
        members.append(i + 1)
      rows.append(x)
      sizes.append(m)
      firsts.append(t['first_bw'][b, i])
      source.append(members)
      i = members[-1] + 1
    n = len(rows)
    # Float32 averages of values of order 1.
    np.testing.assert_allclose(got['x_bwd'][b, :n], rows, atol=1e-6)
    np.testing.assert_array_equal(got['size_bw'][b, :n], sizes)
    np.testing.assert_array_equal(got['first_bw'][b, :n], firsts)
    assert not got['size_bw'][b, n:].any()
    # The dense source matrix: one row per token, columns sum to one.
    dense = np.zeros((n, W))
    for j, members in enumerate(source):
      dense[j, members] = 1
    back = ragged.expand(new.x_bwd, index)[b]
    num = sum(map(len, source))
    np.testing.assert_allclose(
      back[:num], (dense.T @ np.array(rows))[:num], atol=1e-6
    )
    assert (np.asarray(index)[b, num:] == -1).all()


def test_tokens_without_room_are_counted_and_their_places_get_zero():
  tokens = make_tokens()
  none = jnp.zeros((B, W), bool)
  new, index, lost = merge.merge_adjacent(tokens, none, jnp.ones((B, W)), 11)
  np.testing.assert_array_equal(lost, [2, 0])
  assert new.x_bwd.shape == (B, 11, D)
  back = np.asarray(ragged.expand(new.x_bwd, index))
  assert not back[0, 11:].any()
  np.testing.assert_array_equal(back[0, :11], tokens.x_bwd[0, :11])


def similar_by_loop(t, b, num):
  """Bipartite soft matching by its definition, for one row."""
  n = int((t['segment_bw'][b] > 0).sum())
  free = lambda i: t['can_merge_bw'][b, i] > 0
  unit = lambda x: x / np.sqrt((x * x).sum() + 1e-6)
  best = []
  for i in range(0, n, 2):
    scores = [
      (unit(t['x_bwd'][b, i]) @ unit(t['x_bwd'][b, j]), j)
      for j in range(1, n, 2)
      if free(i) and free(j) and t['segment_bw'][b, i] == t['segment_bw'][b, j]
    ]
    if scores:
      best.append((*max(scores), i))
  joins = {i: j for _, j, i in sorted(best, reverse=True)[:num]}
  groups = [[i] for i in range(n)]
  for i, j in joins.items():
    groups[j] = [*groups[j], i]
  return [g for i, g in enumerate(groups) if i not in joins]


@pytest.mark.parametrize('num', [0, 2, 4])
def test_similar_tokens_merge_as_by_definition(num):
  tokens = make_tokens(8)
  new, index, lost = jax.jit(merge.merge_similar, static_argnums=2)(
    tokens, jnp.full(B, num), W
  )
  assert not np.asarray(lost).any()
  t, got = to_numpy(tokens), to_numpy(new)
  for b in range(B):
    groups = similar_by_loop(t, b, num)
    for slot, members in enumerate(groups):
      weights = t['size_bw'][b, members]
      want = weights @ t['x_bwd'][b, members] / weights.sum()
      np.testing.assert_allclose(got['x_bwd'][b, slot], want, atol=1e-6)
      assert got['size_bw'][b, slot] == weights.sum()
      assert (np.asarray(index)[b, members] == slot).all()
    assert new.num_b[b] == len(groups)
    # Order is kept: what a group is named by comes in ascending order.
    names = [members[0] for members in groups]
    assert names == sorted(names)


def test_similarities_are_a_product_of_matrices_in_full_precision():
  """No array has both tokens of a pair and the width."""
  b, w, d = 2, 12, 32
  ones = jnp.ones((b, w), jnp.int32)
  tokens = merge.Tokens(
    jnp.ones((b, w, d)), jnp.ones((b, w)), ones, ones, ones > 0
  )
  program = jax.make_jaxpr(lambda x, n: merge.merge_similar(x, n, w))(
    tokens, jnp.ones(b, jnp.int32)
  )
  sizes, precisions = [], []
  todo = list(program.jaxpr.eqns)
  while todo:
    eqn = todo.pop()
    sizes += [var.aval.size for var in eqn.outvars]
    if eqn.primitive.name == 'dot_general':
      precisions.append(eqn.params['precision'])
    for inner in jax.tree.leaves(list(eqn.params.values())):
      todo += getattr(getattr(inner, 'jaxpr', inner), 'eqns', [])
  assert max(sizes) <= b * w * d < b * (w // 2) ** 2 * d
  highest = jax.lax.Precision.HIGHEST
  assert precisions == [(highest, highest)]


def test_owners_follow_several_merges():
  owner = jnp.array([[0, 0, 1, 2, 3, -1]])
  index = jnp.array([[0, 0, 1, 2]])
  got = merge.follow(owner, index)
  np.testing.assert_array_equal(got, [[0, 0, 0, 1, 2, -1]])
  # A token that was lost before stays lost.
  np.testing.assert_array_equal(merge.follow(jnp.array([[4]]), index), [[-1]])


def test_the_threshold_parts_chosen_from_other_scores():
  score = jnp.array([[0.9, 0.1, 0.5, 0.3]])
  chosen, can = score > 0.4, jnp.array([[True, True, True, True]])
  np.testing.assert_allclose(merge.threshold(score, chosen, can), [[0.4] * 4])
  # Without others, or without any, it is finite.
  np.testing.assert_allclose(merge.threshold(score, can, can), [[0.1] * 4])
  none = jnp.zeros_like(can)
  np.testing.assert_allclose(merge.threshold(score, none, none), [[0.0] * 4])


def test_an_unknown_scope_is_refused():
  tokens = make_tokens()
  with pytest.raises(ValueError, match="scope='row' must be one of"):
    choose(tokens, np.zeros((B, W)), [1, 1], 4, 0, 'row')


def test_soft_top_k_is_the_sum_of_its_rounds():
  """Against the rounds in NumPy, with rows that stop earlier."""
  rng = np.random.default_rng(0)
  score = rng.normal(size=(3, 7))
  can = rng.random((3, 7)) < 0.8
  can[2] = False
  num = np.array([3, 1, 2])
  want = np.zeros((3, 7))
  for row in range(3):
    left = np.where(can[row], score[row], -np.inf)
    for _ in range(num[row] if can[row].any() else 0):
      p = np.exp((left - left.max()) / 0.5)
      p /= p.sum()
      want[row] += p
      left = left + np.log(1 - p)
  got = merge.soft_top_k(
    jnp.asarray(score, jnp.float32),
    jnp.asarray(can),
    jnp.asarray(num),
    rounds=4,
    temperature=0.5,
  )
  np.testing.assert_allclose(got, np.minimum(want, 1), atol=1e-5)
  assert not np.asarray(got)[~can].any()


def test_soft_top_k_is_the_mask_of_the_best_when_it_is_cold():
  score = jnp.asarray([[0.1, 0.9, 0.5, 0.7, 0.3]])
  args = (jnp.ones((1, 5), bool), jnp.asarray([2]))
  soft = lambda s: merge.soft_top_k(s, *args, rounds=3, temperature=0.01)
  np.testing.assert_allclose(soft(score), [[0, 1, 0, 1, 0]], atol=1e-3)
  # Warmer, all scores get a gradient.
  soft = lambda s: merge.soft_top_k(s, *args, rounds=3)[0, 2]
  grad = np.asarray(jax.grad(soft)(score))
  assert np.isfinite(grad).all()
  assert (grad[0, :4] != 0).all()


def test_soft_top_k_of_windows_is_that_of_each_window_alone():
  """Windows share the pairs as the hard choice does; the last one is short."""
  rng = np.random.default_rng(1)
  score = jnp.asarray(rng.normal(size=(2, 10)), jnp.float32)
  can = jnp.asarray(rng.random((2, 10)) < 0.8).at[0, 4:8].set(False)
  num = jnp.asarray([4, 5])
  where = dict(window=4, scope='window')
  got = merge.soft_top_k(score, can, num, rounds=4, temperature=0.5, **where)
  pairs = np.asarray(merge.adjacent_pairs(score, can, num, **where))
  for b in range(2):
    for start in (0, 4, 8):
      one = slice(start, start + 4)
      want = merge.soft_top_k(
        score[b : b + 1, one],
        can[b : b + 1, one],
        jnp.asarray([pairs[b, one].sum()]),
        rounds=4,
        temperature=0.5,
      )
      np.testing.assert_allclose(got[b, one], want[0], atol=1e-6)


def test_thresholds_of_windows_part_the_scores_of_each():
  score = jnp.array([[0.9, 0.1, 0.5, 0.3, 0.2, 0.0]])
  chosen = jnp.array([[True, False, True, False, True, False]])
  got = merge.threshold(
    score, chosen, jnp.ones((1, 6), bool), window=2, scope='window'
  )
  np.testing.assert_allclose(got, [[0.5, 0.5, 0.4, 0.4, 0.1, 0.1]], atol=1e-6)


def test_soft_merges_mix_pairs_that_stay():
  tokens = merge.Tokens(
    jnp.asarray([[[1.0], [3.0], [5.0], [9.0]]]),
    jnp.asarray([[1.0, 1.0, 1.0, 2.0]]),
    jnp.arange(4)[None],
    jnp.ones((1, 4), jnp.int32),
    jnp.ones((1, 4), bool),
  )
  pairs = jnp.asarray([[False, False, True, False]])
  takes = jnp.asarray([[True, False, True, False]])
  weight = jnp.asarray([[0.25, 0.0, 0.5, 0.0]])
  kept, index, lost = merge.merge_adjacent(tokens, pairs, weight, 4, takes)
  # (1 + 0.25 * 3) / 1.25; untouched; (5 + 2 * 0.5 * 9) / 2.
  np.testing.assert_allclose(kept.x_bwd[0, :3, 0], [1.4, 3.0, 7.0])
  np.testing.assert_array_equal(kept.size_bw[0], [1, 1, 3, 0])
  np.testing.assert_array_equal(index, [[0, 1, 2, 2]])
  assert not np.asarray(lost).any()

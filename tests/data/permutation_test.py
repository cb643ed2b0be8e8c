# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Orders are bijections, the same everywhere, and look random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.data.permutation import Permutation


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63))
def test_every_index_appears_once(size, seed):
  order = Permutation(size, seed, 1).all()
  assert sorted(order.tolist()) == list(range(size))


def test_order_is_the_same_on_every_machine():
  # Golden numbers: a change here changes the data order of every run.
  assert Permutation(10, 0, 0).all().tolist() == GOLDEN
  far = Permutation(10**12, 3)(np.array([0, 1, 10**12 - 1]))
  assert far.tolist() == GOLDEN_FAR


GOLDEN = [1, 5, 2, 0, 3, 4, 7, 8, 6, 9]
GOLDEN_FAR = [355334450896, 692465286257, 271770083529]


def test_neighbours_and_keys_are_unrelated():
  # Of n elements, a random order fixes 1 on average (Poisson); 12 has a
  # probability below 1e-9. Ranks of neighbours are uncorrelated within 5
  # standard deviations, 5 / sqrt(n).
  n = 20_000
  first, second = Permutation(n, 1).all(), Permutation(n, 2).all()
  assert (first == np.arange(n)).sum() < 12
  assert (first == second).sum() < 12
  for other in (second, np.arange(n), np.roll(first, 1)):
    correlation = np.corrcoef(first, other)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(n)


def test_small_orders_are_equally_likely():
  # 24 orders of 4 elements over 2400 seeds: chi-square with 23 degrees of
  # freedom exceeds 61.9 with probability 2e-5.
  counts = {}
  for seed in range(2400):
    order = tuple(Permutation(4, seed).all().tolist())
    counts[order] = counts.get(order, 0) + 1
  observed = np.array(list(counts.values()) + [0] * (24 - len(counts)))
  assert ((observed - 100) ** 2 / 100).sum() < 61.9


def test_an_empty_order_is_refused():
  with pytest.raises(ValueError, match='size must be >= 1, got 0'):
    Permutation(0, 1)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fronts and volumes by hand and by Monte Carlo."""

import numpy as np
import pytest

from jaxtok.evals import pareto


def point(
  accuracy: float, calls: float, n: int = 100, name: str = ''
) -> pareto.Point:
  correct = np.arange(n) < round(accuracy * n)
  return pareto.Point(name, correct.astype(float), np.full(n, calls))


POINTS = [
  point(0.2, 2),
  point(0.5, 4),
  point(0.4, 5),
  point(0.9, 8),
  point(0.9, 9),
]


def test_the_front_holds_the_points_that_none_beats():
  assert [(p.accuracy, p.calls) for p in pareto.front(POINTS)] == [
    (0.2, 2),
    (0.5, 4),
    (0.9, 8),
  ]
  tied = [point(0.5, 4), point(0.6, 4)]
  assert [p.accuracy for p in pareto.front(tied)] == [0.6]


def test_the_volume_is_the_area_under_the_steps():
  want = (0.2 * 2 + 0.5 * 4 + 0.9 * 2) / 10
  assert pareto.hypervolume(POINTS, 10) == pytest.approx(want)
  # And the mean of the best accuracy within a random budget.
  budgets = np.random.default_rng(0).uniform(0, 10, 20_000)
  found = [pareto.best_within(POINTS, n) for n in budgets]
  drawn = np.mean([p.accuracy if p else 0.0 for p in found])
  assert drawn == pytest.approx(want, abs=4 * 0.35 / np.sqrt(20_000))
  assert pareto.hypervolume(POINTS, 2) == 0
  assert pareto.hypervolume([], 5) == 0


def test_wilson_intervals_are_those_of_the_textbook():
  # Newcombe 1998, table I: 81 of 263 and 0 of 20.
  assert pareto.wilson(81 / 263, 263) == pytest.approx(
    (0.2553, 0.3662), abs=1e-4
  )
  assert pareto.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
  assert pareto.wilson(1, 10)[1] == pytest.approx(1)
  with pytest.raises(ValueError, match=r'share=1\.5'):
    pareto.wilson(1.5, 10)


def test_dominance_needs_intervals_that_are_apart():
  assert pareto.dominates(point(0.9, 6), POINTS)  # Against 0.5 at 4.
  assert not pareto.dominates(point(0.55, 6), POINTS)
  assert not pareto.dominates(point(0.9, 9), POINTS)
  assert pareto.dominates(point(0.1, 1), POINTS)  # Nobody is that cheap.


def test_the_interval_of_the_volume_holds_it_and_is_narrower_with_more():
  wide, narrow = (
    pareto.hypervolume_interval(
      [point(0.2, 2, n), point(0.5, 4, n), point(0.9, 8, n)], 10
    )
    for n in (50, 5000)
  )
  true = pareto.hypervolume(POINTS, 10)
  for low, high in (wide, narrow):
    assert low < true < high
  # Ten times, as the number of prompts is a hundred times as large.
  assert 5 < (wide[1] - wide[0]) / (narrow[1] - narrow[0]) < 20

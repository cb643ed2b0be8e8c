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
  assert not pareto.dominates(point(0, 1), POINTS)  # But never right.


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


def test_equal_prompts_and_draws_count_as_what_they_tell():
  right_pd = np.array([[1, 1, 0, 1], [0, 0, 1, 0]])
  cost_pd = np.array([[2, 2, 4, 2], [4, 4, 4, 4]])
  found = pareto.Point('', right_pd, cost_pd, np.array([30, 10]))
  assert found.accuracy == pytest.approx((0.75 * 30 + 0.25 * 10) / 40)
  assert found.calls == pytest.approx((2.5 * 30 + 4 * 10) / 40)
  # Kish: 4 draws of two prompts with weights 3/4 and 1/4.
  assert found.num_independent == pytest.approx(4 / (0.75**2 + 0.25**2))
  assert found.interval == pareto.wilson(0.625, 6.4)
  # Many draws say no more than the prompts.
  many = pareto.Point('', np.ones((2, 99)), np.ones((2, 99)), np.array([3, 1]))
  assert many.num_independent == 4
  with pytest.raises(ValueError, match=r'count_p \(3,\).*of the 2 prompts'):
    pareto.Point('', right_pd, cost_pd, np.ones(3))
  with pytest.raises(ValueError, match=r'right \(2,\) and cost \(3,\)'):
    pareto.Point('', np.ones(2), np.ones(3))


def test_intervals_cover_the_truth_as_often_as_they_say():
  """13 prompts of 512, 12 draws each; the share differs between prompts."""
  rng = np.random.default_rng(0)
  count_p = rng.multinomial(512, np.full(13, 1 / 13))
  share_p = rng.uniform(0.6, 1, 13)
  true = share_p.mean()  # Of prompts drawn uniformly.
  hits = widths = 0
  for _ in range(400):
    count_p = rng.multinomial(512, np.full(13, 1 / 13))
    right_pd = rng.random((13, 12)) < share_p[:, None]
    found = pareto.Point('', right_pd, np.ones((13, 12)), count_p)
    low, high = found.interval
    hits += low <= true <= high
    widths += high - low
  # 0.95 of 400 and three standard errors; it may be too wide, not too narrow.
  assert hits / 400 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)
  assert widths / 400 < 0.14  # 1.96 standard errors of 150 decodings: 0.12.


def test_resampling_draws_prompts_for_all_alike_and_draws_apart():
  rng = np.random.default_rng(1)
  count_p = np.array([100, 200, 100])
  draws = 50
  right_pd = rng.random((3, draws)) < np.array([[0.2], [0.9], [0.5]])
  cost_pd = rng.integers(1, 5, (3, draws)).astype(float)
  a = pareto.Point('a', right_pd, cost_pd, count_p)
  # Without chance: all that differs are the prompts.
  b = pareto.Point('b', np.array([1.0, 0, 0]), np.array([1.0, 2, 3]), count_p)
  accuracy_ns, calls_ns = pareto.resampled([a, b, b], num=4000)
  np.testing.assert_array_equal(accuracy_ns[:, 1], accuracy_ns[:, 2])
  np.testing.assert_array_equal(calls_ns[:, 1], calls_ns[:, 2])
  weight_p = count_p / 400
  for found_n, of_pd in (
    (accuracy_ns[:, 0], right_pd),
    (calls_ns[:, 0], cost_pd),
  ):
    mean = weight_p @ of_pd.mean(1)
    between = weight_p @ (of_pd.mean(1) - mean) ** 2 / 400
    # E[w^2] = w^2 + w (1 - w) / 400.
    square_p = weight_p**2 + weight_p * (1 - weight_p) / 400
    sd = np.sqrt(between + square_p @ of_pd.var(1) / draws)
    assert found_n.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(4000))
    assert found_n.std() == pytest.approx(sd, rel=0.05)
  # sd of a share of 1/4 in 400 prompts.
  assert accuracy_ns[:, 1].std() == pytest.approx(np.sqrt(3) / 80, rel=0.05)
  volumes_n = pareto.hypervolumes(accuracy_ns, calls_ns, 5)
  want = [
    pareto.hypervolume(
      [pareto.Point('', x[None], c[None]) for x, c in zip(*row, strict=True)], 5
    )
    for row in list(zip(accuracy_ns, calls_ns, strict=True))[:20]
  ]
  np.testing.assert_allclose(volumes_n[:20], want)
  with pytest.raises(ValueError, match="same prompts: those of 'a'"):
    pareto.resampled([a, pareto.Point('c', np.ones(3), np.ones(3))])

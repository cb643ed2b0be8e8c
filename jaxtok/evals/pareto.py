# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Accuracy against cost: intervals, fronts, dominance, hypervolume.

A point is what one setting of a method reaches: an accuracy in [0, 1] and a
mean number of denoiser calls (NFE).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959964  # Two-sided 95 % of the normal distribution.


@dataclasses.dataclass(frozen=True)
class Point:
  """One setting of a method, on prompts of which some may be equal.

  One draw per prompt means that equal prompts are decoded equally.

  Attributes:
    name: The setting in words.
    right: Of each distinct prompt whether it came out right, float [p] or, of
      several draws, [p, d].
    cost: Denoiser calls, likewise.
    count_p: How often each distinct prompt occurs; None: once.
  """

  name: str
  right: np.ndarray
  cost: np.ndarray
  count_p: np.ndarray | None = None

  def __post_init__(self):
    right, cost = (np.asarray(x, float) for x in (self.right, self.cost))
    if right.shape != cost.shape or right.ndim not in (1, 2) or not right.size:
      raise ValueError(
        f'right {right.shape} and cost {cost.shape} of {self.name!r} must both '
        'be [prompts] or [prompts, draws], and not empty.'
      )
    if self.count_p is not None and np.shape(self.count_p) != right.shape[:1]:
      raise ValueError(
        f'count_p {np.shape(self.count_p)} of {self.name!r} must have one '
        f'number for each of the {len(right)} prompts.'
      )

  @property
  def right_pd(self) -> np.ndarray:
    return np.asarray(self.right, float).reshape(len(self.right), -1)

  @property
  def cost_pd(self) -> np.ndarray:
    return np.asarray(self.cost, float).reshape(len(self.cost), -1)

  @property
  def counts(self) -> np.ndarray:
    """Int [p]."""
    return (
      np.ones(len(self.right), int) if self.count_p is None else self.count_p
    )

  @property
  def accuracy(self) -> float:
    return float(np.average(self.right_pd.mean(1), weights=self.counts))

  @property
  def calls(self) -> float:
    return float(np.average(self.cost_pd.mean(1), weights=self.counts))

  @property
  def num_independent(self) -> float:
    """Decodings that would say as much if they were of independent prompts.

    At most the prompts; and, of several draws, at most what the draws of the
    distinct prompts are worth, with the weights that these have (Kish).
    """
    counts, (_, draws) = self.counts, self.right_pd.shape
    if draws == 1:
      return float(counts.sum())
    kish = draws * counts.sum() ** 2 / (counts**2).sum()
    return float(min(counts.sum(), kish))

  @property
  def interval(self) -> tuple[float, float]:
    """95 % Wilson interval of the accuracy."""
    return wilson(self.accuracy, self.num_independent)


def wilson(share: float | int, num: float | int) -> tuple[float, float]:
  """Wilson's 95 % interval of a share observed in `num` trials."""
  if num < 1 or not 0 <= share <= 1:
    raise ValueError(f'share={share} must be in [0, 1] and num={num} >= 1.')
  z2 = _Z * _Z
  centre = (share + z2 / (2 * num)) / (1 + z2 / num)
  spread = math.sqrt(share * (1 - share) / num + z2 / (4 * num * num))
  half = _Z * spread / (1 + z2 / num)
  return max(centre - half, 0.0), min(centre + half, 1.0)


def front(points: Sequence[Point]) -> list[Point]:
  """The points that no other beats in both respects, cheapest first."""
  kept: list[Point] = []
  for point in sorted(points, key=lambda p: (p.calls, -p.accuracy)):
    if not kept or point.accuracy > kept[-1].accuracy:
      kept.append(point)
  return kept


def best_within(points: Sequence[Point], calls: float | int) -> Point | None:
  """The most accurate point that costs at most so many calls."""
  fits = [p for p in points if p.calls <= calls]
  return max(fits, key=lambda p: (p.accuracy, -p.calls)) if fits else None


def dominates(point: Point, others: Sequence[Point]) -> bool:
  """Whether a point is surely better than all others that cost no more.

  Surely: the lower end of its interval is above the upper end of theirs. Where
  nothing is as cheap it has to be right now and then.
  """
  rivals = [p for p in others if p.calls <= point.calls]
  bounds = [0.0, *(rival.interval[1] for rival in rivals)]
  return point.interval[0] > max(bounds)


def hypervolume(points: Sequence[Point], max_calls: float | int) -> float:
  """Area under the front from 0 to `max_calls` calls, over `max_calls`.

  In [0, 1]: the mean accuracy over a budget drawn uniformly, with nothing
  right below the cheapest point.
  """
  accuracy_s = np.array([p.accuracy for p in points])
  return _area(accuracy_s, np.array([p.calls for p in points]), max_calls)


def _area(
  accuracy_s: np.ndarray, calls_s: np.ndarray, max_calls: float | int
) -> float:
  if max_calls <= 0:
    raise ValueError(f'max_calls={max_calls} must be > 0.')
  order = np.argsort(calls_s, kind='stable')
  calls_s = np.minimum(calls_s[order], max_calls)
  # The best within each budget; beyond the last budget nothing is added.
  best_s = np.maximum.accumulate(accuracy_s[order]) if len(order) else calls_s
  return float(best_s @ np.diff(calls_s, append=max_calls)) / max_calls


def resampled(
  points: Sequence[Point], *, num: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Accuracy and calls of points with other prompts and other draws.

  Prompts are drawn anew from those there are, the same for all points, and the
  draws of each prompt from its draws.

  Args:
    points: S of them, measured on the same prompts.
    num: Times.
    seed: Of the choice.

  Returns:
    Floats [num, S] each.
  """
  counts = points[0].counts
  if any(not np.array_equal(p.counts, counts) for p in points):
    raise ValueError(
      'points must have been measured on the same prompts: those of '
      f'{points[0].name!r} are not those of all others.'
    )
  rng = np.random.default_rng(seed)
  size = counts.sum()
  weight_np = rng.multinomial(size, counts / size, size=num) / size
  means = []
  for point in points:
    num_prompts, draws = point.right_pd.shape
    chance = np.full(draws, 1 / draws)
    share_npd = rng.multinomial(draws, chance, size=(num, num_prompts)) / draws
    means.append(
      [
        np.einsum('np,npd,pd->n', weight_np, share_npd, values_pd)
        for values_pd in (point.right_pd, point.cost_pd)
      ]
    )
  accuracy_ns, calls_ns = np.moveaxis(np.array(means), 0, -1)
  return accuracy_ns, calls_ns


def hypervolumes(
  accuracy_ns: np.ndarray, calls_ns: np.ndarray, max_calls: float | int
) -> np.ndarray:
  """The hypervolume of each row, of what `resampled` returned."""
  rows = zip(accuracy_ns, calls_ns, strict=True)
  return np.array([_area(*row, max_calls) for row in rows])


def interval(values_n: np.ndarray) -> tuple[float, float]:
  """The middle 95 % of resampled values."""
  low, high = np.quantile(values_n, [0.025, 0.975])
  return float(low), float(high)


def hypervolume_interval(
  points: Sequence[Point],
  max_calls: float | int,
  *,
  num: int = 200,
  seed: int = 0,
) -> tuple[float, float]:
  """95 % interval of the hypervolume by resampling prompts and draws."""
  found = resampled(points, num=num, seed=seed)
  return interval(hypervolumes(*found, max_calls))

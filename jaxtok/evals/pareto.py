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
  """One setting of a method.

  Attributes:
    name: The setting in words.
    correct_n: Share of decodings of each prompt that were right, in [0, 1].
    calls_n: Mean denoiser calls of each prompt.
  """

  name: str
  correct_n: np.ndarray
  calls_n: np.ndarray

  @property
  def accuracy(self) -> float:
    return float(np.mean(self.correct_n))

  @property
  def calls(self) -> float:
    return float(np.mean(self.calls_n))

  @property
  def interval(self) -> tuple[float, float]:
    """95 % Wilson interval of the accuracy."""
    return wilson(self.accuracy, len(self.correct_n))


def wilson(share: float | int, num: int) -> tuple[float, float]:
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

  Surely: the lower end of its interval is above the upper end of theirs.
  """
  rivals = [p for p in others if p.calls <= point.calls]
  return all(point.interval[0] > rival.interval[1] for rival in rivals)


def hypervolume(points: Sequence[Point], max_calls: float | int) -> float:
  """Area under the front from 0 to `max_calls` calls, over `max_calls`.

  In [0, 1]: the mean accuracy over a budget drawn uniformly, with nothing
  right below the cheapest point.
  """
  if max_calls <= 0:
    raise ValueError(f'max_calls={max_calls} must be > 0.')
  best = [p for p in front(points) if p.calls < max_calls]
  if not best:
    return 0.0
  ends = [*(p.calls for p in best[1:]), max_calls]
  area = sum(
    p.accuracy * (end - p.calls) for p, end in zip(best, ends, strict=True)
  )
  return area / max_calls


def hypervolume_interval(
  points: Sequence[Point],
  max_calls: float | int,
  *,
  num: int = 200,
  seed: int = 0,
) -> tuple[float, float]:
  """95 % interval of the hypervolume by resampling the prompts.

  All points must have been measured on the same prompts.
  """
  rng = np.random.default_rng(seed)
  size = len(points[0].correct_n)
  correct_pn = np.stack([p.correct_n for p in points])
  calls_pn = np.stack([p.calls_n for p in points])
  volumes = []
  for _ in range(num):
    weight_n = rng.multinomial(size, np.full(size, 1 / size)) / size
    drawn = [
      Point('', np.array([c]), np.array([n]))
      for c, n in zip(correct_pn @ weight_n, calls_pn @ weight_n, strict=True)
    ]
    volumes.append(hypervolume(drawn, max_calls))
  low, high = np.quantile(volumes, [0.025, 0.975])
  return float(low), float(high)

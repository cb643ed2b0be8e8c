# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings that are chosen on validation prompts, and then tested.

The best of many settings on the prompts that it is reported for looks better
than it is. Here a budget of calls is met on validation prompts, and what
was chosen decodes the test prompts with draws of its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.unmasking import selection
from jaxtok.evals import pareto

Named = tuple[str, Any]  # A setting in words, and its selector.


def error(point: pareto.Point) -> float:
  """Standard error of a point's accuracy, of the draws for these prompts.

  That of a mean of independent draws from each prompt; a prompt that was right,
  or wrong, every time counts as if two more draws had been one of each.
  """
  right_pd = point.right_pd
  num = right_pd.shape[1]
  share_p = (right_pd.sum(1) + 1) / (num + 2)
  weight_p = point.counts / point.counts.sum()
  variance = np.sum(weight_p**2 * share_p * (1 - share_p) / num)
  return float(np.sqrt(variance))


@dataclasses.dataclass(frozen=True)
class Front:
  """The settings that no other beats on validation prompts, cheapest first.

  Attributes:
    validated: Of each setting, there.
    tested: Of each, on the test prompts.
  """

  validated: Sequence[pareto.Point]
  tested: Sequence[pareto.Point]

  def within(self, calls: float | int) -> pareto.Point | None:
    """The most accurate setting of at most so many calls, as tested."""
    point = pareto.best_within(self.validated, calls)
    if point is None:
      return None
    return next(t for t in self.tested if t.name == point.name)

  def volume(self, max_calls: float | int) -> float:
    """Hypervolume if each budget takes the setting that validation chose.

    A setting that is worse than a cheaper one counts as what it is.
    """
    accuracy_s = np.array([t.accuracy for t in self.tested])
    calls_s = np.array([t.calls for t in self.tested])
    return float(_volumes(accuracy_s[None], calls_s[None], max_calls)[0])

  def gain_interval(
    self, rivals: Sequence[Sequence[pareto.Point]], max_calls: float | int
  ) -> tuple[float, float]:
    """95 % interval of the volume less the largest one among the rivals.

    Prompts are drawn anew, for all alike, and the draws of each. Each rival's
    points are the best for the prompts drawn.

    Args:
      rivals: Points of each, on the same prompts as `tested`.
      max_calls: Where the volumes end.
    """
    points = [*self.tested, *(p for some in rivals for p in some)]
    accuracy_ns, calls_ns = pareto.resampled(points)
    begin = len(self.tested)
    own_n = _volumes(accuracy_ns[:, :begin], calls_ns[:, :begin], max_calls)
    theirs = []
    for some in rivals:
      part = slice(begin, begin + len(some))
      theirs.append(
        pareto.hypervolumes(accuracy_ns[:, part], calls_ns[:, part], max_calls)
      )
      begin += len(some)
    return pareto.interval(own_n - np.max(theirs, axis=0))


def _volumes(
  accuracy_ns: np.ndarray, calls_ns: np.ndarray, max_calls: float | int
) -> np.ndarray:
  """Area under the steps of settings in the order given, over `max_calls`."""
  begins = np.minimum(calls_ns, max_calls)
  ends = np.concatenate(
    [begins[:, 1:], np.full((len(begins), 1), max_calls)], axis=1
  )
  return (accuracy_ns * np.maximum(ends - begins, 0)).sum(1) / max_calls


def choose(
  settings: Sequence[Named],
  validation: selection.Judge,
  test: selection.Judge,
) -> Front:
  """Decodes the validation prompts with all settings, the others with the best.

  Args:
    settings: To choose from.
    validation: Prompts to choose on.
    test: Prompts, or draws (`seed`), that are not those of `validation`.
  """
  selectors = dict(settings)
  kept = pareto.front(validation.sweep(settings))
  return Front(kept, [test.point(p.name, selectors[p.name]) for p in kept])

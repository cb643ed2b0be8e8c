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


@dataclasses.dataclass(frozen=True)
class Tested:
  """What a setting reaches on the test prompts.

  Attributes:
    name: The setting in words.
    accuracy: In [0, 1].
    error: Standard error of the accuracy, of the draws for these prompts.
    calls: Mean denoiser calls.
  """

  name: str
  accuracy: float
  error: float
  calls: float


def measured(name: str, selector: Any, judge: selection.Judge) -> Tested:
  """A setting that decodes every distinct prompt `judge.num_draws` times.

  The error is that of a mean of independent draws from each prompt; a prompt
  that was right, or wrong, every time counts as if two more draws had been one
  of each.
  """
  right_pd, calls_pd = judge.drawn(selector)
  num = right_pd.shape[1]
  share_p = (right_pd.sum(1) + 1) / (num + 2)
  weight_p = judge.weights
  variance = np.sum(weight_p**2 * share_p * (1 - share_p) / num)
  return Tested(
    name,
    accuracy=float(weight_p @ right_pd.mean(1)),
    error=float(np.sqrt(variance)),
    calls=float(weight_p @ calls_pd.mean(1)),
  )


@dataclasses.dataclass(frozen=True)
class Front:
  """The settings that no other beats on validation prompts, cheapest first.

  Attributes:
    validated: Of each setting, there.
    tested: Of each, on the test prompts.
  """

  validated: Sequence[pareto.Point]
  tested: Sequence[Tested]

  def within(self, calls: float | int) -> Tested | None:
    """The most accurate setting of at most so many calls."""
    return self._chosen(pareto.best_within(self.validated, calls))

  def _chosen(self, point: pareto.Point | None) -> Tested | None:
    if point is None:
      return None
    return next(t for t in self.tested if t.name == point.name)

  def volume(self, max_calls: float | int) -> float:
    """Hypervolume if each budget takes the setting that validation chose.

    A setting that is worse than a cheaper one counts as what it is.
    """
    area = 0.0
    ends = [t.calls for t in self.tested[1:]] + [max_calls]
    for tested, end in zip(self.tested, ends, strict=True):
      begin = min(tested.calls, max_calls)
      area += tested.accuracy * max(min(end, max_calls) - begin, 0.0)
    return area / max_calls


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
  return Front(kept, [measured(p.name, selectors[p.name], test) for p in kept])

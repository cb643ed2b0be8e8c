# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Curves of a run: a logged metric against what was spent to get there."""

import dataclasses
import os
from typing import Any

import numpy as np

from jaxtok.runs import run as run_lib

# What a curve may be drawn against, and how an axis is labelled.
X_LABELS = {
  'flops': 'training FLOPs',
  'bytes': 'training bytes',
  'tokens': 'training tokens',
  'seconds': 'training seconds',
  'step': 'optimizer steps',
  'parameters': 'parameters',
}

_BOUND = '_bound'


@dataclasses.dataclass(frozen=True)
class Curve:
  """A metric of one run at the points where it was logged.

  Attributes:
    run: Whose.
    metric: E.g. 'eval/val/bpb'; ends in '_bound' if the values are bounds.
    step: Optimizer steps [n], ascending.
    x: What had been spent by then [n].
    y: The metric [n].
    error: Its standard error over the text [n]; nan where not logged.
    tokens_per_byte: At the last point; nan if not logged.
  """

  run: run_lib.Run
  metric: str
  step: np.ndarray
  x: np.ndarray
  y: np.ndarray
  error: np.ndarray
  tokens_per_byte: float

  @property
  def is_bound(self) -> bool:
    """Whether the values are upper bounds of the metric."""
    return self.metric.endswith(_BOUND)

  def at(self, x: float) -> float:
    """The metric at `x`, linear in log x; nan outside the logged range."""
    if not len(self.x) or not self.x[0] <= x <= self.x[-1]:
      return np.nan
    return float(np.interp(np.log(x), np.log(self.x), self.y))


def names(run: run_lib.Run) -> list[str]:
  """Metrics of a run, e.g. ['eval/val/bpb', 'train/bpb']."""
  found = {
    f'{row["split"]}/{key}'
    for row in run.metrics()
    for key, value in row.items()
    if key != 'step' and isinstance(value, (int, float))
  }
  return sorted(found)


Text = tuple[str | None, int | None]  # Hash and bytes; None: not recorded.


def load(run: run_lib.Run, x: str, y: str, text: Text | None = None) -> Curve:
  """Reads a curve; points at which `x` is 0 are left out.

  Where `y` is not logged but its bound is, the bound is taken.

  Args:
    run: A run.
    x: A key of `X_LABELS`.
    y: Split and metric, e.g. 'eval/val/bpb'.
    text: Take only what was measured on this text; see `texts_of`.

  Raises:
    ValueError: If the run has no such metric or `x` is unknown; the message
      lists what there is.
  """
  if x not in X_LABELS:
    raise ValueError(f'x={x!r} must be one of {", ".join(X_LABELS)}.')
  split, _, key = y.rpartition('/')
  rows = run.metrics(split)
  if text is not None:
    rows = [row for row in rows if _text(row) == text]
  for found in (key, key + _BOUND):
    points = [row for row in rows if isinstance(row.get(found), (int, float))]
    if points:
      break
  else:
    raise ValueError(
      f'{os.fspath(run.workdir)} has logged no {y}. It has: '
      f'{", ".join(names(run)) or "nothing yet"}.'
    )
  step = np.array([row['step'] for row in points])
  spent = _spent(run, x, step, points)
  value = lambda name: np.array([row.get(name, np.nan) for row in points])
  keep = np.isfinite(spent) & (spent > 0)
  return Curve(
    run=run,
    metric=f'{split}/{found}',
    step=step[keep],
    x=spent[keep],
    y=value(found)[keep],
    error=value(f'{found}_se')[keep],
    tokens_per_byte=value('tokens_per_byte')[-1],
  )


def _spent(
  run: run_lib.Run, x: str, step: np.ndarray, rows: list[dict[str, Any]]
) -> np.ndarray:
  """`x` after each of the steps; nan where it was not logged."""
  if x == 'step':
    return step.astype(float)
  if x == 'parameters':
    return np.full(len(step), float(run.num_parameters))
  if x == 'flops' and all('flops' in row for row in rows):
    return np.array([row['flops'] for row in rows])
  # The counters of training rows grow evenly between two rows. (In rows of
  # evals `bytes` and `tokens` are the size of the evaluated text.)
  logged = [row for row in run.metrics('train') if x in row]
  if not logged:
    raise ValueError(
      f'{os.fspath(run.workdir)} has no training rows with {x!r}. Choose '
      'another x, e.g. x=step.'
    )
  steps = np.array([0, *(row['step'] for row in logged)])
  values = np.array([0.0, *(row[x] for row in logged)])
  return np.interp(step, steps, values, right=np.nan)


def texts_of(run: run_lib.Run, y: str) -> list[Text]:
  """Which texts a metric was measured on, usually one; the newest last."""
  split = y.rpartition('/')[0]
  newest_first = [_text(row) for row in reversed(run.metrics(split))]
  return list(dict.fromkeys(newest_first))[::-1]


def _text(row: dict[str, Any]) -> Text:
  return row.get('corpus'), row.get('bytes')

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of classifications, from the table of true and predicted classes.

Exact sums in float64; c classes.
"""

import math

import numpy as np
from jaxtyping import Float, Int


def confusion(
  labels: Int[np.ndarray, 'n'],
  predicted: Int[np.ndarray, 'n'],
  num_classes: int,
) -> Int[np.ndarray, 'c c']:
  """How often each true class (row) was predicted as each class (column).

  Raises:
    ValueError: If a class is outside [0, num_classes).
  """
  for name, values in (('labels', labels), ('predicted', predicted)):
    if len(values) and not 0 <= values.min() <= values.max() < num_classes:
      raise ValueError(
        f'{name} must be in [0, num_classes={num_classes}); they are in '
        f'[{values.min()}, {values.max()}].'
      )
  table = np.zeros((num_classes, num_classes), np.int64)
  np.add.at(table, (labels, predicted), 1)
  return table


def matthews(table: Int[np.ndarray, 'c c']) -> float:
  """Matthews correlation coefficient, in [-1, 1].

  For c classes: Gorodkin 2004, equation 8; for two it is the correlation of the
  two binary variables (Matthews 1975). 0 if all rows are of one class, or
  predicted to be.
  """
  total, correct = int(table.sum()), int(np.trace(table))
  true, predicted = ([int(n) for n in table.sum(axis=axis)] for axis in (1, 0))
  # Integers of Python, which do not overflow.
  square = lambda counts: total**2 - sum(n * n for n in counts)
  if not square(true) or not square(predicted):
    return 0.0
  both = correct * total - sum(
    t * p for t, p in zip(true, predicted, strict=True)
  )
  return both / math.sqrt(square(true) * square(predicted))


def f1(table: Int[np.ndarray, 'c c']) -> Float[np.ndarray, 'c']:
  """F1 of each class; 0 for a class that is neither true nor predicted."""
  both = table.sum(axis=0) + table.sum(axis=1)
  return 2 * np.diag(table) / np.maximum(both, 1)


def scores(table: Int[np.ndarray, 'c c']) -> dict[str, float]:
  """`mcc`, `macro_f1` and `accuracy`."""
  return {
    'mcc': matthews(table),
    'macro_f1': float(f1(table).mean()),
    'accuracy': float(np.trace(table) / max(int(table.sum()), 1)),
  }

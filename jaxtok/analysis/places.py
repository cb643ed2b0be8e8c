# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where in its windows a model learns to predict.

Lester et al. 2024, arXiv:2404.03626: accuracy per place in the window over
training, less the best of its beginning, in which a model learns frequencies
only. Runs log `accuracy_i` and `nats_i` if `objectives.next_token` is told the
`places`.
"""

import dataclasses
import re
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Places:
  """A metric by place in the window over training.

  Attributes:
    step: Optimizer steps [n].
    values: The metric [n, places].
    gain: `values` less the best one of the beginning [n, places].
  """

  step: np.ndarray
  values: np.ndarray
  gain: np.ndarray


def accuracy(
  run: Any, *, split: str = 'train', first_steps: int | None = None
) -> Places:
  """Reads the accuracy per place of a run.

  Args:
    run: A `runs.Run` of an M2 with several tokens per window.
    split: 'train', or an eval such as 'eval/val'.
    first_steps: Length of the beginning; by default the paper's 2,000 steps,
      or a tenth of a run that is shorter than 20,000, but at least up to the
      first entry of the log.

  Raises:
    ValueError: If the run did not log it, or not within `first_steps`.
  """
  rows = [row for row in run.metrics(split) if 'accuracy_0' in row]
  if not rows:
    raise ValueError(
      f'{run.workdir} logged no accuracy_0 in {split}. Train it with '
      "objective=next_token.Config(places=...), the tokenizer's "
      'tokens_per_window.'
    )
  names = [key for key in rows[0] if re.fullmatch(r'accuracy_\d+', key)]
  names.sort(key=lambda name: int(name.rpartition('_')[2]))
  step = np.array([row['step'] for row in rows])
  values = np.array([[row[name] for name in names] for row in rows])
  if first_steps is None:
    first_steps = max(step[0], min(2000, step[-1] // 10))
  begins = step <= first_steps
  if not begins.any():
    raise ValueError(
      f'{run.workdir} logged its first {split} at step {step[0]}, after '
      f'first_steps={first_steps}. Raise it.'
    )
  return Places(step, values, values - values[begins].max(axis=0))

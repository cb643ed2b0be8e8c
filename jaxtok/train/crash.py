# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is left behind when the loss becomes NaN or infinite."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxtok import config as config_lib
from jaxtok.runs import files
from jaxtok.train import errors, state
from jaxtok.train.setup import Job


def error(
  job: Job, step: int, bad: int, batch: Mapping[str, np.ndarray]
) -> errors.NonFiniteError:
  """Saves batch and config to `crash/` and explains what happened.

  Args:
    job: The run.
    step: The optimizer step, from 1.
    bad: `StepMetrics.bad`, not -1.
    batch: This process' rows of that step.
  """
  names = state.names(job.layout.shapes.params)
  if bad < 3 * len(names):
    kinds = ('parameter', 'the gradient of', 'the update of')
    parameter = names[bad % len(names)]
    what = f'The first bad one is {kinds[bad // len(names)]} {parameter}.'
  else:
    parameter = ''
    what = 'All gradients are finite; only the loss is not.'
  folder = _save(job, step, batch)
  return errors.NonFiniteError(
    f'Step {step}: the loss or a gradient is NaN or infinite, or an update '
    f'made a parameter so. {what} Rerun '
    'the same command with --debug_nans to stop at the operation that makes '
    'it, or lower optim.lr. The batch and the config of that step are in '
    f'{folder}; the last checkpoint is from before it. If the same happens '
    'again from there, its weights have grown too large already: start a new '
    'workdir from an older one with --init_from=RUN@STEP.',
    step=step,
    parameter=parameter,
  )


def _save(job: Job, step: int, batch: Mapping[str, Any]) -> epath.Path:
  folder = job.workdir / 'crash'
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **batch)
  part = f'.part{job.reader[0]}' if job.reader[1] > 1 else ''
  files.write_atomic(folder / f'batch_{step:08}{part}.npz', buffer.getvalue())
  files.write_json(folder / 'config.json', config_lib.to_dict(job.config))
  return folder

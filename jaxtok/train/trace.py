# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Profiles of chosen steps, for TensorBoard's or XProf's trace viewer."""

import os

import jax
from etils import epath

from jaxtok.train import errors


class Tracer:
  """Traces a range of steps into `<workdir>/profile`.

  Args:
    workdir: The run directory; None if nothing will be traced.
    steps: () for nothing, (n,) for one step, (first, last) for a range.

  Raises:
    ConfigError: If `steps` is anything else.
  """

  def __init__(self, workdir: str | os.PathLike | None, steps: tuple[int, ...]):
    in_order = list(steps) == sorted(steps) and min(steps, default=1) >= 1
    if len(steps) > 2 or not in_order:
      raise errors.ConfigError(
        f'profile={steps} must be one step or a first and a last one, counted '
        'from 1, e.g. --profile=20,25.'
      )
    self._folder = epath.Path(workdir or '.') / 'profile'
    self._steps = range(steps[0], steps[-1] + 1) if steps else range(0)
    self._is_on = False

  def before(self, step: int) -> None:
    """Starts or stops as `step` demands; call it before the step."""
    if (step in self._steps) == self._is_on:
      return
    if self._is_on:
      self.close()
    else:
      jax.profiler.start_trace(self._folder)
      self._is_on = True

  def close(self) -> None:
    """Ends the trace, if there is one."""
    if self._is_on:
      jax.profiler.stop_trace()
      self._is_on = False

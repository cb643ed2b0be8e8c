# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Errors that end a run, each with the exit code a command line gives it.

Every message is one paragraph that names the thing at fault, the rule it
breaks and what to do, so that a command line can print it without a traceback.
"""


class RunError(Exception):
  """Base class: something about this run that its owner can put right."""

  exit_code = 1


class ConfigError(RunError, ValueError):
  """The configuration asks for something impossible."""

  exit_code = 2


class ConfigChangedError(ConfigError):
  """The workdir belongs to a run with another config."""


class WorkdirError(RunError, OSError):
  """The workdir cannot be written, or is too small."""


class CheckpointError(RunError):
  """No checkpoint could be restored."""


class NonFiniteError(RunError, FloatingPointError):
  """The loss or a gradient became NaN or infinite.

  Attributes:
    step: The optimizer step (from 1) whose loss or gradient it was.
    parameter: Dotted name of the first bad parameter, or '' if all gradients
      were finite and only the loss was not.
  """

  def __init__(self, message: str, *, step: int, parameter: str):
    super().__init__(message)
    self.step = step
    self.parameter = parameter


class Preempted(RunError):
  """The run was asked to stop, saved itself, and can be continued.

  Launchers treat exit code 75 (EX_TEMPFAIL) as "start the same command again".
  """

  exit_code = 75

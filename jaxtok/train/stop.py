# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop: SIGTERM from a cluster, Ctrl-C from a person."""

import os
import signal
import sys
import threading
from typing import Any

import jax

from jaxtok.train import errors


class Stop:
  """Context in which the first SIGTERM or Ctrl-C ends the run in good order.

  Until `wait_for_steps` is called it raises `Preempted`: nothing has been done
  that could be lost. After that it only sets `reason`. The second signal does
  what it always does. With several processes SIGTERM is left to
  `jax.distributed`, which tells all of them, and Ctrl-C stays as it is.
  Outside the main thread no signal is caught.

  Attributes:
    reason: '' or the name of the signal.
  """

  def __init__(self):
    self.reason = ''
    self._waits = False
    self._previous = {}

  def wait_for_steps(self) -> None:
    """From now on the step under way is finished first."""
    self._waits = True

  def requested(self, step: int, checkpoints: Any) -> bool:
    """Whether the run shall save itself and stop after `step`.

    All processes get the same answer.

    Args:
      step: Optimizer steps done.
      checkpoints: `checkpoint.Checkpoints`, which asks the other processes.
    """
    if jax.process_count() == 1:
      return bool(self.reason)
    if checkpoints.reached_preemption(step):
      self.reason = 'SIGTERM'
    return bool(self.reason)

  def __enter__(self) -> 'Stop':
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_) -> None:
    self._restore()

  def _note(self, number, frame) -> None:
    del frame
    self._restore()
    name = signal.Signals(number).name
    if not self._waits:
      raise errors.Preempted(
        f'{name}: stopped before training. The same command starts again.'
      )
    self.reason = name
    text = f'\n{name}: saving after this step; once more to stop at once.\n'
    os.write(sys.__stderr__.fileno(), text.encode())

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

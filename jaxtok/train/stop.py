# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop: SIGTERM from a cluster, Ctrl-C from a person."""

import signal
import threading
from typing import Any

import jax


class Stop:
  """Context in which the first SIGTERM or Ctrl-C only sets `reason`.

  The second one does what it always does. With several processes SIGTERM is
  left to `jax.distributed`, which tells all of them, and Ctrl-C stays as it
  is. Outside the main thread no signal is caught.

  Attributes:
    reason: '' or the name of the signal.
  """

  def __init__(self):
    self.reason = ''
    self._previous = {}

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
    self.reason = signal.Signals(number).name
    self._restore()

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

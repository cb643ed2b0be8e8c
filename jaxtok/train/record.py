# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes down what steps and evals report: rows, lines, samples."""

import time
from collections.abc import Mapping
from typing import Any

import jax

from jaxtok.runs import files
from jaxtok.runs import metrics as metrics_lib
from jaxtok.train import crash, distributed, progress, tally
from jaxtok.train.setup import Job
from jaxtok.train.step import StepMetrics


class Recorder:
  """Reads the metrics of each step one step late, so that devices never wait.

  Only process 0 writes and prints; all of them count.

  Args:
    job: The run.
    counters: Where the run begins; rows after that step are dropped.
    out: Where lines go.
  """

  def __init__(self, job: Job, counters: tally.Tally, out: progress.Progress):
    self.tally = counters
    self._job, self._out = job, out
    self._waiting: tuple[Any, StepMetrics] | None = None
    self._clock = time.perf_counter()
    self._writer = None
    if distributed.is_main():
      self._writer = metrics_lib.Writer(job.workdir)
      if self._writer.tensorboard:
        import tensorboardX  # noqa: F401 (slow; not in the first row's time)

  def begin(self) -> None:
    """Drops the rows of steps that will be done again, and shows the bar."""
    if self._writer is not None:
      self._writer.truncate(self.tally.step)
    self._out.start(self.tally.step, self._job.steps)
    self._clock = time.perf_counter()

  def push(self, batch: Mapping[str, Any], metrics: StepMetrics) -> None:
    """Takes the metrics of a step, and records those of the one before.

    Args:
      batch: This process' rows, kept in case the step turns out bad.
      metrics: Still being computed.

    Raises:
      NonFiniteError: If the step before has made a NaN or an infinity.
    """
    self.collect()
    self._waiting = (batch, metrics)

  def collect(self) -> None:
    """Waits for the step that was pushed last, and records it."""
    if self._waiting is None:
      return
    batch, metrics = self._waiting
    self._waiting = None
    metrics = jax.device_get(metrics)  # Waits; the clock is read after it.
    now = time.perf_counter()
    bad = self.tally.add(metrics, now - self._clock)
    self._clock = now
    step = self.tally.step
    if bad >= 0:
      raise crash.error(self._job, step, bad, batch)
    self._out.advance()
    if step % self._job.config.log_every == 0 or step == self._job.steps:
      self._row(step)

  def skip_time(self) -> None:
    """Does not count the time since the last step as training."""
    self._clock = time.perf_counter()

  def evals(self, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a row per eval and prints a table; samples get a file.

    A row takes the place of one of the same step on the same text.
    """
    if not results:
      return
    step, samples = self.tally.step, {}
    for name, values in results.items():
      values = dict(values)
      if 'samples' in values:
        samples[name] = values.pop('samples')
      if values and self._writer is not None:
        flops = {'flops': self.tally.flops}
        self._writer.replace(step, f'eval/{name}', flops | values)
    self._out.say(progress.eval_table(step, results))
    for text in samples.values():
      self._out.say(text)
    if samples and self._writer is not None:
      files.write_atomic(
        self._job.workdir / 'samples' / f'step_{step:08}.txt',
        '\n'.join(samples.values()),
      )

  def flush(self) -> None:
    """Hands all rows to the file system."""
    if self._writer is not None:
      self._writer.flush()

  def close(self) -> None:
    """Flushes, closes the files and removes the bar."""
    if self._writer is not None:
      self._writer.close()
    self._out.close()

  def _row(self, step: int) -> None:
    seconds = self.tally.seconds / step
    row = self.tally.row()
    if self._writer is not None:
      self._writer.write(step, 'train', row)
    line = progress.train_line(step, self._job.steps, row, seconds)
    self._out.say(line)

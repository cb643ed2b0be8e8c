# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Counters of a run, and the means since the last logged row.

Everything is kept as Python numbers and goes to JSON and back without loss,
so that a run that continues in the middle of a row writes the same row.
"""

import dataclasses
from typing import Any

from jaxtok.train.step import StepMetrics

# Keys of a row that depend on the machine and its mood.
TIMING = ('seconds', 'bytes_per_second', 'flops_per_second')


@dataclasses.dataclass
class Tally:
  """What has been counted up to `step`.

  Attributes:
    flops_per_step: Analytic FLOPs of one step.
    step: Optimizer steps done.
    tokens: Positions seen that were not padding.
    bytes: Source bytes charged to targets.
    flops: Training FLOPs spent; a run may continue with larger batches.
    seconds: Time spent on training steps, without evals and compilation.
    window: Name to sums of `Mean`s since the last row: [total, weight].
    window_start: (flops, bytes, seconds) at the last row.
  """

  flops_per_step: float
  step: int = 0
  tokens: int = 0
  bytes: int = 0
  flops: float = 0.0
  seconds: float = 0.0
  window: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  window_start: tuple[float, int, float] = (0.0, 0, 0.0)

  def add(self, metrics: StepMetrics, seconds: float) -> int:
    """Adds a step's metrics.

    Args:
      metrics: From the step, fetched from the devices.
      seconds: How long the step took.

    Returns:
      `metrics.bad`.
    """
    self.step += 1
    self.tokens += int(metrics.tokens)
    self.bytes += int(metrics.bytes)
    self.flops += self.flops_per_step
    self.seconds += seconds
    for name, mean in metrics.means.items():
      sums = self.window.setdefault(name, [0.0, 0.0])
      sums[0] += float(mean.total)
      sums[1] += float(mean.weight)
    return int(metrics.bad)

  def row(self) -> dict[str, Any]:
    """The means since the last row, and the counters; starts a new row."""
    flops, num_bytes, seconds = self.window_start
    passed = max(self.seconds - seconds, 1e-9)
    values = {k: t / w if w else 0.0 for k, (t, w) in self.window.items()}
    values |= {
      'bytes': self.bytes,
      'tokens': self.tokens,
      'flops': self.flops,
      'seconds': self.seconds,
      'bytes_per_second': (self.bytes - num_bytes) / passed,
      'flops_per_second': (self.flops - flops) / passed,
    }
    self.window = {}
    self.window_start = (self.flops, self.bytes, self.seconds)
    return values

  def to_json(self) -> dict[str, Any]:
    """All counters but `flops_per_step`, for a checkpoint."""
    values = dataclasses.asdict(self)
    del values['flops_per_step']
    return values | {'window_start': list(self.window_start)}

  @classmethod
  def from_json(cls, values: dict[str, Any], flops_per_step: float) -> 'Tally':
    """The inverse of `to_json`."""
    start = tuple(values['window_start'])
    return cls(
      flops_per_step=flops_per_step, **{**values, 'window_start': start}
    )

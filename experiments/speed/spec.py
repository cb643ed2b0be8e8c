# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is timed, and the line protocol between the timer and its workers.

A worker prepares a task (builds, compiles, warms up), says how long that took
and waits. The timer then asks the two workers in turn for rounds, so that each
has the machine to itself and slow drift hits both alike.
"""

import json
import sys
import time
from collections.abc import Callable

from jaxtok.config import configclass


@configclass
class Spec:
  """A GPT-2 shaped byte model and the two tasks it is timed on."""

  task: str = 'train'  # 'train' or 'decode'.
  dim: int = 128
  num_layers: int = 4
  num_heads: int = 4
  vocab_size: int = 256
  seq_len: int = 256  # Positions per row of a training step.
  batch_size: int = 32
  prompt_len: int = 16  # Decoding: prompt and new tokens per row.
  num_tokens: int = 240
  threads: int = 2  # Cores that a worker may use.
  steps: int = 2  # Training steps or generate calls per round.

  def __post_init__(self):
    if self.task not in ('train', 'decode'):
      raise ValueError(f"task={self.task!r} must be 'train' or 'decode'.")
    if self.dim % self.num_heads:
      raise ValueError(
        f'dim={self.dim} must be a multiple of num_heads={self.num_heads}.'
      )

  @property
  def tokens_per_step(self) -> int:
    """Tokens trained on, or generated, in one step."""
    per_row = self.seq_len if self.task == 'train' else self.num_tokens
    return self.batch_size * per_row


def serve(prepare: Callable[[Spec], Callable[[], None]]) -> None:
  """Worker side: reads a `Spec` as JSON, then one line per round.

  Args:
    prepare: Builds and warms up; returns the function that does one step and
      waits for its result.
  """
  spec = Spec(**json.loads(sys.stdin.readline()))
  start = time.perf_counter()
  step = prepare(spec)
  _say({'prepare_seconds': time.perf_counter() - start})
  for _ in sys.stdin:
    start = time.perf_counter()
    for _ in range(spec.steps):
      step()
    seconds = time.perf_counter() - start
    _say({'tokens_per_second': spec.steps * spec.tokens_per_step / seconds})


def _say(message: dict[str, float]) -> None:
  print(json.dumps(message), flush=True)

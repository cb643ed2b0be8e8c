# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows what the model writes: continuations of fixed prompts.

Each call draws the same random numbers, so that samples of different steps
differ by the model alone.
"""

import dataclasses
from typing import Any

from jaxtok.config import configclass
from jaxtok.decoding import sampling as sampling_lib
from jaxtok.decoding import text as text_lib
from jaxtok.evals import base
from jaxtok.runs import display


@configclass
class Config:
  """Which prompts, and how they are continued."""

  every_steps: int = 500  # 0: only after the last step.
  split: str = ''  # Prompts are given, not read from the data.
  prompts: tuple[str, ...] = ('',)  # '': a document from its beginning.
  num_bytes: int = 200  # Most bytes of each continuation.
  sampling: sampling_lib.Config = dataclasses.field(
    default_factory=lambda: sampling_lib.Config(temperature=0.8)
  )

  def __post_init__(self):
    if not self.prompts:
      raise ValueError("prompts must not be empty; ('',) is one empty prompt.")
    if self.num_bytes < 1:
      raise ValueError(f'num_bytes must be >= 1, got {self.num_bytes}.')

  def make(self, context: base.Context) -> 'Samples':
    return Samples(self, context)


class Samples:
  """Returns `{'samples': text}`, which the training loop writes to a file."""

  def __init__(self, config: Config, context: base.Context):
    self._config = config
    self._context = context

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    prompts = [prompt.encode() for prompt in self._config.prompts]
    continuations = text_lib.complete(
      model,
      self._context.tokenizer,
      prompts,
      num_bytes=self._config.num_bytes,
      rng=rng,
      sampling=self._config.sampling,
    )
    lines = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
      lines += [f'--- {display.printable(prompt)!r}']
      lines += [display.printable(prompt + continuation)]
    return {'samples': '\n'.join([*lines, ''])}

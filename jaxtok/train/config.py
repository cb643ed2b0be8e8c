# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a training run."""

import dataclasses
from typing import Any

from jaxtok.config import configclass
from jaxtok.train import optim as optim_lib
from jaxtok.train import sharding


@configclass
class Config:
  """Everything that determines a run; see `train.run`.

  Fields typed `Any` hold the config of a method: its class is the choice.
  """

  data: Any  # e.g. `data.text.Config`: source, split, seq_len, packing.
  tokenizer: Any  # e.g. `tokenizers.bytes.Config`.
  model: Any  # e.g. `models.transformer.Config`; vocab_size=0 is filled in.
  objective: Any  # e.g. `objectives.next_token.Config`.
  optim: optim_lib.Config = dataclasses.field(default_factory=optim_lib.Config)
  mesh: sharding.Config = dataclasses.field(default_factory=sharding.Config)
  evals: dict[str, Any] = dataclasses.field(default_factory=dict)
  # The run ends after `steps` optimizer steps or, if train_flops > 0, when
  # that budget of FLOPs is spent, whichever comes first.
  steps: int = 1000
  train_flops: float = 0.0
  batch_size: int = 32  # Rows per optimizer step, over all devices.
  num_microbatches: int = 1  # Gradient accumulation; exact.
  ema: float = 0.0  # Decay of averaged parameters; 0 turns them off.
  remat: bool = False  # Recompute activations of each block in backward.
  seed: int = 0
  log_every: int = 10
  checkpoint_every: int = 500
  max_to_keep: int = 2  # Newest checkpoints; the best one is kept as well.

  def __post_init__(self):
    for name, least in _LEAST.items():
      if getattr(self, name) < least:
        raise ValueError(
          f'{name} must be >= {least}, got {getattr(self, name)}.'
        )
    if not 0 <= self.ema < 1:
      raise ValueError(f'ema must be in [0, 1), got {self.ema}. Try 0.999.')
    if self.batch_size % self.num_microbatches:
      raise ValueError(
        f'batch_size={self.batch_size} must be a multiple of '
        f'num_microbatches={self.num_microbatches}.'
      )


_LEAST = {
  'steps': 1,
  'train_flops': 0,
  'batch_size': 1,
  'num_microbatches': 1,
  'seed': 0,
  'log_every': 1,
  'checkpoint_every': 1,
  'max_to_keep': 1,
}

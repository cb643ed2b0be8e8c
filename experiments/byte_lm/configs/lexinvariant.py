# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A model whose token vectors are drawn anew for each document (Huang 2023).

  python -m experiments.byte_lm --workdir=runs/lexinvariant \\
      --config=experiments/byte_lm/configs/lexinvariant.py:tiny

`--config.model.fresh=0.2` is the regularised model, of which a document
replaces a fifth of the table; `--config.model.fresh=0` an ordinary one.
Sizes: tiny, quickstart, small, paper (150 M parameters: 12 layers of width
1024, 8 heads of 128, MLP 4096, contexts of 512 characters; heads and MLP are
from memory of the paper).
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import level, lexinvariant


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  dim, layers, heads = sizes.pick(
    size,
    tiny=(64, 2, 2),
    quickstart=(128, 4, 2),
    small=(512, 8, 8),
    paper=(1024, 12, 8),
  )
  config = transformer.get_config('small' if size == 'paper' else size)
  if size == 'paper':
    config.data.seq_len, config.steps = 512, 250_000
  config.model = lexinvariant.Config(
    trunk=level.Config(
      dim=dim,
      num_layers=layers,
      num_heads=heads,
      position='t5',
      branch_scale=1.0,
      gated=False,
      activation='gelu',
    )
  )
  return config

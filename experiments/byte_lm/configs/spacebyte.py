# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SpaceByte: large blocks where words begin (Slagle 2024).

  python -m experiments.byte_lm --workdir=runs/spacebyte \\
      --config=experiments/byte_lm/configs/spacebyte.py:tiny

`experiments/claims/spacebyte.py` shows the same with units of fixed length.
Sizes: tiny, quickstart, small, paper (its proportions: rows of 6,144 bytes,
room for T/6 units, local width D/2 and window D; the number of layers is ours).
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import spacebyte
from jaxtok.nn import ragged


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  dim, layers, local_layers, head_dim = sizes.pick(
    size,
    tiny=(128, 2, 2, 32),
    quickstart=(256, 3, 4, 64),
    small=(1024, 8, 8, 64),
    paper=(1536, 14, 14, 64),
  )
  config = transformer.get_config('small' if size == 'paper' else size)
  if size == 'paper':
    config.data.seq_len = 6144
  config.model = spacebyte.Config(
    dim=dim,
    num_layers=layers,
    num_local_layers=local_layers,
    head_dim=head_dim,
    window=dim if size == 'paper' else 0,
    capacity=ragged.Capacity(policy='ratio', ratio=1 / 6),
  )
  return config

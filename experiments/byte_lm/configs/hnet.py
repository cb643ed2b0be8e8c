# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""H-Net: chunks with learned borders (Hwang et al. 2025).

  python -m experiments.byte_lm --workdir=runs/hnet \\
      --config=experiments/byte_lm/configs/hnet.py:tiny

`metrics.jsonl` has `units_per_token` (1/6 is wanted), and `lost_targets`: those
of chunks without room, many in the first steps, until the borders get fewer.
Short runs have ten times the paper's weight of the loss that steers lengths:
with 0.03, tiny had chunks of 3.1 bytes after 269 steps, 6.4 were asked for.

Sizes: tiny, quickstart, small, and two_stage, which is tiny with chunks of
chunks (3 positions each). `paper` and `paper_two_stage` have the widths and
numbers of layers of the 1-stage and 2-stage models called L, whose encoders and
decoders are Mamba-2. Elsewhere they are attention, which is faster on a CPU;
`--config.model.mixer=mamba2` changes that. Short runs have a window of 64 bytes
outside, without which the outer stage alone costs what a flat model of its
width does. Learning rates fall from stage to stage (`lr_scales`): in paper
sizes as the paper says, relative to a model over tokens; elsewhere relative to
their geometric mean (1.9 and 0.5 with one stage), as the rate is that of a flat
model over bytes.
"""

import math

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import hnet
from jaxtok.nn import ragged


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  dims, layers, head_dim = sizes.pick(
    size,
    tiny=((64, 128), (1, 2), 32),
    two_stage=((64, 64, 128), (1, 1, 2), 32),
    quickstart=((128, 256), (1, 3), 64),
    small=((512, 1024), (2, 8), 64),
    paper=((1024, 1536), (4, 22), 64),
    paper_two_stage=((1024, 1024, 1536), (4, 4, 26), 64),
  )
  is_paper = size.startswith('paper')
  like = {'two_stage': 'tiny', 'paper': 'small', 'paper_two_stage': 'small'}
  config = transformer.get_config(like.get(size, size))
  if is_paper:
    config.data.seq_len = 8192
  is_deep, is_short = len(dims) == 3, max(dims) <= 256
  config.model = hnet.Config(
    dims=dims,
    num_layers=layers,
    lengths=(3.0, 3.0) if is_deep else (6.0,),
    head_dim=head_dim,
    ratio_weight=0.3 if is_short else 0.03,
    mixer='mamba2' if is_paper else 'attention',
    window=64 if is_short else 0,
    capacity=ragged.Capacity(policy='ratio', ratio=1 / 2 if is_deep else 1 / 4),
  )
  scales = config.model.lr_scales()
  mean = 1.0 if is_paper else math.prod(scales.values()) ** (1 / len(scales))
  config.optim.lr_scales = {name: x / mean for name, x in scales.items()}
  return config

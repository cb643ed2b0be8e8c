# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hierarchical autoregressive transformer (Neitemeier et al. 2025).

  python -m experiments.byte_lm --workdir=runs/hat \\
      --config=experiments/byte_lm/configs/hat.py:tiny

Words by the rule `uax29` of `tokenizers.words`: the default text is source
code, in which the rule `whitespace` makes a word of each space of indentation.
Sizes: tiny, quickstart, small, paper (the 1B model, in 72,000 steps of 1,024
rows; the rate is 3e-4 times 32 over the heads of the backbone, as for the flat
model).
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import hat
from jaxtok.nn import ragged
from jaxtok.tokenizers import word_bytes


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  config = transformer.get_config(size)
  dim, char_dim, layers, char_layers, head_dim, longest = sizes.pick(
    size,
    tiny=(128, 64, 2, 1, 32, 32),
    quickstart=(256, 128, 3, 2, 64, 32),
    small=(1024, 256, 8, 3, 64, 64),
    paper=(2304, 768, 18, 3, 128, 64),
  )
  config.tokenizer = word_bytes.Config(rule='uax29', longest=longest)
  config.model = hat.Config(
    dim=dim,
    char_dim=char_dim,
    num_layers=layers,
    num_char_layers=char_layers,
    head_dim=head_dim,
    max_word=longest,
    capacity=ragged.Capacity(policy='ratio', ratio=1 / 4),
  )
  if size == 'paper':
    config.optim.lr = 3e-4 * 32 / (dim // head_dim)
  return config

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2 on the arithmetic code of byte frequencies alone.

  python -m experiments.compressed_text --workdir=runs/static_arithmetic \\
      --config=experiments/compressed_text/configs/static_arithmetic.py:tiny

Setting after the size: v, bits of a token (8, 16). Sizes: see
`experiments.compressed_text.m2`.
"""

from experiments.compressed_text import m2
from jaxtok import train
from jaxtok.tokenizers import arithmetic


def get_config(argument: str = 'small') -> train.Config:
  """A run of the given size and settings."""
  size, its = m2.parse(argument, v=8)
  tokenizer = arithmetic.Static(token_bits=its['v'])
  return m2.config(size, tokenizer, 16 // its['v'])

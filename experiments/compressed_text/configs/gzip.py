# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2 on the gzip of each document.

  python -m experiments.compressed_text --workdir=runs/gzip \\
      --config=experiments/compressed_text/configs/gzip.py:tiny

Setting after the size: v, bits of a token (8, 16). Sizes: see
`experiments.compressed_text.m2`.
"""

from experiments.compressed_text import m2
from jaxtok import train
from jaxtok.tokenizers import gzip


def get_config(argument: str = 'small') -> train.Config:
  """A run of the given size and settings."""
  size, its = m2.parse(argument, v=8)
  return m2.config(size, gzip.Config(token_bits=its['v']), 16 // its['v'])

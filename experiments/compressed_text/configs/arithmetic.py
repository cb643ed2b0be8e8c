# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2 on the arithmetic code of a strong model: nothing can be learned.

  python -m experiments.compressed_text --workdir=runs/arithmetic \\
      --config=experiments/compressed_text/configs/arithmetic.py:tiny

Settings after the size: v, bits of a token (8, 16); m1, counted or shipped, as
for `neural.py`. Sizes: see `experiments.compressed_text.m2`.
"""

from experiments.compressed_text import m2
from jaxtok import train
from jaxtok.tokenizers import arithmetic


def get_config(argument: str = 'small') -> train.Config:
  """A run of the given size and settings."""
  size, its = m2.parse(argument, v=8, m1='counted')
  if m2.is_counted(its['m1']):
    tokenizer = arithmetic.Train(token_bits=its['v'], **m2.M1)
  else:
    tokenizer = arithmetic.Config(token_bits=its['v'])
  return m2.config(size, tokenizer, 16 // its['v'])

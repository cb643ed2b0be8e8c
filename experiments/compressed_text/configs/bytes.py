# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2 on bytes: no compression.

  python -m experiments.compressed_text --workdir=runs/bytes \\
      --config=experiments/compressed_text/configs/bytes.py:tiny

Sizes: see `experiments.compressed_text.m2`.
"""

from experiments.compressed_text import m2
from jaxtok import train
from jaxtok.tokenizers import bytes as byte_tokenizer


def get_config(argument: str = 'small') -> train.Config:
  """A run of the given size."""
  size, _ = m2.parse(argument)
  return m2.config(size, byte_tokenizer.Config())

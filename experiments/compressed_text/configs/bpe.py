# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2 on byte-pair tokens: what compressed text has to beat.

  python -m experiments.compressed_text --workdir=runs/bpe \\
      --config=experiments/compressed_text/configs/bpe.py:tiny

Stands for the SentencePiece baseline of Lester et al. 2024 (vocabulary 32,000);
smaller at tiny and small. Sizes: see `experiments.compressed_text.m2`.
"""

from experiments.compressed_text import m2
from jaxtok import train
from jaxtok.tokenizers import hf

_VOCAB = {'tiny': 4096, 'small': 16_384}


def get_config(argument: str = 'small') -> train.Config:
  """A run of the given size."""
  size, _ = m2.parse(argument)
  return m2.config(size, hf.Train(vocab_size=_VOCAB.get(size, 32_000)))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoder transformer over byte-pair tokens trained on the same text.

  python -m experiments.byte_lm --workdir=runs/bpe \\
      --config=experiments/byte_lm/configs/bpe.py:tiny

The same model as `transformer.py`, so that at equal FLOPs the tokenizer is
what differs. Sizes: tiny, quickstart, small, paper (64k tokens: what HAT's 1B
model is compared with).
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.tokenizers import hf


def get_config(size: str = 'small') -> train.Config:
  """A BPE run of the given size."""
  vocab_size, seq_len = sizes.pick(
    size,
    tiny=(512, 64),
    quickstart=(2048, 128),
    small=(16_384, 512),
    paper=(65_536, 1024),
  )
  config = transformer.get_config(size)
  config.tokenizer = hf.Train(vocab_size=vocab_size)
  config.data.seq_len = seq_len
  if size != 'paper':
    config.batch_size *= 2  # As many tokens per step; about 3 bytes in each.
  return config

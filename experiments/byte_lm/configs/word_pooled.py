# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learn Your Tokens: words pooled into p vectors (Thawani et al. 2023).

  python -m experiments.byte_lm --workdir=runs/word_pooled \\
      --config=experiments/byte_lm/configs/word_pooled.py:tiny

Words by the rule `uax29` of `tokenizers.words`, which isolates punctuation as
the authors do.
Sizes: tiny, quickstart, small, paper (the authors' code: width 512, 8 layers,
2 and 2 for words, p=4, rows of about 192 words).
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import word_pooled
from jaxtok.nn import ragged
from jaxtok.tokenizers import word_bytes


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  dim, heads, layers, char_layers, longest = sizes.pick(
    size,
    tiny=(64, 2, 2, 1, 32),
    quickstart=(128, 4, 3, 2, 32),
    small=(512, 8, 8, 2, 64),
    paper=(512, 8, 8, 2, 64),
  )
  config = transformer.get_config('small' if size == 'paper' else size)
  config.tokenizer = word_bytes.Config(rule='uax29', longest=longest)
  config.model = word_pooled.Config(
    dim=dim,
    num_heads=heads,
    num_layers=layers,
    num_char_layers=char_layers,
    max_word=longest,
    capacity=ragged.Capacity(policy='ratio', ratio=1 / 4),
  )
  if size == 'paper':
    config.model.dropout = 0.1
    config.optim.lr = 1e-4
  return config

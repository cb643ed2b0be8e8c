# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hierarchical autoregressive transformer (Neitemeier et al. 2025).

  python -m experiments.byte_lm --workdir=runs/hat \\
      --config=experiments/byte_lm/configs/hat.py:tiny

Words by the rule `uax29` of `tokenizers.words`: the default text is source
code, in which the rule `whitespace` makes a word of each space of indentation.
Sizes: tiny, quickstart, small, paper (the 1B model).

With `_v2` behind a size, e.g. tiny_v2, the model of 2026 (arXiv:2603.15953,
`models.hat2`): plain bytes, no marks, words by `nn.segmenters.Words`, which is
`uax29` on ASCII. paper_v2 is its 7B model; how its encoder and decoder of 119
and 94 million parameters are made up is our guess.
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import hat, hat2
from jaxtok.nn import ragged
from jaxtok.tokenizers import word_bytes


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  size, _, version = size.partition('_')
  if version not in ('', 'v2'):
    raise ValueError(f'size {size}_{version} does not exist; {size}_v2 does.')
  config = transformer.get_config('small' if size == 'paper' else size)
  if size == 'paper':
    config.data.seq_len = 4096
  if version:
    config.model = _v2(size)
    return config
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
  return config


def _v2(size: str) -> hat2.Config:
  dim, char_dim, layers, char_layers, head_dim = sizes.pick(
    size,
    tiny=(128, 64, 2, (1, 1), 32),
    quickstart=(256, 128, 3, (2, 2), 64),
    small=(1024, 256, 8, (3, 3), 64),
    paper=(4096, 1024, 32, (7, 5), 128),
  )
  config = hat2.Config(
    dim=dim,
    char_dim=char_dim,
    num_layers=layers,
    num_encoder_layers=char_layers[0],
    num_decoder_layers=char_layers[1],
    head_dim=head_dim,
  )
  if size == 'paper':
    config.num_kv_heads, config.mlp_dim = 8, 14_336
    config.char_mlp_dim = 3584
  return config

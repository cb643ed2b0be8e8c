# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""HAT of 2026: words of a stream of bytes, without marks (arXiv:2603.15953).

  python -m experiments.byte_lm --workdir=runs/hat2 \\
      --config=experiments/byte_lm/configs/hat2.py:tiny

Plain bytes; words by `nn.segmenters.Words`, which is HAT's rule `uax29` on
ASCII. Sizes: tiny, quickstart, small, paper (the 7B model; how its encoder and
decoder of 119 and 94 million parameters are made up is our guess). With
`_first` behind a size, e.g. tiny_first, only the first layer of the decoder
sees what is predicted of a word.
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.models import hat2
from jaxtok.nn import ragged


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  size, kind = sizes.split(size, 'first')
  dim, char_dim, layers, char_layers, head_dim = sizes.pick(
    size,
    tiny=(128, 64, 2, (1, 1), 32),
    quickstart=(256, 128, 3, (2, 2), 64),
    small=(1024, 256, 8, (3, 3), 64),
    paper=(4096, 1024, 32, (7, 5), 128),
  )
  config = transformer.get_config('small' if size == 'paper' else size)
  config.model = hat2.Config(
    dim=dim,
    char_dim=char_dim,
    num_layers=layers,
    num_encoder_layers=char_layers[0],
    num_decoder_layers=char_layers[1],
    head_dim=head_dim,
    looks=kind or 'each',
    # On short rows, about what HAT's bytes see: words of at most 32 bytes.
    window=64 if size in ('tiny', 'quickstart') else 768,
    capacity=ragged.Capacity(policy='ratio', ratio=1 / 4),
  )
  if size == 'paper':
    config.data.seq_len = 4096
    config.model.num_kv_heads, config.model.mlp_dim = 8, 14_336
    config.model.char_mlp_dim = 3584
  return config

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""ByT5: span corruption on bytes by an encoder-decoder (Xue et al. 2022).

  python -m experiments.byte_lm --workdir=runs/byt5 \\
      --config=experiments/byte_lm/configs/byt5.py:tiny

Bits per byte are of the bytes left out, given all others. A run fills blanks:

  from jaxtok.decoding import fill_spans
  run = jaxtok.runs.load('runs/byt5')
  fill_spans.fill(run.model, run.tokenizer, [[b'def ', b'(self):']],
                  num_bytes=20)

Sizes: tiny, quickstart, small, paper (ByT5-small: 12 + 4 layers, 300 M
parameters, rows of 1,024 ids; the learning rate of MrT5's continued training).
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer as base
from jaxtok import train
from jaxtok.data import span_corruption
from jaxtok.models import transformer
from jaxtok.tokenizers import bytes as byte_tokenizer


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  seq_len, shape = sizes.pick(
    size,
    tiny=(128, (64, 2, 2, 2, 32, 128)),
    quickstart=(256, (128, 4, 2, 4, 32, 256)),
    small=(1024, (512, 8, 3, 8, 64, 1024)),
    paper=(1024, (1472, 12, 4, 6, 64, 3584)),
  )
  dim, encoder_layers, layers, heads, head_dim, mlp_dim = shape
  config = base.get_config('small' if size == 'paper' else size)
  config.data = span_corruption.Config(
    source=config.data.source, seq_len=seq_len
  )
  config.tokenizer = byte_tokenizer.Config(map='byt5')
  config.model = transformer.Config.byt5(
    dim=dim,
    num_encoder_layers=encoder_layers,
    num_layers=layers,
    num_heads=heads,
    head_dim=head_dim,
    mlp_dim=mlp_dim,
  )
  if size == 'paper':
    config.steps, config.batch_size = 5_000, 1024
    config.optim.lr, config.optim.warmup_steps = 1e-4, 0
  return config

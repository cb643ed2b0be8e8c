# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoder transformer over bytes: the baseline of everything.

  python -m experiments.byte_lm --workdir=runs/bytes \\
      --config=experiments/byte_lm/configs/transformer.py:tiny

Sizes: tiny (seconds on a laptop), quickstart (minutes), small (one
accelerator, or a night on a workstation), paper (over bytes, what HAT's 1B
model is compared with: 16 layers of width 2,048, heads of 128; Neitemeier et
al. 2025, arXiv:2501.10322).
"""

from experiments import sizes
from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import optim


def get_config(size: str = 'small') -> train.Config:
  """A byte-level run of the given size."""
  dim, layers, seq_len, batch_size, steps = sizes.pick(
    size,
    tiny=(64, 2, 128, 8, 100),
    quickstart=(128, 4, 256, 8, 450),
    small=(512, 8, 1024, 64, 20_000),
    paper=(2048, 16, 4096, 1024, 72_000),
  )
  every = max(steps // 6, 1)
  config = train.Config(
    data=text.Config(source=text.Stdlib(), seq_len=seq_len),
    tokenizer=byte_tokenizer.Config(),
    model=transformer.Config(
      dim=dim, num_layers=layers, num_heads=max(dim // 64, 2)
    ),
    objective=next_token.Config(),
    optim=optim.Config(lr=2e-3 if dim < 256 else 1e-3, warmup_steps=every // 3),
    evals={'val': bpb.Config(every_steps=every, max_bytes=seq_len * 400)},
    steps=steps,
    train_flops=5e12 if size == 'quickstart' else 0.0,
    batch_size=batch_size,
    log_every=max(every // 3, 1),
    checkpoint_every=every,
  )
  if size == 'paper':
    config.model = transformer.Config.llama(
      dim=dim, num_layers=layers, num_heads=layers, is_tied=False
    )
    config.optim.lr, config.optim.warmup_steps = 3e-4 * 32 / layers, 500
  return config

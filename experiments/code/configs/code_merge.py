# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""An encoder that merges the tokens of identifiers (arXiv:2507.14423).

  python -m experiments.code --workdir=runs/code \\
      --config=experiments/code/configs/code_merge.py:tiny

Sizes: tiny, small (minutes), paper (CodeBERT's: 12 layers of width 768, rows of
512 tokens; with random weights, not the pretrained ones).
"""

from experiments import sizes
from experiments.code import tasks, training
from jaxtok.models import code_merge, transformer


def get_config(size: str = 'small') -> training.Config:
  """A run of the given size."""
  dim, layers, heads, length, steps, num = sizes.pick(
    size,
    tiny=(32, 2, 2, 64, 20, 200),
    small=(64, 4, 2, 128, 400, 2000),
    paper=(768, 12, 12, 512, 10_000, 10_000),
  )
  return training.Config(
    model=code_merge.Config(
      encoder=transformer.Config.bert(
        dim=dim, num_layers=layers, num_heads=heads, max_len=length
      ),
      layer=1,
    ),
    task=tasks.Config(num_examples=num),
    vocab_size=400 if size == 'tiny' else 1000,
    length=length,
    steps=steps,
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classes from merged tokens: modules, defects, cloze (arXiv:2507.14423).

  python -m experiments.code --workdir=runs/code \\
      --config=experiments/code/configs/code_merge.py:tiny

An encoder that merges the tokens of each identifier. The task is modules, or
with --config.task.kind=defects or cloze another (`experiments.code.tasks`).

Sizes: tiny, minute (of the table of tasks in docs/code.md), small (minutes),
paper (CodeBERT's: 12 layers of width 768, rows of 512 tokens; with
--config.init=FOLDER its weights and tokens, without, random weights).
"""

from experiments import sizes
from experiments.code import tasks, training
from jaxtok.models import code_merge, transformer
from jaxtok.train import optim


def get_config(size: str = 'small') -> training.Config:
  """A run of the given size."""
  dim, layers, heads, length, steps, num, lr, dropout = sizes.pick(
    size,
    tiny=(32, 2, 2, 64, 20, 200, 1e-3, 0.0),
    minute=(32, 2, 2, 96, 300, 2000, 3e-3, 0.0),
    small=(64, 4, 2, 128, 400, 2000, 1e-3, 0.0),
    paper=(768, 12, 12, 512, 10_000, 10_000, 5e-5, 0.1),
  )
  return training.Config(
    model=code_merge.Config(
      encoder=transformer.Config.bert(
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        max_len=length,
        dropout=dropout,
      ),
      layer=1,
    ),
    task=tasks.Config(num_examples=num),
    vocab_size=400 if size == 'tiny' else 1000,
    length=length,
    optim=optim.Config(lr=lr, warmup_steps=max(50, steps // 20)),
    steps=steps,
  )

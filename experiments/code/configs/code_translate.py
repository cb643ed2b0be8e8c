# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Translation: java_cs, refinement, concode, camel (arXiv:2507.14423).

  python -m experiments.code --workdir=runs/translate \\
      --config=experiments/code/configs/code_translate.py:tiny

From merged lexical units. Other pairs than Java and C#:
--config.task.kind=refinement (buggy to fixed methods) or concode (English to
methods); see `experiments.code.pairs`.

Sizes: tiny (lines of Python, no data needed), minute (of the table of tasks in
docs/code.md) and small (Java to C#, methods of up to 64 tokens of CodeXGLUE, in
the folder that JAXTOK_DATA names), paper (CodeT5's: with --config.init=FOLDER
its weights; without, random ones).
"""

from experiments import sizes
from experiments.code import pairs, translation
from jaxtok.models import code_translate
from jaxtok.train import optim


def get_config(size: str = 'small') -> translation.Config:
  """A run of the given size."""
  dim, layers, heads, length, steps, batch, lr = sizes.pick(
    size,
    tiny=(32, 2, 2, 48, 20, 8, 3e-3),
    minute=(64, 2, 4, 64, 300, 16, 3e-3),
    small=(128, 3, 4, 64, 1500, 16, 2e-3),
    paper=(768, 12, 12, 512, 50_000, 16, 5e-5),
  )
  model = code_translate.Config.t5(
    dim=dim,
    num_layers=2 if size == 'small' else layers,
    num_encoder_layers=layers,
    num_heads=heads,
    head_dim=dim // heads,
    layer=1,
    dropout=0.1 if size == 'paper' else 0.0,
  )
  task = pairs.Config(num_train=0, num_test=128 if size == 'minute' else 1000)
  if size == 'tiny':
    task = pairs.Config(kind='camel', num_train=400, num_test=20)
  return translation.Config(
    model=model,
    task=task,
    vocab_size=400 if size == 'tiny' else 1000,
    length=length,
    optim=optim.Config(lr=lr, warmup_steps=steps // 20),
    steps=steps,
    batch_size=batch,
  )

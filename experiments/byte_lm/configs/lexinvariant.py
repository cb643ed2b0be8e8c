# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A model whose token vectors are drawn anew for each document (Huang 2023).

  python -m experiments.byte_lm --workdir=runs/lexinvariant \\
      --config=experiments/byte_lm/configs/lexinvariant.py:tiny

`--config.model.fresh=0.2` is the regularised model, of which a document
replaces a fifth of the table; `--config.model.fresh=0` an ordinary one.

With `_decipher` behind a size the run ends with its evaluation on text in
ciphers; of a run that has ended, by

  python -m experiments.byte_lm --workdir=runs/lexinvariant --eval_only \\
      --config=experiments/byte_lm/configs/lexinvariant.py:tiny_decipher

`plain`, `ciphered` and `switched` in metrics.jsonl are nats by place in a row,
with another key in its second half in the last; `decipher` is what a probe of
the states reads of the keys.

Sizes: tiny, quickstart, small, paper (150 M parameters: 12 layers of width
1024, 8 heads of 128, MLP 4096, contexts of 512 characters; heads and MLP are
from memory of the paper).
"""

from typing import Any

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.evals import by_position, decipher
from jaxtok.models import level, lexinvariant


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  size, kind = sizes.split(size, 'decipher')
  dim, layers, heads = sizes.pick(
    size,
    tiny=(64, 2, 2),
    quickstart=(128, 4, 2),
    small=(512, 8, 8),
    paper=(1024, 12, 8),
  )
  config = transformer.get_config('small' if size == 'paper' else size)
  if size == 'paper':
    config.data.seq_len, config.steps = 512, 250_000
  config.model = lexinvariant.Config(
    trunk=level.Config(
      dim=dim,
      num_layers=layers,
      num_heads=heads,
      position='t5',
      branch_scale=1.0,
      gated=False,
      activation='gelu',
    )
  )
  if kind:
    config.evals |= _ciphers(config)
  return config


def _ciphers(config: train.Config) -> dict[str, Any]:
  """Plain text, a key for each row, two keys, and how much of them is read."""
  half = config.data.seq_len // 2
  places = [0, *(2**i for i in range(20))]
  early = [x for x in places if x < half]
  shared = dict(
    max_bytes=config.evals['val'].max_bytes,
    # As fine behind the middle, where the key may change.
    edges=(*early, *(half + x for x in early)),
  )
  return {
    'plain': by_position.Config(**shared),
    'ciphered': by_position.Config(num_keys=1, **shared),
    'switched': by_position.Config(num_keys=2, **shared),
    'decipher': decipher.Config(max_bytes=shared['max_bytes']),
  }

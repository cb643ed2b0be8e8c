# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M1, the byte model that text is compressed with, on the integers' grid.

  JAXTOK_DATA=DATA python -m experiments.compressed_text --workdir=runs/m1 \\
      --config=experiments/compressed_text/configs/m1.py

English novels in the public domain (`english_text/novels_en.zip` in the folder
that JAXTOK_DATA names) and 2 MB of Python's standard library; all may be used
for a model that is given away. By `Files`' own split, *The Woman in White* and
*Treasure Island* are not trained on. Rows start anywhere in a text.

Sizes: tiny (seconds), shipped (the model in the package; an hour on one core).
"""

import os

from experiments import sizes
from jaxtok import train
from jaxtok.data import joined, text
from jaxtok.evals import bpb
from jaxtok.models import int_byte_lm
from jaxtok.objectives import next_token
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import optim

NOVELS = 'english_text/novels_en.zip'


def get_config(size: str = 'shipped') -> train.Config:
  """A run of the given size."""
  dim, layers, batch_size, steps = sizes.pick(
    size, tiny=(32, 4, 4, 100), shipped=(128, 6, 16, 4800)
  )
  novels = os.path.join(os.environ.get('JAXTOK_DATA', 'data'), NOVELS)
  source = joined.Joined(
    sources=(text.Files(path=novels), text.Stdlib(max_bytes=2_000_000))
  )
  return train.Config(
    data=text.Config(source=source, seq_len=256),
    tokenizer=byte_tokenizer.Config(),
    model=int_byte_lm.Config(dim=dim, num_layers=layers),
    objective=next_token.Config(),
    optim=optim.Config(
      lr=4e-3,
      schedule=optim.Schedule.WSD,
      warmup_steps=min(steps // 10, 200),
      decay_fraction=0.3,
      final_ratio=0.02,
      weight_decay=0.01,
    ),
    evals={'val': bpb.Config(every_steps=steps // 8, max_bytes=200_000)},
    steps=steps,
    batch_size=batch_size,
    log_every=50,
    checkpoint_every=250,
  )

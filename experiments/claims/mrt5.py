# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Half of the positions can go without many more bits per byte.

Kallini et al. 2025, arXiv:2410.20771: MrT5 shortens the encoder of ByT5-small
by up to 80 % at comparable accuracy, and its bits per byte on span corruption
stay close to ByT5's. (Theirs is trained on from ByT5's weights, 5,000 steps.)

Check: ByT5 with softmax1, the same with a deletion gate after its first block,
and with random deletion of as many positions there, all trained from scratch on
spans of Python's standard library: width 96, 4 + 2 layers, rows of 128 ids, the
same 600 steps, batches and seed. Bits per byte of spans of held-out files, with
hard deletion. The controller aims at half of the positions after 200 steps; it
can only raise the share, and small models delete more by themselves. That an
encoder can do without half of its positions at next to no cost is the effect
itself; a small model uses its encoder less than a large one, so the check is
the easier one. random_less_mrt5, what random deletion costs more, shows how
much easier: if that were free too, the gate would have nothing to choose.

Measured, it is free too (0.002 bits more), so this check does not show that the
gate chooses well; the claim `mrt5_edits` asks for that.
"""

import dataclasses
import pathlib
from typing import Any

from experiments.byte_lm.configs import mrt5
from jaxtok import train
from jaxtok.nn import shorteners

TITLE = 'MrT5'
PAPER = 'Kallini et al. 2025, arXiv:2410.20771'
CLAIM = (
  'With half of the positions deleted after an early block, bits per byte of '
  'corrupted spans stay within 1 % of those of the same model without '
  'deletion.'
)
THRESHOLD = {
  'bpb_ratio': '<= 1.01',
  'deleted': 'every >= 0.45',
}
SEEDS = (0, 1, 2)


def prepare(size: str, seed: int, steps: int) -> Any:
  """A run of the claim; `size` is that of the config file."""
  config = mrt5.get_config(size)
  config.seed, config.mesh.data = seed, 1
  config.data.seq_len, config.batch_size, config.steps = 128, 16, steps
  config.optim.warmup_steps = steps // 12
  config.log_every, config.checkpoint_every = 50, steps
  config.evals['val'].every_steps = 0
  config.evals['val'].max_bytes = 120_000
  shortener = config.model.shortener
  if shortener is not None:
    rate = dataclasses.replace(shortener.rate, delay=steps // 3)
    shortener = dataclasses.replace(shortener, rate=rate)
  config.model = dataclasses.replace(
    config.model,
    dim=96,
    num_heads=4,
    head_dim=24,
    mlp_dim=192,
    num_encoder_layers=4,
    shortener=shortener,
  )
  return config


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 600
) -> dict[str, float]:
  """Trains the three models; see the module."""
  configs = {
    'control': prepare('tiny_control', seed, steps),
    'mrt5': prepare('tiny', seed, steps),
    'random': prepare('tiny', seed, steps),
  }
  rows = {}
  for name, config in configs.items():
    if name == 'random':
      deleted = rows['mrt5']['deleted']
      config.model.shortener = shorteners.Random(mean=deleted)
    run = train.run(config, pathlib.Path(workdir) / name)
    rows[name] = run.metrics('eval/val')[-1]
  bpb = {name: row['bpb'] for name, row in rows.items()}
  return {
    'bpb_ratio': bpb['mrt5'] / bpb['control'],
    'random_less_mrt5': bpb['random'] - bpb['mrt5'],
    **{f'bpb_{name}': value for name, value in bpb.items()},
    'deleted': rows['mrt5']['deleted'],
    'deleted_random': rows['random']['deleted'],
    'longest_kept': rows['mrt5']['longest_kept'],
  }

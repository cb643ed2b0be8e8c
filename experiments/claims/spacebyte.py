# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Large blocks belong where words begin.

Slagle 2024, arXiv:2404.14408, at 1e19 FLOPs: SpaceByte needs fewer bits per
byte than byte models with units of fixed length (by 0.10 on PG-19), and far
fewer than a transformer over bytes.

Check: three models trained on Python's standard library with the same FLOPs,
1e12, and rows of 256 bytes: SpaceByte of 0.5 M parameters (width 128, local
width 64, room for one unit in six bytes), the same with a unit every six bytes,
and a flat transformer of width 64. Held-out files, all bytes of them: in
evaluation no unit is left out. What is compared is the effect itself; at so
small a scale the gain over the flat model need not be that of the paper.

The number of units that found no room in training is reported.
"""

import pathlib
from typing import Any

from experiments.byte_lm.configs import spacebyte, transformer
from jaxtok import train
from jaxtok.nn import segmenters

TITLE = 'SpaceByte'
PAPER = 'Slagle 2024, arXiv:2404.14408'
CLAIM = (
  'At equal FLOPs, global blocks at word starts need fewer bits per byte than '
  'at a fixed stride, and no more than a flat transformer over bytes.'
)
THRESHOLD = {
  'stride_less_spacelike': '>= 0.03',
  'flat_less_spacelike': '>= 0',
}
SEEDS = (0, 1, 2)


def prepare(config: Any, seed: int, flops: float) -> Any:
  """A run with the claim's budget, rows and evaluation."""
  config.seed, config.mesh.data = seed, 1
  config.data.seq_len, config.batch_size = 256, 8
  config.steps, config.train_flops = 100_000, flops
  config.optim.warmup_steps = 30
  config.log_every, config.checkpoint_every = 50, 100_000
  config.evals['val'].every_steps = 0
  config.evals['val'].max_bytes = 60_000
  return config


def measure(
  workdir: pathlib.Path, *, seed: int, flops: float = 1e12
) -> dict[str, float]:
  """Trains the three models; see the module."""
  configs = {
    'spacelike': spacebyte.get_config('tiny'),
    'stride': spacebyte.get_config('tiny'),
    'flat': transformer.get_config('tiny'),
  }
  configs['stride'].model.segmenter = segmenters.Stride(size=6)
  bpb, lost = {}, 0.0
  for name, config in configs.items():
    run = train.run(prepare(config, seed, flops), pathlib.Path(workdir) / name)
    bpb[name] = run.metrics('eval/val')[-1]['bpb']
    if name == 'spacelike':
      rows = run.metrics('train')
      lost = sum(row['lost_targets'] for row in rows) / len(rows)
  return {f'bpb_{name}': value for name, value in bpb.items()} | {
    'stride_less_spacelike': bpb['stride'] - bpb['spacelike'],
    'flat_less_spacelike': bpb['flat'] - bpb['spacelike'],
    'lost_targets': lost,
  }

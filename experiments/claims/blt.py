# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Patches belong where the next byte is hard to predict.

Pagnoni et al. 2024, arXiv:2412.09871, up to 8 billion parameters and 1 trillion
tokens: patches that end where a small language model's entropy of the next byte
is above a threshold scale better than patches of fixed length, and match BPE
models of the same FLOPs.

Check: on Python's standard library, rows of 256 bytes. A byte-level language
model (width 64, two layers) is trained with half of the budget below and then
not changed; the threshold is set so that its patches of training text have 4
bytes on average. Two BLTs of width 128 (bytes: 64) are trained with the same
FLOPs, 4e12: one with these patches, one with a patch every 4 bytes. Held-out
files: bits per byte. What is compared is the effect itself, at small scale.

The FLOPs are those of training the BLTs. In the one by entropy the language
model runs too, forward only: `patcher_to_model` says what that costs beside a
forward pass of the rest. The record was measured before the budget included it,
so patches by entropy had more than their share. Each model has room for the
patches it makes: of a fixed stride as many as there are, by entropy three in 10
bytes, as their number differs between rows; targets without room are reported.

Measured, patches by entropy lose 0.03 bits per byte in every seed. With a
quarter of the FLOPs, and room for one patch in 3 bytes, they lost 0.13: after
223 steps the language model's entropies hardly differed between bytes.
"""

import pathlib
from typing import Any

from experiments.byte_lm import entropy_patches
from experiments.byte_lm.configs import blt as config_lib
from experiments.claims import spacebyte
from jaxtok import train
from jaxtok.models import base, interop, patcher
from jaxtok.nn import ragged, segmenters

TITLE = 'BLT'
PAPER = 'Pagnoni et al. 2024, arXiv:2412.09871'
CLAIM = (
  'At equal FLOPs, patches that end where the next byte is hard to predict '
  'need fewer bits per byte than patches of four bytes.'
)
THRESHOLD = {'stride_less_entropy': '>= 0.02'}
SEEDS = (0, 1, 2)

_LENGTH = 4  # Bytes per patch.


def measure(
  workdir: pathlib.Path, *, seed: int, flops: float = 4e12
) -> dict[str, float]:
  """Trains the language model and both BLTs; see the module."""
  workdir = pathlib.Path(workdir)
  get = lambda size: config_lib.get_config(size)
  teacher = spacebyte.prepare(get('tiny_patcher'), seed, flops / 2)
  run = train.run(teacher, workdir / 'patcher')
  weights = str(workdir / 'weights')
  interop.save(run.model, weights, model_type='llama')
  limit = entropy_patches.threshold(run, _LENGTH)
  rules = {
    'entropy': patcher.Entropy(
      model=teacher.model,
      rule=segmenters.Entropy(threshold=limit),
      path=weights,
    ),
    'stride': segmenters.Stride(size=_LENGTH),
  }
  room = {'entropy': 0.3, 'stride': 1 / _LENGTH}
  bpb, found = {}, {}
  for name, rule in rules.items():
    config = spacebyte.prepare(get('tiny'), seed, flops)
    config.model.patcher = rule
    config.model.capacity = ragged.Capacity(policy='ratio', ratio=room[name])
    model = train.run(config, workdir / name)
    row = model.metrics('eval/val')[-1]
    bpb[name], found[f'units_{name}'] = row['bpb'], row['units_per_token']
    if name == 'entropy':
      rows = model.metrics('train')
      found['lost_targets'] = sum(r['lost_targets'] for r in rows) / len(rows)
      found['patcher_to_model'] = _cost(model.model, config)
  return {f'bpb_{name}': value for name, value in bpb.items()} | {
    'stride_less_entropy': bpb['stride'] - bpb['entropy'],
    'threshold': limit,
    **found,
  }


def _cost(model: Any, config: Any) -> float:
  parts = model.flops(base.Shape(b=1, t=config.data.seq_len))
  patching = parts.pop('patcher')
  return patching / sum(parts.values())

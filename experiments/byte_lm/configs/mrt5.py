# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MrT5: a ByT5 that deletes positions of its encoder (Kallini et al. 2025).

  python -m experiments.byte_lm --workdir=runs/mrt5 \\
      --config=experiments/byte_lm/configs/mrt5.py:tiny

The control is ByT5 with softmax1: `--config.model.shortener=None` does not work
from the command line, so it has sizes of its own: tiny_control and so on. With
`_scratch` behind a size scores of attention are penalised too, an option of the
paper's code for training from scratch.

Baselines in the place of the gate, half of the positions unless it says
otherwise: tiny_random and so on delete at random, _fixed the ends of words,
_boundaries pools what a predictor holds for units (a fifth of the positions),
_convolution pools four into one.

Half of the positions are to go, after a third of the steps without a penalty.
The controller's integral is faster than the paper's, whose runs are longer.
Sizes: tiny, quickstart, small, paper (ByT5-small, trained on from its weights,
which --init_from=FOLDER reads; the paper's batch, rows, steps and learning
rate).
"""

import copy
import dataclasses

from experiments import sizes
from experiments.byte_lm.configs import byt5
from jaxtok import train
from jaxtok.models import mrt5, transformer
from jaxtok.nn import pooling_shorteners, rate_control, shorteners
from jaxtok.train import optim

BASELINES = {
  'control': None,
  'random': shorteners.Random(),
  'fixed': shorteners.Fixed(),
  'boundaries': pooling_shorteners.Boundaries(),
  'convolution': pooling_shorteners.Convolution(),
}


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  size, kind = sizes.split(size, *BASELINES, 'scratch')
  config = byt5.get_config(size)
  rate = rate_control.PI(target=0.5)
  if size == 'paper':
    config.optim.schedule = optim.Schedule.LINEAR
    config.optim.final_ratio = 0.0
  else:
    rate = dataclasses.replace(rate, ki=1e-3, delay=config.steps // 3)
  fields = {
    f.name: getattr(config.model, f.name)
    for f in dataclasses.fields(transformer.Config)
  }
  config.model = mrt5.Config(
    **fields,
    shortener=copy.deepcopy(BASELINES.get(kind, shorteners.Gate(rate=rate))),
    score_weight=0.5 if kind == 'scratch' else 0.0,
    shorten_at=3 if size == 'paper' else 1,
  )
  return config

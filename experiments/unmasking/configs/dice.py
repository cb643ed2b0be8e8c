# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rolls of dice until a total is used up, decoded all at once.

arXiv:2512.09106 in its full-diffusion setting on a task that fits a laptop. A
policy is trained from random weights, first under a low speed pressure, until
it is right, then under higher ones. `small` goes on with the highest, in which
some policies find a way to decode in two or three calls, and ends with a low
one, which makes them right more often. docs/unmasking.md compares with cloned
rules and other ways to train.

  python -m experiments.unmasking --workdir=runs/dice \\
      --config=experiments/unmasking/configs/dice.py:tiny
"""

from experiments import sizes
from experiments.unmasking import denoiser, experiment, training
from jaxtok.diffusion import rl


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  return experiment.Config(
    denoiser=denoiser.Config(steps=sizes.pick(size, tiny=2500, small=5000)),
    policy=training.Config(
      clone=None,
      learn=rl.Config(steps=sizes.pick(size, tiny=200, small=600), lr=3e-3),
      alphas=sizes.pick(size, tiny=(0.4, 1.0, 3.0), small=(0.4, 8.0, 1.0)),
      num_starts=sizes.pick(size, tiny=1, small=4),
      num_chains=sizes.pick(size, tiny=1, small=3),
      start_steps=sizes.pick(size, tiny=200, small=300),
      temperatures=(0.25, 0.7),
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2, 3, 4)),
    temperatures=(0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4),
  )

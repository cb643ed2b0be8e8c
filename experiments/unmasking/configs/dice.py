# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rolls of dice until a total is used up, decoded all at once.

arXiv:2512.09106 in its full-diffusion setting on a task that fits a laptop.

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
      learn=rl.Config(steps=sizes.pick(size, tiny=60, small=100), lr=5e-4),
      alphas=(1.0, 2.0, 6.0),
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2, 3, 4)),
  )

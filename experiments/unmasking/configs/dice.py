# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rolls of dice until a total is used up, decoded all at once.

arXiv:2512.09106 in its full-diffusion setting on a task that fits a laptop.
docs/unmasking.md explains what keeps the training from collapsing under speed
pressure: a start that is not too sure, updates of bounded divergence, no credit
after the answer was wrong, many small steps of the pressure. The first stages
train a sure policy, the others a bolder one.

  python -m experiments.unmasking --workdir=runs/dice \\
      --config=experiments/unmasking/configs/dice.py:tiny
"""

from experiments import sizes
from experiments.unmasking import denoiser, experiment, training
from jaxtok.diffusion import cloning, rl


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  return experiment.Config(
    denoiser=denoiser.Config(steps=sizes.pick(size, tiny=2500, small=5000)),
    policy=training.Config(
      clone=cloning.Config(steps=600, batch_size=128, smoothing=0.02),
      learn=rl.Config(
        steps=sizes.pick(size, tiny=30, small=40),
        num_prompts=16,
        group=8,
        credit=rl.Credit.UNTIL_FAULT,
        lr=2e-3,
        max_kl=0.03,
        is_cosine=False,
        warmup_steps=10,
        weight_decay=0.0,
        clip_norm=1.0,
        max_calls=14,  # The cloned rule needs 12.
      ),
      alphas=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
      temperings=(0.67, 1.0, 1.0, 2.0, 1.0, 1.0),
      validate_every=10,
      temperatures=(0.25, 1.0),
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2, 3, 4)),
    temperatures=(0.1, 0.5, 1.0),
  )

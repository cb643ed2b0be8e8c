# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Free digits and verdicts on them, with the exact denoiser.

The fastest right decoding takes two calls; see jaxtok/tasks/free_choice.py.

  python -m experiments.unmasking --workdir=runs/free_choice \\
      --config=experiments/unmasking/configs/free_choice.py:tiny
"""

from experiments import sizes
from experiments.unmasking import experiment, training
from jaxtok.diffusion import cloning, returns, rl
from jaxtok.tasks import free_choice


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  return experiment.Config(
    task=free_choice.FreeChoice(),
    denoiser=None,
    policy=training.Config(
      # All steps, as when docs/claims/unmasking_optimum.json was measured.
      clone=cloning.Config(
        steps=400, batch_size=128, smoothing=0.02, until=0.0
      ),
      learn=rl.Config(
        steps=sizes.pick(size, tiny=60, small=100),
        num_prompts=8,
        group=16,
        credit=returns.Credit.UNTIL_FAULT,
        lr=3e-3,
        max_kl=0.05,
        is_cosine=False,
        warmup_steps=0,
        weight_decay=0.0,
        clip_norm=1.0,
      ),
      alphas=(2.0, 8.0),
      expert_threshold=0.5,
      num_validation=64,
      validate_every=10,
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2)),
  )

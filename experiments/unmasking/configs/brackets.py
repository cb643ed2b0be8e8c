# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Words of eight balanced brackets of three kinds, three quarters missing.

Most words can be completed in many ways: two holes that close each other may be
of any kind, but both of one. The answer repeats what is given.

docs/unmasking.md has what rules and the policy of `tiny` reach.

  python -m experiments.unmasking --workdir=runs/brackets \\
      --config=experiments/unmasking/configs/brackets.py:tiny
"""

from experiments import sizes
from experiments.unmasking import denoiser, experiment, training
from jaxtok.diffusion import rl
from jaxtok.tasks import brackets


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  return experiment.Config(
    task=brackets.Brackets(length=8, hole_share=0.75),
    denoiser=denoiser.Config(steps=sizes.pick(size, tiny=500, small=2500)),
    policy=training.Config(
      clone=None,
      learn=rl.Config(steps=sizes.pick(size, tiny=80, small=300), lr=3e-3),
      alphas=sizes.pick(size, tiny=(1.0, 4.0), small=(1.0, 4.0, 8.0)),
      temperatures=(0.25, 0.7),
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2)),
    num_test=sizes.pick(size, tiny=256, small=512),
    temperatures=(0.1, 0.25, 0.5, 0.7, 1.0),
  )

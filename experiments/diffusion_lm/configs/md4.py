# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MD4 over bytes: any schedule, here linear from eps.

Shi et al. 2024, arXiv:2406.04329.

  python -m experiments.diffusion_lm --workdir=runs/md4 \\
      --config=experiments/diffusion_lm/configs/md4.py:tiny

All else is as in mdlm.py. Sizes: tiny, quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.diffusion import md4


def get_config(size: str = 'small') -> train.Config:
  """An MD4 run of the given size."""
  config = mdlm.get_config(size)
  config.objective = md4.Config(mask_id=config.objective.mask_id)
  return config

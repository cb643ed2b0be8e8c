# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BD3-LM over bytes: autoregressive over blocks of 16, MDLM inside.

Arriola et al. 2025, arXiv:2503.09573.

  python -m experiments.diffusion_lm --workdir=runs/bd3lm \\
      --config=experiments/diffusion_lm/configs/bd3lm.py:tiny
  python -m experiments.diffusion_lm.sample runs/bd3lm --sampler=block

All else is as in mdlm.py, but a step reads each row twice and counts twice the
FLOPs. Sizes: tiny, quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.diffusion import bd3lm


def get_config(size: str = 'small') -> train.Config:
  """A BD3-LM run of the given size."""
  config = mdlm.get_config(size)
  config.objective = bd3lm.Config(mask_id=config.objective.mask_id)
  return config

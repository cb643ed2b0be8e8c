# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""GenMD4 over bytes: each byte has a masking rate, which is learned.

Shi et al. 2024, arXiv:2406.04329.

  python -m experiments.diffusion_lm --workdir=runs/genmd4 \\
      --config=experiments/diffusion_lm/configs/genmd4.py:tiny
  python -m experiments.diffusion_lm.sample runs/genmd4 --sampler=rates

All else is as in md4.py, but a step reads each row with two masks and counts
twice the FLOPs. Sizes: tiny, quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.diffusion import genmd4


def get_config(size: str = 'small') -> train.Config:
  """A GenMD4 run of the given size."""
  config = mdlm.get_config(size)
  mask_id = config.objective.mask_id
  config.model = genmd4.Model(inner=config.model, num_tokens=mask_id)
  config.objective = genmd4.Config(mask_id=mask_id)
  return config

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA's pre-training loss over bytes.

Nie et al. 2025, arXiv:2502.09992.

  python -m experiments.diffusion_lm --workdir=runs/llada \\
      --config=experiments/diffusion_lm/configs/llada.py:tiny

One batch of a hundred is cut to a random length, as in the paper. All else is
as in mdlm.py. Sizes: tiny, quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.diffusion import llada


def get_config(size: str = 'small') -> train.Config:
  """A LLaDA run of the given size."""
  config = mdlm.get_config(size)
  config.objective = llada.Config(
    mask_id=config.objective.mask_id, crop_rate=0.01
  )
  return config

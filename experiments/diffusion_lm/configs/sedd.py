# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SEDD-absorb over bytes: score entropy, unnormalised ratios.

Lou et al. 2023, arXiv:2310.16834.

  python -m experiments.diffusion_lm --workdir=runs/sedd \\
      --config=experiments/diffusion_lm/configs/sedd.py:tiny

All else is as in mdlm.py. Sizes: tiny, quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.diffusion import sedd


def get_config(size: str = 'small') -> train.Config:
  """A SEDD run of the given size."""
  config = mdlm.get_config(size)
  config.objective = sedd.Config(mask_id=config.objective.mask_id)
  return config

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Any-order bound over bytes: exactly k places masked, weight n/k.

Ou et al. 2024, arXiv:2406.03736.

  python -m experiments.diffusion_lm --workdir=runs/any_order \\
      --config=experiments/diffusion_lm/configs/any_order.py:tiny

All else is as in mdlm.py. Sizes: tiny, quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.diffusion import any_order


def get_config(size: str = 'small') -> train.Config:
  """An any-order run of the given size."""
  config = mdlm.get_config(size)
  config.objective = any_order.Config(mask_id=config.objective.mask_id)
  return config

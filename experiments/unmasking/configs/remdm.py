# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rules that mask the least probable tokens again, on the dice task.

Wang et al. 2025, arXiv:2503.00307 (ReMDM), in the form that fits selectors.

  python -m experiments.unmasking --workdir=runs/remdm \\
      --config=experiments/unmasking/configs/remdm.py:tiny

All else is as in dice.py. With `--config.remasks=1` a call that reveals two
tokens masks one again. For texts:
`python -m experiments.diffusion_lm.sample --sampler=remask`.
"""

from experiments.unmasking import experiment
from experiments.unmasking.configs import dice


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  config = dice.get_config(size)
  config.remasks = (1, 2)
  return config

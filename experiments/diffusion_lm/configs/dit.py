# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MDLM over bytes with a DiT that is told the time.

Sahoo et al. 2024, arXiv:2406.07524; Peebles and Xie 2022, arXiv:2212.09748.

  python -m experiments.diffusion_lm --workdir=runs/dit \\
      --config=experiments/diffusion_lm/configs/dit.py:tiny
  python -m experiments.diffusion_lm.sample runs/dit --sampler=timed

All else is as in mdlm.py, where the model is not told the time.
`--config.objective.is_timed=False` tells it time 0, as MDLM does. Sizes: tiny,
quickstart, small.
"""

from experiments.diffusion_lm.configs import mdlm
from jaxtok import train
from jaxtok.models import dit


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  config = mdlm.get_config(size)
  old = config.model
  config.model = dit.Config(
    vocab_size=old.vocab_size,
    dim=old.dim,
    num_layers=old.num_layers,
    num_heads=old.num_heads,
  )
  config.objective.is_timed = True
  return config

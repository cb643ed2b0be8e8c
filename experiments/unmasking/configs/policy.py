# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The policy at the paper's size (331,265 parameters) on the dice task.

arXiv:2512.09106: width 128, MLP 512, time features of one frequency. Ablations:
tiny_no_time, tiny_no_mask (and of small), without that input.

  python -m experiments.unmasking --workdir=runs/policy \\
      --config=experiments/unmasking/configs/policy.py:tiny
"""

from experiments import sizes
from experiments.unmasking import experiment
from experiments.unmasking.configs import dice
from jaxtok.diffusion import policy

_ABLATIONS = {'no_time': policy.Zeroed.TIME, 'no_mask': policy.Zeroed.MASK}


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  size, kind = sizes.split(size, *_ABLATIONS)
  config = dice.get_config(size)
  # The bias of an answer of 20 tokens, see policy.Config.bias.
  config.policy.model = policy.Config(
    bias=-1.0, zeroed=_ABLATIONS.get(kind, policy.Zeroed.NOTHING)
  )
  return config

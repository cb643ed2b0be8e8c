# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""diffu-GRPO on brackets with holes, or on sums.

Zhao et al. 2025, arXiv:2504.12216, from a denoiser of 1,000 supervised steps.
`tiny_addition` and `small_addition` are the sums.

  python -m experiments.denoiser_rl --workdir=runs/brackets \\
      --config=experiments/denoiser_rl/configs/diffu_grpo.py:tiny
"""

from experiments import sizes
from experiments.denoiser_rl import experiment
from experiments.unmasking import denoiser
from jaxtok.diffusion import diffu_grpo
from jaxtok.tasks import addition, brackets


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size, e.g. 'tiny' or 'tiny_addition'."""
  size, kind = sizes.split(size, 'addition')
  task = addition.Addition(num_digits=3) if kind else brackets.Brackets()
  return experiment.Config(
    task=task,
    denoiser=denoiser.Config(steps=1000),
    # Of short prompts 0.15 hides what decides the answer too often, and 16
    # prompts per batch make the gradient of so small a model noise.
    learn=diffu_grpo.Config(
      steps=sizes.pick(size, tiny=60, small=400),
      num_prompts=64,
      num_inner=2,
      prompt_mask_rate=0.05,
    ),
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""diffu-GRPO on brackets with holes, or on sums.

Zhao et al. 2025, arXiv:2504.12216, from a denoiser of 1,000 supervised steps.
`tiny_addition` and `small_addition` are the sums; tiny brackets are words of
16, small ones of 24.

  python -m experiments.denoiser_rl --workdir=runs/brackets \\
      --config=experiments/denoiser_rl/configs/diffu_grpo.py:tiny \\
      --config.learn.estimate=coupled

The estimate is the paper's if not told.
"""

from experiments import sizes
from experiments.denoiser_rl import experiment
from experiments.unmasking import denoiser
from jaxtok.diffusion import diffu_grpo
from jaxtok.tasks import addition, brackets


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size, e.g. 'tiny' or 'tiny_addition'."""
  size, kind = sizes.split(size, 'addition')
  if kind:
    task = addition.Addition(num_digits=3)
    steps = sizes.pick(size, tiny=600, small=2000)
  else:
    task = brackets.Brackets(length=sizes.pick(size, tiny=16, small=24))
    steps = sizes.pick(size, tiny=150, small=600)
  return experiment.Config(
    task=task,
    denoiser=denoiser.Config(steps=1000),
    learn=diffu_grpo.Config(
      steps=steps,
      # Of 16 prompts the gradient of so small a model is noise.
      num_prompts=64,
      num_inner=2,
      lr=1e-3,
      # Without one of its digits a sum cannot be known. Of short prompts, 0.15
      # hides what decides the answer too often.
      prompt_mask_rate=0.0 if kind else 0.05,
    ),
    validate_every=50,
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sudoku of 4 x 4 cells with as few clues as it can have: four to six.

One answer is right, so a perfect denoiser would write it in one call. That of
500 steps writes in the first call the cells that follow from the clues, and the
others when it reads those: calls buy thinking, where in `dice.py` they buy
agreement. No size trains it for longer, lest one call be enough. Measured in
docs/unmasking.md: the policy of `tiny` is no better than the best rules.

  python -m experiments.unmasking --workdir=runs/sudoku \\
      --config=experiments/unmasking/configs/sudoku.py:tiny
"""

from experiments import sizes
from experiments.unmasking import denoiser, experiment, training
from jaxtok.diffusion import rl
from jaxtok.tasks import sudoku


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  return experiment.Config(
    task=sudoku.Sudoku(min_clues=4, max_clues=4),
    denoiser=denoiser.Config(steps=500),
    policy=training.Config(
      clone=None,
      learn=rl.Config(steps=sizes.pick(size, tiny=80, small=300), lr=3e-3),
      alphas=sizes.pick(size, tiny=(1.0, 4.0), small=(1.0, 4.0, 8.0)),
      temperatures=(0.25, 0.7),
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2)),
    num_test=sizes.pick(size, tiny=256, small=512),
    temperatures=(0.1, 0.25, 0.5, 0.7, 1.0),
  )

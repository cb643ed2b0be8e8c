# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions whose answers a program checks, in place of dice.

  sudoku     4 x 4 cells with as few clues as can be: four to six
  brackets   words of eight of three kinds, three quarters missing
  addition   sums of two numbers of three digits
  countdown  a target from two or three numbers of at most five

A sudoku and a sum have one right answer, which a perfect denoiser would write
in one call. That of sudoku is not perfect and reads what it wrote: calls buy
thinking, where in `dice.py` they buy agreement; no size trains it for longer
than 500 steps, lest one call be enough. Words and equations can be completed in
many ways, of which one has to be agreed on; the answer repeats the brackets
that are given. On sums, as measured, calls buy nothing.

docs/unmasking.md has what rules and the policies of `tiny` reach.

  python -m experiments.unmasking --workdir=runs/sudoku \\
      --config=experiments/unmasking/configs/puzzles.py:tiny_sudoku
"""

from experiments import sizes
from experiments.unmasking import denoiser, experiment, training
from jaxtok.diffusion import rl
from jaxtok.tasks import addition, brackets, countdown, sudoku

# Supervised steps of tiny and small, and the task.
_TASKS = {
  'sudoku': (500, 500, sudoku.Sudoku(min_clues=4, max_clues=4)),
  'brackets': (500, 2500, brackets.Brackets(length=8, hole_share=0.75)),
  'addition': (1500, 4000, addition.Addition(num_digits=3)),
  'countdown': (
    2500,
    8000,
    countdown.Countdown(min_numbers=2, max_numbers=3, max_number=5),
  ),
}


def get_config(size: str = 'small_sudoku') -> experiment.Config:
  """An experiment, e.g. 'tiny_sudoku'; without a task, of sudoku."""
  size, kind = sizes.split(size, *_TASKS)
  few, many, task = _TASKS[kind or 'sudoku']
  return experiment.Config(
    task=task,
    denoiser=denoiser.Config(steps=sizes.pick(size, tiny=few, small=many)),
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

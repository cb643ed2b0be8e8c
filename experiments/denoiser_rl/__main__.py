# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a small denoiser on a task's answers, then on its verifier.

  python -m experiments.denoiser_rl --workdir=runs/brackets \\
      --config=experiments/denoiser_rl/configs/diffu_grpo.py:tiny

Supervised training first, then diffu-GRPO. Prints the share of right answers
to fixed prompts, sampled as in training and greedily, before, during and after,
and writes it to validation.json. A second call goes on where the first stopped:
supervised training is saved each 500 steps, the other at
each validation.
Sizes: tiny, small; with another task: tiny_addition, small_addition.
"""

from typing import Any

from experiments import cli
from experiments.denoiser_rl import experiment


def run(config: Any, workdir: str) -> None:
  """Runs what is missing, then shows what it did."""
  history = experiment.Experiment(config, workdir).run()
  first, last = history[0], history[-1]
  for name in ('sampled', 'greedy'):
    print(f'right, {name}: {first[name]:.3f} before, {last[name]:.3f} after')


if __name__ == '__main__':
  cli.main(__file__, __doc__, run)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains unmasking policies and compares them with every heuristic.

  python -m experiments.unmasking --workdir=runs/u \\
      --config=experiments/unmasking/configs/dice.py:tiny

Trains a denoiser, then policies at several speed pressures, then decodes the
same prompts with dense settings of every rule. Writes accuracy against denoiser
calls to frontier.md and frontier.png. A second call with the same config goes
on where the first stopped: after the last stage that left its file, and inside
a stage of training policies after its last validation (each
config.policy.validate_every updates), in that of the denoiser after
500 updates. What tests had decoded is decoded again.
"""

from typing import Any

from experiments import cli
from experiments.unmasking import experiment


def run(config: Any, workdir: str) -> None:
  """Runs what is missing, then shows the table."""
  outcome = experiment.Experiment(config, workdir).run()
  print('\n' + outcome.table())
  name, volume = outcome.best_rule()
  print(f'best rule by hypervolume: {name}, {volume:.3f}')


if __name__ == '__main__':
  cli.main(__file__, __doc__, run)

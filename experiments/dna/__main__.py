# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-trains a model of DNA and fine-tunes it on classification tasks.

  python -m experiments.dna --list
  python -m experiments.dna --workdir=runs/dnabert2 \\
      --config=experiments/dna/configs/dnabert2.py:tiny

Prints a table of scores (Matthews correlation) beside naive Bayes on 6-mers and
the same model without pre-training. The same command continues where it
stopped.
"""

from typing import Any

from experiments import cli
from experiments.dna import experiment


def run(config: Any, workdir: str) -> None:
  """Runs what is missing, then shows the table."""
  print('\n' + experiment.Experiment(config, workdir).run())


if __name__ == '__main__':
  cli.main(__file__, __doc__, run)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classifies programs with and without merged identifiers.

  python -m experiments.code --workdir=runs/code \\
      --config=experiments/code/configs/code_merge.py:tiny \\
      [--config.task.kind=defects] [--config.model.layer=2]

Trains the encoder without merging, with means, and with learned weights, and
writes a table, table.md.
"""

import dataclasses
import pathlib
from typing import Any

from experiments import cli
from experiments.code import training
from jaxtok.models import code_merge
from jaxtok.runs import files, table


def run(config: Any, workdir: str) -> None:
  """Trains the three models and shows the table."""
  rows, parts = [], training.data(config)
  for how in code_merge.How:
    model = dataclasses.replace(config.model, how=how)
    numbers = training.run(dataclasses.replace(config, model=model), parts)
    rows.append([how.value, *(f'{value:.4g}' for value in numbers.values())])
  text = table.markdown(('merging', *numbers), rows)
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  files.write_atomic(folder / 'table.md', text)
  print(text)


if __name__ == '__main__':
  cli.main(__file__, __doc__, run)

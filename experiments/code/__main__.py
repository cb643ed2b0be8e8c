# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classifies or translates programs with and without merged identifiers.

  python -m experiments.code --list
  python -m experiments.code --workdir=runs/code \\
      --config=experiments/code/configs/code_merge.py:tiny \\
      [--config.task.kind=defects] [--config.model.layer=2] \\
      [--config.hows="('none', 'average')"]
  python -m experiments.code --workdir=runs/translate \\
      --config=experiments/code/configs/code_translate.py:tiny \\
      [--config.task.kind=refinement]

Kinds of tasks: modules, defects, cloze (code_merge.py); java_cs, refinement,
concode, camel (code_translate.py); docs/code.md says what they are.

Trains the model without merging, with means, and with learned weights (hows),
and writes a table, table.md, and what each model says of the test, NAME.txt.
--config.init=FOLDER starts from a published model, such as CodeBERT.

The same command goes on with the models that are not finished; each is trained
in one go, so a stopped one begins anew.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from experiments import cli
from experiments.code import training, translation
from jaxtok import config as config_lib
from jaxtok.models import code_merge
from jaxtok.runs import files, table


def run(config: Any, workdir: str) -> None:
  """Trains the models, or those that are missing, and shows the table.

  Raises:
    ValueError: If `model.how` is given: each of `hows` takes its place.
  """
  if 'config.model.how' in flags.FLAGS:
    raise ValueError(
      '--config.model.how says nothing here: each of --config.hows is trained. '
      f"Use e.g. --config.hows=\"('none', '{config.model.how.value}')\"."
    )
  is_translation = isinstance(config, translation.Config)
  task, folder = translation if is_translation else training, _folder(workdir)
  results, parts = {}, None
  for name in config.hows:
    model = dataclasses.replace(config.model, how=code_merge.How(name))
    one = dataclasses.replace(config, model=model, hows=(name,))
    record = folder / f'{name}.json'
    numbers = _finished(record, one)
    if numbers is None:
      parts = parts or task.data(one)
      numbers = task.run(one, parts, folder / f'{name}.txt')
      stored = {'config': config_lib.to_dict(one), 'numbers': numbers}
      files.write_json(record, stored)
    else:
      print(f'{name}: finished before.')
    results[name] = numbers
  text = _table(results)
  files.write_atomic(folder / 'table.md', text)
  print('\n' + text)


def _folder(workdir: str) -> pathlib.Path:
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def _finished(path: pathlib.Path, config: Any) -> dict[str, float] | None:
  """The numbers of a model that was trained before.

  Raises:
    ValueError: If it was trained with another config.
  """
  if not path.exists():
    return None
  stored = files.read_json(path)
  changes = config_lib.diff(config_lib.from_dict(stored['config']), config)
  if changes:
    raise ValueError(
      f'{path} is of another config:\n{config_lib.format_diff(changes)}\n'
      'Choose another --workdir, or delete this one.'
    )
  return stored['numbers']


def _table(results: dict[str, dict[str, float]]) -> str:
  """The last column is empty if there is nothing to compare with."""
  base = results.get(code_merge.How.NONE.value)
  rows = []
  for name, numbers in results.items():
    saved = f'{1 - numbers["flops"] / base["flops"]:.1%}' if base else '-'
    rows.append([name, *(f'{x:.4g}' for x in numbers.values()), saved])
  return table.markdown(('merging', *numbers, 'flops_saved'), rows)


if __name__ == '__main__':
  cli.main(__file__, __doc__, run)

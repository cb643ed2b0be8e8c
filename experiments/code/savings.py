# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What merging saves in a model of CodeBERT's size, without training one.

  python -m experiments.code.savings --tokenizer=codebert-base

Cuts programs into the tokens of a vocabulary (tokenizer.json, or a folder with
it or with vocab.json and merges.txt), counts units, and prints the share of the
FLOPs that averaging saves, by the block before which it merges. Java is read
from the folder that JAXTOK_DATA names; functions of Python's standard library
need no data.
"""

import argparse
import os

from experiments import cli
from experiments.code import pairs, tasks
from jaxtok.models import base, code_merge, transformer
from jaxtok.runs import table
from jaxtok.tokenizers import code_units, hf

LAYERS = (0, 1, 6, 10, 11)
_LENGTH = 512  # Tokens of a program, two special ones included; else cut.


def count(
  tokenizer: hf.HfTokenizer, programs: list[bytes], language: str
) -> tuple[int, int]:
  """Tokens and units of all programs, two special tokens each included."""
  tokens = units = 0
  for program in programs:
    unit = code_units.units(tokenizer, program, language=language)[1]
    unit = unit[: _LENGTH - 2]
    tokens += len(unit) + 2
    units += int(unit.max(initial=-1)) + 1 + 2
  return tokens, units


def saved(tokens: int, units: int, layer: int) -> float:
  """Share of the FLOPs of a forward pass that averaging saves.

  Args:
    tokens: Of a program.
    units: Of a program.
    layer: Of the twelve; see `code_merge.Config`.
  """
  sizes = dict(dim=768, num_layers=12, num_heads=12, max_len=_LENGTH)
  config = code_merge.Config(
    encoder=transformer.Config.roberta(vocab_size=50_265, **sizes), layer=layer
  )
  shape = base.Shape(b=1, t=tokens)
  cost = lambda units: sum(config.flops(shape, units).values())
  return 1 - cost(units) / cost(tokens)


def _programs() -> dict[tuple[str, str], list[bytes]]:
  """Programs by what they are and their language."""
  functions = tasks.Config(kind='modules', num_examples=10**6).load(0)[0]
  found = {('Python, standard library', 'python'): functions}
  if os.environ.get('JAXTOK_DATA'):
    _, test = pairs.Config(num_test=0).load(0)
    found['Java, translation', 'java'] = [source for source, _ in test]
    found['C#, translation', 'csharp'] = [target for _, target in test]
    methods = tasks.Config(kind='defects', num_examples=10**6).load(0)[0]
    found['Java, defects', 'java'] = methods
  return found


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--tokenizer', required=True, help='file or folder')
  tokenizer = hf.Config(path=parser.parse_args().tokenizer).make()
  rows = []
  for (name, language), programs in _programs().items():
    tokens, units = count(tokenizer, programs, language)
    mean = [round(total / len(programs)) for total in (tokens, units)]
    shares = [f'{saved(*mean, layer):.1%}' for layer in LAYERS]
    row = [name, str(len(programs)), str(mean[0]), f'{units / tokens:.3f}']
    rows.append([*row, *shares])
  header = ['programs', 'number', 'tokens', 'units/token']
  print(table.markdown([*header, *map(str, LAYERS)], rows))


if __name__ == '__main__':
  with cli.one_line_errors():
    main()

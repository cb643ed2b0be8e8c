# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps what the suite has measured, and shows it in the docs.

  python -m experiments.byte_lm.record runs/suite [--name=suite]

Copies suite.json to docs/token_free_models/NAME.json and the picture to
docs/pictures/token_free_NAME.svg, and writes the tables of all such records
into docs/token_free_models.md, each between its two lines `<!-- NAME.json -->`
and `<!-- end of NAME.json -->`. Without a workdir only the page is written.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.byte_lm import scores
from jaxtok.runs import files

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
PAGE = 'token_free_models.md'
RECORDS = 'token_free_models'  # Folder of the records, beside the page.


def load(docs: pathlib.Path) -> dict[str, dict[str, Any]]:
  """All records, by name."""
  paths = sorted((docs / RECORDS).glob('*.json'))
  return {path.stem: files.read_json(path) for path in paths}


def render(page: str, records: Mapping[str, Mapping[str, Any]]) -> str:
  """The page with the tables of all records in their places.

  Raises:
    ValueError: If a record has no place, or a place no record.
  """
  places = {name: _markers(name) for name in records}
  for line in page.splitlines():
    if line.startswith('<!--') and line not in sum(places.values(), ()):
      raise ValueError(
        f'{PAGE} has a place for {line[4:-3].strip()}, which is not in '
        f'docs/{RECORDS}. Record it, or delete the line.'
      )
  for name, (first, last) in places.items():
    if page.count(f'{first}\n') != 1 or page.count(f'{last}\n') != 1:
      raise ValueError(
        f'{PAGE} must have a line {first!r} and a line {last!r} once each, '
        f'between which the table of docs/{RECORDS}/{name}.json goes.'
      )
    before, _, rest = page.partition(f'{first}\n')
    after = rest.partition(f'{last}\n')[2]
    page = f'{before}{first}\n{section(name, records[name])}{last}\n{after}'
  return page


def section(name: str, record: Mapping[str, Any]) -> str:
  """What the page says of a record: how it was made, table and picture."""
  found = scores.Scores.from_json(record['rows'])
  plan, made = record['plan'], record['made']
  seeds = ', '.join(map(str, found.seeds))
  limit = plan['max_bytes']
  text = f'{limit:,} bytes of each text' if limit else 'all held-out text'
  minutes = sum(one.seconds for one in found.members) / 60
  device = made['device']
  where = f'{device["devices"]} {device["kind"]}'
  if device['platform'] == 'cpu':
    where = f'{device["cores"]} CPU cores'
  models = ' --models=spans' if found.is_of_spans else ''
  return (
    f'`--size={plan["size"]} --budget={plan["budget"]:g}{models}`, '
    f'seed{"s" if "," in seeds else ""} {seeds}, {text}, {minutes:.0f} minutes '
    f'on {where} ([numbers]({RECORDS}/{name}.json)):\n\n{found.markdown()}\n'
    f'![Bits per byte, noise, two languages](pictures/{_picture(name)})\n'
  )


def keep(workdir: pathlib.Path, name: str, docs: pathlib.Path) -> None:
  """Copies the record and the picture of a workdir to the docs.

  Paths of texts are written without the folder `$JAXTOK_DATA`.
  """
  path = workdir / 'suite.json'
  try:
    record = files.read_json(path)
  except (OSError, ValueError):
    record = None
  if not isinstance(record, dict) or set(record) != {'plan', 'made', 'rows'}:
    raise ValueError(
      f'{path} is not there, or is not the record of a suite: call '
      f'`python -m experiments.byte_lm.suite --workdir={workdir}` first.'
    )
  if folder := os.environ.get('JAXTOK_DATA', '').rstrip('/'):
    plan = json.dumps(record['plan']).replace(f'"{folder}/', '"$JAXTOK_DATA/')
    record['plan'] = json.loads(plan)
  files.write_json(docs / RECORDS / f'{name}.json', record)
  shutil.copy(workdir / 'suite.svg', docs / 'pictures' / _picture(name))


def write(docs: pathlib.Path) -> pathlib.Path:
  """Writes the tables into the page; returns its path."""
  page = docs / PAGE
  files.write_atomic(page, render(page.read_text(), load(docs)))
  return page


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    if args.workdir:
      keep(pathlib.Path(args.workdir), args.name, DOCS)
    print(f'wrote {os.path.relpath(write(DOCS))}')
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def _markers(name: str) -> tuple[str, str]:
  return f'<!-- {name}.json -->', f'<!-- end of {name}.json -->'


def _picture(name: str) -> str:
  return f'token_free_{name}.svg'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.byte_lm.record',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('workdir', nargs='?', help='of the suite')
  add('--name', default='suite', help='of the record')
  return parser


if __name__ == '__main__':
  sys.exit(main())

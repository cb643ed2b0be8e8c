# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Says whether LLaDA-8B or Dream-7B fits into chips that are not here.

  python -m experiments.diffusion_lm.compile --model=llada_8b \\
      --topology=v5e:2x4 --cache=dual
  python -m experiments.diffusion_lm.compile --model=dream_7b \\
      --topology=h200 --program=likelihood --json=docs/diffusion/memory.json

Compiles the whole program for the topology, with shapes in place of weights:
`generate` decodes answers in blocks, one token per call of the model;
`likelihood` scores answers in one call. The parameters are split over the
devices by the library's rules. Needs the chip's compiler: `pip install libtpu`
for TPUs, `pip install 'jax[cuda13]'` for h200. Full sizes take minutes;
llada_tiny and dream_tiny are for trying.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import cli
from experiments.diffusion_lm import programs
from jaxtok.train import chips, report
from jaxtok.train.progress import duration, quantity

# What identifies a measurement in a file of them.
_KEY = ('topology', *(f.name for f in dataclasses.fields(programs.Config)))


def measure(config: programs.Config, topology: str) -> dict[str, Any]:
  """Compiles a program for a topology.

  Returns:
    The config's fields, and in bytes per device: `parameter_bytes`, the parts
    of `chips.MEMORY`, their sum `total`, `available`; `fits`. If the compiler
    refuses, `too_large` says why and there are no parts.

  Raises:
    ConfigError: If the topology is unknown or its compiler missing.
    ValueError: If the program cannot be compiled.
  """
  chip, layout = chips.check(topology)
  asked = dataclasses.asdict(config)
  found = chips.elsewhere(
    programs.__name__, {'config': asked, 'chip': chip, 'layout': layout}
  )
  if 'error' in found:
    raise ValueError(f'topology={topology}: {found["error"]}')
  return {'topology': topology} | asked | judged(topology, found)


def judged(topology: str, found: Mapping[str, Any]) -> dict[str, Any]:
  """Adds `available`, `total` and `fits` to what the compiler said."""
  chip = chips.CHIPS[chips.parse(topology)[0]]
  shared = chips.devices_per_chip(topology, found['devices'])
  more = {'available': chip.hbm_bytes // shared}
  if 'too_large' in found:
    return {**found, **more, 'fits': False}
  total = sum(found[part] for part in chips.MEMORY)
  return {**found, **more, 'total': total, 'fits': total <= more['available']}


def text(row: Mapping[str, Any]) -> str:
  """What is printed of a measurement."""
  mesh = ' '.join(f'{k}={v}' for k, v in row['mesh'].items())
  what = 'scores answers in one call'
  if row['program'] == 'generate':
    what = f'blocks of {row["block"]}, cache {row["cache"]}'
  facts = {
    'program': (
      f'{row["program"]} of {row["model"]}, {row["dtype"]}: {row["rows"]} x '
      f'({row["prompt"]} + {row["length"]}) tokens, {what}'
    ),
    'topology': (
      f'{row["topology"]}: {row["devices"]} x {row["device"]}, mesh {mesh}'
    ),
    'parameters': (
      f'{row["parameters"]:,}, {quantity(row["parameter_bytes"])} per device'
    ),
  }
  if row['unsharded']:
    facts['not split'] = (
      f'{len(row["unsharded"])} axes that do not divide, e.g. '
      f'{row["unsharded"][0]}'
    )
  if 'too_large' in row:
    facts['memory'] = row['too_large']
  else:
    facts['memory'] = chips.memory_line(row, row['available'])
  facts['fits'] = 'yes' if row['fits'] else 'no'
  facts['compiled'] = f'in {duration(row["seconds"])} by jax {row["jax"]}'
  return report.block(facts)


def store(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Adds a measurement to a JSON file, in place of an older one of its kind."""
  rows = json.loads(path.read_text()) if path.exists() else []
  key = lambda row: [row[name] for name in _KEY]
  rows = [old for old in rows if key(old) != key(row)] + [dict(row)]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(sorted(rows, key=key), indent=1) + '\n')


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Measurements as a Markdown table, in GB per device."""
  size = lambda num_bytes: f'{num_bytes / 1e9:.2f}'
  lines = [
    '| model | chips | program | parameters | arguments | temporary | output '
    '| code | total | of | fits |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for row in rows:
    cache = '' if row['cache'] == 'none' else f', {row["cache"]} cache'
    parts = [size(row['parameter_bytes'])]
    for name in ('arguments', 'temporary', 'outputs', 'code', 'total'):
      parts.append(size(row[name]) if name in row else 'too large')
    mesh = 'x'.join(str(n) for n in row['mesh'].values())
    cells = [
      row['model'],
      f'{row["topology"]}, mesh {mesh}',
      f'{row["program"]}{cache}',
      *parts,
      size(row['available']),
      'yes' if row['fits'] else 'no',
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


@cli.run_errors()
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.diffusion_lm.compile',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--topology', required=True, help='v5e:2x4, h200, ...')
  parser.add_argument('--json', default='', help='add the numbers to this file')
  for field in dataclasses.fields(programs.Config):
    parser.add_argument(
      f'--{field.name}', type=field.type, default=field.default
    )
  args = vars(parser.parse_args(argv))
  topology, path = args.pop('topology'), args.pop('json')
  row = measure(programs.Config(**args), topology)
  print(text(row))
  if path:
    store(pathlib.Path(path), row)
  return 0


if __name__ == '__main__':
  sys.exit(main())

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists runs: how far each one is, how good, and how it ended.

  python -m jaxtok.runs.summary [runs]

Looks for run directories in the given folders, at any depth.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from jaxtok.runs import run as run_lib
from jaxtok.runs import table

_HEADER = ('run', 'step', 'FLOPs', 'seconds', 'evals', 'state')


def summarize(runs: Sequence[run_lib.Run]) -> str:
  """A table with a row for each run."""
  return table.plain(_HEADER, [_row(run) for run in runs])


def find(folder: pathlib.Path) -> list[run_lib.Run]:
  """The runs in a folder, or the folder itself if it is one."""
  found = sorted(folder.glob('**/config.json'))
  return [run_lib.Run(path.parent) for path in found]


def _row(run: run_lib.Run) -> list[str]:
  meta, rows = run.meta, run.metrics()
  train = [row for row in rows if row['split'] == 'train']
  last = train[-1] if train else {}
  sessions = meta.get('sessions') or [{}]
  steps = meta.get('steps')
  return [
    str(run.workdir),
    f'{last.get("step", 0)}/{steps}' if steps else str(last.get('step', 0)),
    f'{last.get("flops", 0):.3g}',
    f'{last.get("seconds", 0):.0f}',
    _evals(rows),
    sessions[-1].get('exit') or 'running, or killed',
  ]


def _evals(rows: list[dict]) -> str:
  """Newest bits per byte of each eval, e.g. 'val 2.31'."""
  newest = {}
  for row in rows:
    for key, mark in (('bpb', ''), ('bpb_bound', '≤ ')):
      if row['split'].startswith('eval/') and key in row:
        name = row['split'].removeprefix('eval/')
        newest[name] = f'{name} {mark}{row[key]:.4f}'
  return ', '.join(newest.values()) or '-'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.runs.summary',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('folders', nargs='*', default=['runs'])
  folders = parser.parse_args(argv).folders
  runs = [run for folder in folders for run in find(pathlib.Path(folder))]
  if not runs:
    print(f'error: no runs in {", ".join(folders)}.', file=sys.stderr)
    return 1
  print(summarize(runs), end='')
  return 0


if __name__ == '__main__':
  sys.exit(main())

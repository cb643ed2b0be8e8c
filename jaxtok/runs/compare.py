# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sets runs beside each other at equal cost.

  python -m jaxtok.runs.compare runs/a runs/b --x=flops --y=eval/val/bpb

Prints a table and writes compare.svg, .png, .csv and .md. Runs whose configs
differ only in the seed become one row. The first run is the baseline. Values
at equal x are interpolated in log x between logged points and never
extrapolated; `-` means "not known". Runs that were evaluated on different text
are refused.
"""

import argparse
import csv
import dataclasses
import io
import math
import os
import pathlib
import sys
import textwrap
from collections.abc import Sequence

from jaxtok.runs import curves, files, groups, plots, table
from jaxtok.runs import run as run_lib

_UNITS = {
  'flops': 'FLOPs',
  'bytes': 'bytes',
  'tokens': 'tokens',
  'seconds': 's',
  'step': 'steps',
}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Methods side by side; printed and shown in a notebook as a table.

  Attributes:
    x: What is held equal, a key of `curves.X_LABELS`.
    y: Split and metric, e.g. 'eval/val/bpb'.
    methods: The first is the baseline.
    text: Which text `y` was measured on, as a sentence.
  """

  x: str
  y: str
  methods: Sequence[groups.Group]
  text: str

  def equal_x(self) -> list[float]:
    """A quarter, half and all of the largest x that every method covers."""
    low = max(group.low for group in self.methods)
    high = min(group.high for group in self.methods)
    if self.x == 'parameters' or low > high:
      return []
    return [x for x in (high / 4, high / 2, high) if x >= low]

  def header(self) -> list[str]:
    """Names of the table's columns."""
    key = self.y.rpartition('/')[2]
    unit = _UNITS.get(self.x, '')
    columns = [f'{key}@{_short(x)}' for x in self.equal_x()]
    if columns:
      columns.append(f'{unit} ratio')
    return [
      *('method', 'seeds', 'parameters', 'tok/byte'),
      *(columns or [f'final {key}']),
    ]

  def rows(self) -> list[list[str]]:
    """The table, a row per method."""
    return [self._row(group) for group in self.methods]

  def _row(self, group: groups.Group) -> list[str]:
    first = group.members[0]
    cells = [
      group.name,
      str(len(group.members)),
      f'{first.run.num_parameters:,}',
      _number(first.tokens_per_byte, 3),
    ]
    points = self.equal_x()
    if not points:
      return [*cells, _value(*group.final(), group.is_bound)]
    cells += [_value(*group.at(x), group.is_bound) for x in points]
    target, _ = self.methods[0].at(points[-1])
    sign, reached = group.reach(target)
    ratio = _number(reached / points[-1], 2)
    return [
      *cells,
      f'{sign} {ratio}x' if sign in '<>' and sign else f'{ratio}x',
    ]

  def notes(self) -> list[str]:
    """What a reader of the table must know."""
    notes = [self.text]
    if any(len(group.members) > 1 for group in self.methods):
      notes.append('± is the standard error of the mean over seeds.')
    if any(group.is_bound for group in self.methods):
      notes.append('≤ marks upper bounds: the likelihood is not exact.')
    if points := self.equal_x():
      unit = _UNITS[self.x]
      notes.append(
        f'{unit} ratio: {unit} that a method needs to be as good as '
        f'{self.methods[0].name} after {_short(points[-1])}, divided by that; '
        '> and < are bounds, where the point lies outside what was logged.'
      )
    elif self.x != 'parameters':
      notes.append(
        f'No {self.x} is covered by all runs, so none are held equal.'
      )
    return notes

  def title(self) -> str:
    """What is compared, e.g. 'bits per byte (eval/val) at equal FLOPs'."""
    against = 'at equal ' if self.equal_x() else 'against '
    return f'{plots.label_of(self.y)} {against}{curves.X_LABELS[self.x]}'

  def markdown(self) -> str:
    """The table with its notes."""
    body = table.markdown(self.header(), self.rows())
    notes = '\n'.join(f'- {note}' for note in self.notes())
    return f'# {self.title()}\n\n{body}\n{notes}'

  def csv(self) -> str:
    """All logged points, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    names = ['step', self.x, 'value', 'text_standard_error']
    writer.writerow(['method', 'run', 'seed', 'metric', *dict.fromkeys(names)])
    for group in self.methods:
      for c in group.members:
        seed = c.run.raw_config.get('seed', '')
        head = [group.name, os.fspath(c.run.workdir), seed, c.metric]
        columns = [c.step, c.y, c.error]
        if self.x != 'step':
          columns.insert(1, c.x)
        for point in zip(*columns, strict=True):
          cells = ['' if v != v else v.item() for v in point]
          writer.writerow([*head, *cells])
    return out.getvalue()

  def picture(self) -> plots.Picture:
    """The curves; seeds as a band."""
    lines = [(g.label, g.is_bound, *g.mean_curve()) for g in self.methods]
    return plots.comparison(self.x, self.y, lines)

  def save(self, folder: files.PathLike) -> list[pathlib.Path]:
    """Writes compare.svg, .png, .csv and .md; returns their paths."""
    folder = pathlib.Path(folder)
    paths = self.picture().save(folder / 'compare')
    texts = {'csv': self.csv(), 'md': self.markdown() + '\n'}
    for kind, text in texts.items():
      paths.append(folder / f'compare.{kind}')
      files.write_atomic(paths[-1], text)
    return paths

  def __str__(self) -> str:
    body = table.plain(self.header(), self.rows())
    notes = '\n'.join(textwrap.fill(note, 79) for note in self.notes())
    return f'{self.title()}\n\n{body}\n{notes}'

  def _repr_markdown_(self) -> str:
    return self.markdown()


def compare(
  runs: Sequence[run_lib.Run | files.PathLike],
  x: str = 'flops',
  y: str = 'eval/val/bpb',
) -> Comparison:
  """Compares runs.

  Args:
    runs: Runs or their directories, the baseline first.
    x: What is held equal: flops, bytes, tokens, seconds, step; or parameters,
      which compares the last values.
    y: Split and metric.

  Raises:
    FileNotFoundError: If a directory holds no run.
    ValueError: If a run lacks the metric, or texts differ.
  """
  if not runs:
    raise ValueError('no runs were given; name at least one directory.')
  loaded = [
    run if isinstance(run, run_lib.Run) else run_lib.load(run) for run in runs
  ]
  for run in loaded:
    curves.load(run, x, y)  # A run that lacks the metric is named first.
  if y.startswith('train/'):
    text = None
    note = 'Measured on training batches, which may differ between runs.'
  else:
    text = _common_text(loaded, y)
    note = f'Measured on {_describe(text)}.'
    if text[0] is None:
      note = f'{y} does not record its text; nothing was checked.'
  members = [curves.load(run, x, y, text) for run in loaded]
  return Comparison(x, y, groups.make(members), note)


def _common_text(runs: Sequence[run_lib.Run], y: str) -> curves.Text:
  """The newest text on which all of the runs were evaluated."""
  texts = [curves.texts_of(run, y) for run in runs]
  for text in reversed(texts[0]):
    if all(text in others for others in texts):
      return text
  lines = [
    f'{run.workdir} on {" and ".join(map(_describe, found))}'
    for run, found in zip(runs, texts, strict=True)
  ]
  raise ValueError(
    f'{y} was measured on different text: {"; ".join(lines)}. Only numbers on '
    'the same text can be compared: evaluate the runs with the same data '
    'source, split and max_bytes (--eval_only adds an evaluation to a finished '
    'run).'
  )


def _describe(text: curves.Text) -> str:
  corpus, num_bytes = text
  if corpus is None or num_bytes is None:
    return 'text it did not record'
  return f'{num_bytes:,} bytes of text {corpus}'


def _short(x: float) -> str:
  """E.g. '3e12', '7.5e11', '1500'."""
  if x < 1e5:
    return f'{x:.4g}'
  mantissa, exponent = f'{x:.2e}'.split('e')
  return f'{float(mantissa):g}e{int(exponent)}'


def _number(x: float, digits: int) -> str:
  return '-' if math.isnan(x) else f'{x:.{digits}f}'


def _value(mean: float, error: float, is_bound: bool) -> str:
  if math.isnan(mean):
    return '-'
  text = f'{"≤ " if is_bound else ""}{mean:.4f}'
  return text if math.isnan(error) else f'{text} ± {error:.4f}'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    found = compare(args.runs, args.x, args.y)
    print(found)
    folder = args.out or os.path.commonpath(
      [os.path.dirname(os.path.abspath(run)) for run in args.runs]
    )
    for path in found.save(folder):
      print(f'wrote {os.path.relpath(path)}')
  except (ValueError, OSError, ImportError) as error:
    if args.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok.runs.compare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('runs', nargs='+', help='run directories, the baseline first')
  add('--x', default='flops', help=f'one of {", ".join(curves.X_LABELS)}')
  add('--y', default='eval/val/bpb', help='split and metric')
  add('--out', help='folder for the files; default: where the runs are')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


if __name__ == '__main__':
  sys.exit(main())

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The table and the picture that the suite ends with."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtok import runs
from jaxtok.runs import compare, curves, files, groups, plots, table

_Y = 'eval/val/bpb'
# Column, and where its number is in a row's `found`: stage, key.
_COLUMNS = (
  ('parameters', 'model', 'parameters'),
  ('bpb', 'model', 'bpb'),
  ('bytes/position', 'model', 'bytes_per_position'),
  ('FLOPs/byte', 'model', 'flops_per_byte'),
  ('bytes/s written', 'speed', 'bytes_per_second'),
  ('+ case', 'noise', 'case'),
  ('+ typos', 'noise', 'typo'),
  ('+ spaces', 'noise', 'spaces'),
  ('2nd before', 'adapted', 'second_before'),
  ('2nd after', 'adapted', 'second_after'),
  ('1st after', 'adapted', 'first_after'),
)
_WHOLE = ('parameters', 'flops_per_byte', 'bytes_per_second')
_NOTES = (
  'bpb: bits per byte of held-out text; every model has had the same training '
  'FLOPs. ± is the standard error over seeds.',
  'bytes/position: bytes of text per position of the trunk. FLOPs/byte: of a '
  'forward pass. bytes/s written: greedy, 8 prompts at once, without '
  'compilation.',
  '+ case, + typos, + spaces: rise of bpb when 10 % of the letters change '
  'case, become another letter, or 10 % of the spaces are missing; per byte of '
  'the text as it then is.',
  '2nd, 1st: bpb of the second and the first language, before and after '
  'further training on the second for a quarter of the budget.',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """What was measured of one model and seed.

  Attributes:
    name: Of the model.
    seed: Of the run.
    run: The run on the first text.
    found: Numbers by stage; see `suite`.
  """

  name: str
  seed: int
  run: runs.Run
  found: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Everything that was measured; printed, it is the table."""

  rows: Sequence[Row]

  def __post_init__(self):
    # Refuses runs that were evaluated on different text.
    compare.compare([row.run for row in self.rows], x='flops', y=_Y)

  @property
  def names(self) -> list[str]:
    """The models, in order."""
    return list(dict.fromkeys(row.name for row in self.rows))

  def value(self, name: str, stage: str, key: str) -> tuple[float, float]:
    """Mean over the seeds of a model and its standard error; nan: unknown."""
    members = [row.found for row in self.rows if row.name == name]
    values = [found.get(stage, {}).get(key, math.nan) for found in members]
    if stage == 'noise':  # The rise.
      values = [
        value - found['model']['bpb']
        for value, found in zip(values, members, strict=True)
      ]
    error = math.nan
    if len(values) > 1:
      error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    return float(np.mean(values)), error

  def cells(self) -> list[list[str]]:
    """The table, a row per model."""
    return [
      [
        name,
        *(
          _number(key, *self.value(name, stage, key))
          for _, stage, key in _COLUMNS
        ),
      ]
      for name in self.names
    ]

  def markdown(self) -> str:
    """The table with its notes."""
    notes = '\n'.join(f'- {note}' for note in _NOTES)
    return f'{table.markdown(_header(), self.cells())}\n{notes}\n'

  def picture(self) -> plots.Picture:
    """Bits per byte against FLOPs; the rise by noise; both languages."""
    with plots.style():
      axes = plots.panels(3, height=4.2)
      self._draw_curves(axes[0])
      self._draw_bars(
        axes[1],
        'rise of bits per byte by noise',
        {label: ('noise', key) for label, _, key in _COLUMNS[5:8]},
      )
      self._draw_bars(
        axes[2],
        'bits per byte of two languages',
        {
          '1st before': ('model', 'bpb'),
          **{label: (stage, key) for label, stage, key in _COLUMNS[8:]},
        },
      )
      return plots.Picture(axes[0].figure)

  def save(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes suite.md, .json, .svg and .png; returns their paths."""
    stem = pathlib.Path(folder) / 'suite'
    paths = [stem.with_suffix('.md'), stem.with_suffix('.json')]
    files.write_atomic(paths[0], self.markdown())
    files.write_json(
      paths[1],
      [{'model': row.name, 'seed': row.seed, **row.found} for row in self.rows],
    )
    return [*paths, *self.picture().save(stem)]

  def __str__(self) -> str:
    return table.plain(_header(), self.cells())

  def _draw_curves(self, axis: Any) -> None:
    for name in self.names:
      members = [row.run for row in self.rows if row.name == name]
      group = groups.Group(name, [curves.load(r, 'flops', _Y) for r in members])
      xs, ys, _ = group.mean_curve()
      axis.plot(xs, ys, marker='o', label=name)
    axis.set_xscale('log')
    axis.set_xlabel('training FLOPs')
    axis.set_ylabel('bits per byte (held-out text)')
    _legend(axis)

  def _draw_bars(
    self, axis: Any, label: str, wanted: Mapping[str, tuple[str, str]]
  ) -> None:
    """Groups of bars: a group per model, a bar per number."""
    places, width = np.arange(len(self.names)), 0.8 / len(wanted)
    for i, (name, (stage, key)) in enumerate(wanted.items()):
      values = [self.value(model, stage, key)[0] for model in self.names]
      at = places + (i - (len(wanted) - 1) / 2) * width
      axis.bar(at, np.nan_to_num(values), width, label=name)
    axis.set_xticks(places, self.names, rotation=45, ha='right')
    axis.set_ylabel(label)
    _legend(axis)


def _legend(axis: Any) -> None:
  """Above the axes, where it hides nothing."""
  axis.legend(
    fontsize=8, ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0)
  )


def line(numbers: Mapping[str, float]) -> str:
  """Numbers of a stage on one line."""
  cells = (
    f'{key} {_number(key, value, math.nan)}' for key, value in numbers.items()
  )
  return '  '.join(cells)


def _header() -> list[str]:
  return ['model', *(label for label, *_ in _COLUMNS)]


def _number(key: str, mean: float, error: float) -> str:
  show: Callable[[float], str] = (
    (lambda x: f'{x:,.0f}') if key in _WHOLE else (lambda x: f'{x:.3f}')
  )
  if math.isnan(mean):
    return '-'
  return show(mean) if math.isnan(error) else f'{show(mean)} ± {show(error)}'

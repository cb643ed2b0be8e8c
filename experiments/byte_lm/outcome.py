# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the suite ends with: the table, its record, and the picture."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.byte_lm import scores as scores_lib
from jaxtok import runs
from jaxtok.runs import compare, curves, files, groups, meta, plots

_Y = 'eval/val/bpb'
_FAR = 1.5  # Times the best model's bits per byte at the end.


@dataclasses.dataclass(frozen=True)
class Row(scores_lib.Score):
  """The numbers of one model and seed, and where they come from.

  Attributes:
    run: The run on the first text.
  """

  run: runs.Run


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Everything that was measured; printed, it is the table.

  Attributes:
    rows: One for each model and seed.
    plan: What they are of; `facts` of `plan.Plan`.
  """

  rows: Sequence[Row]
  plan: Mapping[str, Any]

  def __post_init__(self):
    # Refuses runs that were evaluated on different text.
    compare.compare([row.run for row in self.rows], x='flops', y=_Y)

  @property
  def scores(self) -> scores_lib.Scores:
    """The numbers."""
    return scores_lib.Scores(self.rows)

  def record(self) -> dict[str, Any]:
    """The numbers and how they were made, as JSON."""
    sessions = [s for row in self.rows for s in row.run.meta['sessions']]
    states = [session['git'] or {} for session in sessions]
    commits = {state.get('commit') or 'unknown' for state in states}
    return {
      'plan': dict(self.plan),
      'made': {
        'finished': meta.now(),
        'commits': sorted(commits),
        'has_uncommitted_changes': any(state.get('diff') for state in states),
        'versions': meta.versions(),
        'device': meta.device() | {'cores': os.cpu_count()},
      },
      'rows': self.scores.to_json(),
    }

  def picture(self) -> plots.Picture:
    """Bits per byte against FLOPs; the rise by noise; both languages."""
    with plots.style():
      axes = plots.panels(3, height=4.2)
      self._draw_curves(axes[0])
      self._draw_bars(
        axes[1],
        'rise of bits per byte by noise',
        _of('noise'),
      )
      self._draw_bars(
        axes[2],
        'bits per byte of two languages',
        {'1st before': ('model', 'bpb')} | _of('adapted'),
      )
      return plots.Picture(axes[0].figure)

  def save(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes suite.md, .json, .svg and .png; returns their paths."""
    stem = pathlib.Path(folder) / 'suite'
    paths = [stem.with_suffix('.md'), stem.with_suffix('.json')]
    files.write_atomic(paths[0], self.scores.markdown())
    files.write_json(paths[1], self.record())
    return [*paths, *self.picture().save(stem)]

  def __str__(self) -> str:
    return str(self.scores)

  def _draw_curves(self, axis: Any) -> None:
    """Bits per byte; models far from the best are named, but out of sight."""
    found = {name: self._curve(name) for name in self.scores.names}
    limit = _FAR * min(ys[-1] for _, ys in found.values())
    for name, (xs, ys) in found.items():
      label = name if ys[-1] <= limit else f'{name} (ends at {ys[-1]:.1f})'
      axis.plot(xs, ys, marker='o', label=label)
    seen = np.concatenate([ys for _, ys in found.values() if ys[-1] <= limit])
    margin = 0.05 * np.ptp(seen) or 0.1
    axis.set_ylim(seen.min() - margin, seen.max() + margin)
    axis.set_xscale('log')
    axis.set_xlabel('training FLOPs')
    axis.set_ylabel('bits per byte (held-out text)')
    _legend(axis)

  def _curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs, those of a patcher included, and the mean over seeds."""
    members = [row.run for row in self.rows if row.name == name]
    group = groups.Group(name, [curves.load(r, 'flops', _Y) for r in members])
    xs, ys, _ = group.mean_curve()
    before, _ = self.scores.value(name, 'patcher', 'flops')
    return xs + np.nan_to_num(before), ys

  def _draw_bars(
    self, axis: Any, label: str, wanted: Mapping[str, tuple[str, str]]
  ) -> None:
    """Groups of bars: a group per model, a bar per number that is known."""
    models = self.scores.names
    value = lambda *place: [self.scores.value(m, *place)[0] for m in models]
    found = {name: value(*place) for name, place in wanted.items()}
    found = {k: v for k, v in found.items() if not np.isnan(v).all()}
    places, width = np.arange(len(models)), 0.8 / len(found)
    for i, (name, values) in enumerate(found.items()):
      at = places + (i - (len(found) - 1) / 2) * width
      axis.bar(at, np.nan_to_num(values), width, label=name)
    axis.set_xticks(places, models, rotation=45, ha='right')
    axis.set_ylabel(label)
    _legend(axis)


def _legend(axis: Any) -> None:
  """Above the axes, where it hides nothing."""
  axis.legend(
    fontsize=8, ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0)
  )


def _of(wanted: str) -> dict[str, tuple[str, str]]:
  """The numbers of a stage, by the head of their column."""
  return {
    label: (stage, key)
    for label, stage, key in scores_lib.COLUMNS
    if stage == wanted
  }

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Accuracy against calls of every method: numbers, table and picture."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.unmasking import selection
from jaxtok.evals import pareto
from jaxtok.runs import files, plots

Points = list[pareto.Point]
LEARNED = 'learned'
_COLUMNS = (
  'method',
  'setting',
  'accuracy',
  'low',
  'high',
  'calls',
  'written_per_call',
  'processed_per_row',
)
_COUNT = 'count of '  # Key of how often each prompt occurs.


@dataclasses.dataclass
class Outcome:
  """The points of the rules, and those of the policies by seed.

  Attributes:
    rules: Name of a rule to the points of its settings.
    learned: Seed to the points of its policies.
    max_calls: Calls at which the hypervolume ends: the answer's length.
  """

  rules: dict[str, Points]
  learned: dict[int, Points]
  max_calls: int

  def volume(self, points: Points) -> float:
    return pareto.hypervolume(points, self.max_calls)

  def best_rule(self) -> tuple[str, float]:
    """The rule of the largest hypervolume; the oracle is not one."""
    volumes = {
      name: self.volume(points)
      for name, points in self.rules.items()
      if name != selection.ORACLE
    }
    best = max(volumes, key=volumes.__getitem__)
    return best, volumes[best]

  def all_rules(self) -> Points:
    """Points of all rules but the oracle."""
    return [
      point
      for name, points in self.rules.items()
      if name != selection.ORACLE
      for point in points
    ]

  def rows(self) -> list[list[str]]:
    """One row per rule and seed: volume, and accuracy at some budgets."""
    named = dict(self.rules)
    for seed, points in self.learned.items():
      named[f'{LEARNED}, seed {seed}'] = points
    return [self._row(name, points) for name, points in named.items()]

  def _row(self, name: str, points: Points) -> list[str]:
    low, high = pareto.hypervolume_interval(points, self.max_calls)
    found = [pareto.best_within(points, n) for n in self.budgets()]
    best = pareto.front(points)[-1]
    good = [p for p in pareto.front(points) if p.accuracy >= 0.97]
    return [
      name,
      f'{self.volume(points):.3f} [{low:.3f}, {high:.3f}]',
      *(f'{p.accuracy:.2f}' if p else '-' for p in found),
      f'{good[0].calls:.1f}' if good else '-',
      f'{best.accuracy:.2f} [{best.interval[0]:.2f}, {best.interval[1]:.2f}] '
      f'at {best.calls:.1f}',
    ]

  def budgets(self) -> list[float]:
    """Shares of the answer's length, in calls."""
    return [self.max_calls * share for share in (0.15, 0.25, 0.35, 0.475, 0.75)]

  def table(self) -> str:
    """Markdown."""
    header = ['method', 'hypervolume [95 %]']
    header += [f'at {n:g} calls' for n in self.budgets()]
    header += ['calls for 0.97', 'best [95 %]']
    lines = [header, ['---'] * len(header), *self.rows()]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'

  def points_csv(self, row_len: int) -> str:
    """All points: accuracy with its interval, calls and what they amount to.

    Args:
      row_len: Tokens of a prompt and its answer, which a call processes.
    """
    named = dict(self.rules)
    named |= {f'{LEARNED}, seed {s}': x for s, x in self.learned.items()}
    out = io.StringIO()
    table = csv.writer(out, lineterminator='\n')
    table.writerow(_COLUMNS)
    for name, points in named.items():
      for p in points:
        numbers = [p.accuracy, *p.interval, p.calls]
        numbers += [self.max_calls / p.calls, row_len * p.calls]
        table.writerow([name, p.name, *(f'{x:.5g}' for x in numbers)])
    return out.getvalue()

  def picture(self, title: str) -> plots.Picture:
    """Fronts of the rules as lines, of each seed's policies as thick dots."""
    with plots.style():
      axes = plots.panels(1, 4.2)[0]
      axes.figure.set_size_inches(7.2, 4.2)
      for name, points in self.rules.items():
        kept = pareto.front(points)
        look = dict(label=name)
        if name == selection.ORACLE:
          label = 'margin to one right answer (no bound)'
          look = dict(label=label, linestyle='--', color='#999999')
        # To the right: more calls than the best setting needs do no harm.
        axes.plot(
          [*(p.calls for p in kept), self.max_calls],
          [*(p.accuracy for p in kept), kept[-1].accuracy],
          drawstyle='steps-post',
          linewidth=1.2,
          **look,
        )
      num = len(self.learned)
      pooled = [p for x in self.learned.values() for p in pareto.front(x)]
      axes.plot(
        [p.calls for p in pooled],
        [p.accuracy for p in pooled],
        linestyle='',
        marker='o',
        color='#d62728',
        markeredgecolor='#ffffff',
        markersize=7,
        label=f'{LEARNED} ({num} seed{"s"[: num > 1]})',
      )
      axes.set_xlabel('denoiser calls (NFE)')
      axes.set_ylabel('accuracy')
      axes.set_xlim(0, self.max_calls + 0.5)
      axes.set_ylim(0, 1.03)
      axes.set_title(title, loc='left')
      axes.legend(loc='center left', bbox_to_anchor=(1.0, 0.5))
      return plots.Picture(axes.figure)


def save_points(path: pathlib.Path, named: dict[str, Points]) -> None:
  """Writes the points of several methods to one .npz file."""
  arrays = {}
  for name, points in named.items():
    for point in points:
      key = f'{name}|{point.name}'
      arrays[key] = np.stack([point.right_pd, point.cost_pd])
      arrays[_COUNT + key] = point.counts
  files.write_npz(path, arrays)


def load_points(path: pathlib.Path) -> dict[str, Points]:
  """What `save_points` wrote.

  Raises:
    ValueError: If the file is empty, cut short or something else.
  """
  named: dict[str, Points] = {}
  mend = 'Delete it, and the points are measured again.'
  stored = files.read_npz(path, mend)
  for key in stored:
    if key.startswith(_COUNT):
      continue
    name, _, setting = key.partition('|')
    if _COUNT + key not in stored:
      raise ValueError(
        f'{path} holds no points, or those of an older version. {mend}'
      )
    point = pareto.Point(setting, *stored[key], stored[_COUNT + key])
    named.setdefault(name, []).append(point)
  return named


def dominating(points: Sequence[pareto.Point], rivals: Points) -> Points:
  """The points that surely beat every rival that costs no more."""
  return [p for p in points if pareto.dominates(p, rivals)]

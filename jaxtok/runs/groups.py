# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of one method with different seeds, taken together."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence

import numpy as np

from jaxtok.runs import curves
from jaxtok.runs import run as run_lib

# Metrics of which more is better; of all others less is.
HIGHER_IS_BETTER = ('accuracy',)


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs whose configs differ only in the seed.

  Attributes:
    name: What they are called in tables.
    members: A curve for each of them.
  """

  name: str
  members: Sequence[curves.Curve]

  @property
  def label(self) -> str:
    """The name with the number of seeds, if there are several."""
    seeds = len(self.members)
    return f'{self.name} ({seeds} seeds)' if seeds > 1 else self.name

  @property
  def is_bound(self) -> bool:
    """Whether some values are bounds."""
    return any(curve.is_bound for curve in self.members)

  @property
  def low(self) -> float:
    """The least x that all members cover; inf if there is none."""
    return max(c.x[0] if len(c.x) else math.inf for c in self.members)

  @property
  def high(self) -> float:
    """The largest x that all members cover."""
    return min(c.x[-1] if len(c.x) else -math.inf for c in self.members)

  def at(self, x: float) -> tuple[float, float]:
    """Mean over seeds at x and its standard error; nan where unknown."""
    return _mean([curve.at(x) for curve in self.members])

  def final(self) -> tuple[float, float]:
    """Mean of the last logged values and its standard error."""
    return _mean([c.y[-1] if len(c.y) else math.nan for c in self.members])

  def mean_curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x where any member was logged and all cover; mean y; its error."""
    xs = np.unique(np.concatenate([curve.x for curve in self.members]))
    xs = xs[(xs >= self.low) & (xs <= self.high)]
    points = [self.at(x) for x in xs]
    ys, errors = np.array(points).reshape(-1, 2).T
    return xs, ys, errors

  def reach(self, target: float) -> tuple[str, float]:
    """The least x at which the mean is as good as `target`.

    Returns:
      ('=', x); or a bound: ('>', last x) if it never is, ('<', first x) if it
      always was; or ('', nan) if nothing is known.
    """
    xs, ys, _ = self.mean_curve()
    if not len(xs) or math.isnan(target):
      return '', math.nan
    key = self.members[0].metric.rpartition('/')[2]
    sign = -1.0 if key in HIGHER_IS_BETTER else 1.0
    over = sign * (ys - target)
    reached = np.flatnonzero(over <= 0)
    if not len(reached):
      return '>', float(xs[-1])
    i = int(reached[0])
    if over[i] == 0:
      return '=', float(xs[i])
    if i == 0:
      return '<', float(xs[0])
    share = over[i - 1] / (over[i - 1] - over[i])
    low, high = np.log(xs[i - 1 : i + 1])
    return '=', float(np.exp(low + share * (high - low)))


def _mean(values: Sequence[float]) -> tuple[float, float]:
  mean = float(np.mean(values))
  if len(values) == 1:
    return mean, math.nan
  return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))


def make(members: Sequence[curves.Curve]) -> list[Group]:
  """Groups curves by config without seed, in order of first appearance.

  A second run of the same config and seed (say, of changed code) is another
  draw of nothing, so it starts a group of its own.
  """
  found: dict[tuple[str, int], list[curves.Curve]] = {}
  for curve in members:
    config = curve.run.raw_config
    key = json.dumps(config | {'seed': None}, sort_keys=True)
    seed, copy = config.get('seed'), 0
    while seed in [
      c.run.raw_config.get('seed') for c in found.get((key, copy), [])
    ]:
      copy += 1
    found.setdefault((key, copy), []).append(curve)
  names = _names([curve.run for curve in members])
  return [
    Group(_join([names[id(c.run)] for c in same]), same)
    for same in found.values()
  ]


def _names(runs: Sequence[run_lib.Run]) -> dict[int, str]:
  """The shortest ends of the runs' paths that tell all of them apart."""
  paths = [os.path.normpath(os.fspath(run.workdir)) for run in runs]
  parts = [path.split(os.sep) for path in paths]
  for length in range(1, max(map(len, parts), default=0) + 1):
    short = [os.sep.join(p[-length:]) for p in parts]
    if len(set(short)) == len(set(paths)):
      break
  return {id(run): name for run, name in zip(runs, short, strict=True)}


def _join(names: Sequence[str]) -> str:
  """What several names begin with, e.g. 'mrt5' of mrt5-0, mrt5-1."""
  if len(names) == 1:
    return names[0]
  length = 0
  while len({name[: length + 1] for name in names}) == 1:
    length += 1
  return names[0][:length].rstrip('-_./ ') or names[0]

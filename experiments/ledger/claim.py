# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A claim: what is said, when it counts as reproduced, and what was measured.

A claim file `experiments/claims/<method>.py` has a docstring (paper, the claim
with its conditions, the scaled-down check and why it tests the same effect)
and

  TITLE = 'MrT5'
  PAPER = 'Kallini et al. 2025, arXiv:2410.20771'  # '' if there is none.
  CLAIM = 'One sentence.'
  THRESHOLD = {'bpb_ratio': '<= 1.02', 'rows_lost': 'every <= 0'}
  SEEDS = (0, 1, 2)
  DEVICES = ('cpu',)  # What it can be measured on: 'cpu', 'gpu', 'tpu'.
  SHARES = ('mdlm',)  # Claims whose trained models it takes; () if none.

  def measure(workdir, *, seed) -> dict[str, float]: ...

A threshold holds for the mean over seeds, or with `every` for each of them.
All must hold. `measure` may return more numbers than there are thresholds.
'a / b' is the threshold of a ratio: of the means over seeds, or with `every`
of the numbers of each. A mean of ratios would be that of the seed in which b
happens to be next to nothing.
"""

import dataclasses
import importlib
import json
import math
import operator
import pathlib
import re
import statistics
import types
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
CLAIMS = ROOT / 'experiments' / 'claims'
RECORDS = ROOT / 'docs' / 'claims'

REPRODUCED = 'reproduced'
NOT_REPRODUCED = 'not reproduced'
NOT_MEASURED = 'not measured'

_RULE = re.compile(r'(every )?(<=|>=) (\S+)')
_OPERATORS = {'<=': operator.le, '>=': operator.ge}


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim file that has been checked."""

  name: str
  doc: str
  title: str
  paper: str
  claim: str
  threshold: dict[str, str]
  seeds: tuple[int, ...]
  devices: tuple[str, ...]
  shares: tuple[str, ...]  # Claims whose trained models it takes.
  measure: Callable[..., dict[str, float]]

  @property
  def record_path(self) -> pathlib.Path:
    """Where the numbers are kept."""
    return RECORDS / f'{self.name}.json'

  def records(self) -> dict[str, dict[str, Any]]:
    """What was measured, by device; empty if nothing was."""
    if not self.record_path.exists():
      return {}
    return json.loads(self.record_path.read_text())['devices']

  def verdict(self, record: dict[str, Any] | None) -> str:
    """What the numbers of one device say about the claim."""
    found = (record or {}).get('measured', {})
    if any(not found.get(name) for name in self.metrics()):
      return NOT_MEASURED
    holds = all(
      is_met(rule, *(found[name] for name in numbers(metric)))
      for metric, rule in self.threshold.items()
    )
    return REPRODUCED if holds else NOT_REPRODUCED

  def metrics(self) -> list[str]:
    """The numbers that the thresholds are about."""
    return [name for metric in self.threshold for name in numbers(metric)]


def names() -> list[str]:
  """All claim files, sorted."""
  return sorted(
    path.stem for path in CLAIMS.glob('*.py') if not path.stem.startswith('_')
  )


def load(name: str) -> Claim:
  """Imports a claim file and checks what it says.

  Raises:
    ValueError: If there is no such claim, or it breaks the rules above.
  """
  if name not in names():
    raise ValueError(
      f'there is no claim {name!r}. Claims: {", ".join(names()) or "none"}.'
    )
  module = importlib.import_module(f'experiments.claims.{name}')
  return from_module(name, module)


def from_module(name: str, module: types.ModuleType) -> Claim:
  """The claim of a module; see `load`."""
  required = ('__doc__', 'TITLE', 'PAPER', 'CLAIM', 'THRESHOLD', 'measure')
  missing = [key for key in required if getattr(module, key, None) is None]
  if missing:
    raise ValueError(f'claim {name!r} lacks {", ".join(missing)}.')
  for rule in module.THRESHOLD.values():
    _parse(rule)
  if not module.THRESHOLD:
    raise ValueError(f'claim {name!r} has an empty THRESHOLD.')
  return Claim(
    name=name,
    doc=module.__doc__,
    title=module.TITLE,
    paper=module.PAPER,
    claim=module.CLAIM,
    threshold=dict(module.THRESHOLD),
    seeds=tuple(getattr(module, 'SEEDS', (0,))),
    devices=tuple(getattr(module, 'DEVICES', ('cpu',))),
    shares=tuple(getattr(module, 'SHARES', ())),
    measure=module.measure,
  )


def _parse(rule: str) -> tuple[bool, Callable[[float, float], bool], float]:
  match = _RULE.fullmatch(rule)
  try:
    limit = float(match[3]) if match else math.nan
  except ValueError:
    limit = math.nan
  if match is None or math.isnan(limit):
    raise ValueError(
      f'threshold {rule!r} must look like "<= 1.02", ">= 0.9" or "every <= 0".'
    )
  return match[1] is not None, _OPERATORS[match[2]], limit


def numbers(metric: str) -> list[str]:
  """The number that a threshold is about, or the two of a ratio."""
  return metric.split(' / ')


def is_met(
  rule: str, values: Sequence[float], below: Sequence[float] | None = None
) -> bool:
  """Whether the values over seeds satisfy a threshold; nan never does.

  Args:
    rule: E.g. 'every >= 0.9'.
    values: By seed.
    below: What they are divided by, for a ratio.
  """
  is_every, compare, limit = _parse(rule)
  each = values if below is None else _ratios(values, below)
  if is_every:
    return all(compare(value, limit) for value in each)
  return compare(_mean(values, below), limit)


def _mean(values: Sequence[float], below: Sequence[float] | None) -> float:
  mean = statistics.fmean(values)
  return mean if below is None else _ratio(mean, statistics.fmean(below))


def _ratios(values: Sequence[float], below: Sequence[float]) -> list[float]:
  return list(map(_ratio, values, below))


def _ratio(a: float, b: float) -> float:
  if b:
    return a / b
  return math.inf if a > 0 else math.nan


def summary(
  values: Sequence[float], below: Sequence[float] | None = None
) -> str:
  """Mean over seeds with its standard error, e.g. '1.02 ± 0.01'.

  Of a ratio that of the means, and those of the seeds: '2.1 (1.9, 3.4)'.
  """
  mean = _mean(values, below)
  if below is not None:
    each = ', '.join(f'{ratio:.3g}' for ratio in _ratios(values, below))
    return f'{mean:.4g} ({each})'
  if len(values) == 1 or len(set(values)) == 1:
    return f'{mean:.4g}'
  error = statistics.stdev(values) / math.sqrt(len(values))
  return f'{mean:.4g} ± {error:.2g}'

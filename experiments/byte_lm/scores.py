# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The table that the suite ends with, from its numbers alone."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtok.runs import table

# Column, and where its number is in a row's `found`: stage, key.
COLUMNS = (
  ('parameters', 'model', 'parameters'),
  ('bpb', 'model', 'bpb'),
  ('bytes/position', 'model', 'bytes_per_position'),
  ('kept', 'model', 'kept'),
  ('FLOPs/byte', 'model', 'flops_per_byte'),
  ('used', 'model', 'flops_per_byte_used'),
  ('bytes/s written', 'speed', 'bytes_per_second'),
  ('+ case', 'noise', 'case'),
  ('+ typos', 'noise', 'typo'),
  ('+ spaces', 'noise', 'spaces'),
  ('2nd before', 'adapted', 'second_before'),
  ('2nd after', 'adapted', 'second_after'),
  ('1st after', 'adapted', 'first_after'),
)
_WHOLE = (
  *('parameters', 'flops_per_byte', 'flops_per_byte_used'),
  'bytes_per_second',
)
# Of some models or records only; left out where no model has it.
_OPTIONAL = (
  *('flops_per_byte_used', 'bytes_per_position', 'kept', 'bytes_per_second'),
)
_TEXT_NOTES = (
  'bpb: bits per byte of held-out text; every model has had the same training '
  'FLOPs. ± is the standard error over seeds.',
  'bytes/position: bytes of text per position of the trunk. FLOPs/byte: of a '
  'forward pass. bytes/s written: greedy, 8 prompts at once, without '
  'compilation.',
)
_SPAN_NOTES = (
  'bpb: bits per byte of spans that are left out of held-out text, given the '
  'rest; every model has had the same training FLOPs. ± is the standard error '
  'over seeds.',
  "kept: share of the encoder's positions behind the shortener. FLOPs/byte: of "
  'a forward pass as in training, for each byte of a span; deletion is soft '
  'there, so nothing is saved. used: with hard deletion of as many positions.',
)
_NOTES = (
  '+ case, + typos, + spaces: rise of bpb when 10 % of the letters change '
  'case, become another letter, or 10 % of the spaces are missing; per byte of '
  'the text as it then is.',
  '2nd, 1st: bpb of the second and the first language, before and after '
  'further training on the second for a quarter of the budget.',
)


@dataclasses.dataclass(frozen=True)
class Score:
  """The numbers of one model and seed.

  Attributes:
    name: Of the model.
    seed: Of the run.
    found: Numbers by stage; see `suite`.
    seconds: What training and measuring took; of a call that was killed, up to
      the last stage that it had measured.
  """

  name: str
  seed: int
  found: Mapping[str, Mapping[str, float]]
  seconds: float


@dataclasses.dataclass(frozen=True)
class Scores:
  """The numbers of all models and seeds; printed, they are the table."""

  members: Sequence[Score]

  @classmethod
  def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> 'Scores':
    """Reads what `to_json` has returned."""
    return cls([Score(**row) for row in rows])

  def to_json(self) -> list[dict[str, Any]]:
    """A dict for each model and seed."""
    names = [field.name for field in dataclasses.fields(Score)]
    return [{k: getattr(one, k) for k in names} for one in self.members]

  @property
  def names(self) -> list[str]:
    """The models, in order."""
    return list(dict.fromkeys(one.name for one in self.members))

  @property
  def seeds(self) -> list[int]:
    """All seeds, in order."""
    return sorted({one.seed for one in self.members})

  @property
  def is_of_spans(self) -> bool:
    """Whether the models are encoder-decoders."""
    return self._is_known('kept')

  def value(self, name: str, stage: str, key: str) -> tuple[float, float]:
    """Mean over the seeds of a model and its standard error; nan: unknown."""
    members = [one.found for one in self.members if one.name == name]
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
          for _, stage, key in self._columns()
        ),
      ]
      for name in self.names
    ]

  def notes(self) -> list[str]:
    """What a reader of the table must know."""
    notes = [*(_SPAN_NOTES if self.is_of_spans else _TEXT_NOTES), *_NOTES]
    if self._is_known('flops_per_byte_used') and not self.is_of_spans:
      notes.append(
        'used: FLOPs/byte with as many units as held-out text has; FLOPs/byte '
        'counts the room for them, all of which training computes.'
      )
    for name in self.names:
      flops, _ = self.value(name, 'patcher', 'flops')
      bpb, _ = self.value(name, 'patcher', 'bpb')
      if not math.isnan(flops):
        notes.append(
          f'{name}: {flops:.2g} of its FLOPs have trained the language model '
          f'that says where patches end ({bpb:.3f} bits per byte).'
        )
    return notes

  def markdown(self) -> str:
    """The table with its notes."""
    notes = '\n'.join(f'- {note}' for note in self.notes())
    return f'{table.markdown(self._header(), self.cells())}\n{notes}\n'

  def __str__(self) -> str:
    return table.plain(self._header(), self.cells())

  def _header(self) -> list[str]:
    return ['model', *(label for label, *_ in self._columns())]

  def _columns(self) -> list[tuple[str, str, str]]:
    return [x for x in COLUMNS if x[2] not in _OPTIONAL or self._is_known(x[2])]

  def _is_known(self, key: str) -> bool:
    stages = [x for one in self.members for x in one.found.values()]
    return any(key in found for found in stages)


def line(numbers: Mapping[str, float]) -> str:
  """Numbers of a stage on one line."""
  cells = (
    f'{key} {_number(key, value, math.nan)}' for key, value in numbers.items()
  )
  return '  '.join(cells)


def _number(key: str, mean: float, error: float) -> str:
  show: Callable[[float], str] = (
    (lambda x: f'{x:,.0f}') if key in _WHOLE else (lambda x: f'{x:.3f}')
  )
  if math.isnan(mean):
    return '-'
  return show(mean) if math.isnan(error) else f'{show(mean)} ± {show(error)}'

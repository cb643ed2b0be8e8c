# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON lines: one object per line, one of its fields is the document."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import cache, files, splits
from jaxtok.data.source import Subset

_PART_BYTES = 1 << 22


@configclass
class Jsonl:
  """Documents from .jsonl files, also packed as .xz, .gz, .bz2 or .zip.

  Lines are divided by `splits.by_index`.
  """

  path: str = ''  # File, folder or glob.
  field: str = 'text'  # Which field of a line's object is the document.
  validation: str = ''  # If given, `path` is all train.
  test: str = ''  # Likewise.

  def make(self, split: str) -> Subset:
    """The documents of a split, in the order of files and lines.

    Raises:
      FileNotFoundError: If a path or glob matches nothing.
      ValueError: If a line is no object with this field, when it is read.
    """
    path, divides = splits.choose_path(self, split)
    lines = Lines(files.load(files.find(path)), self.field)
    if divides:
      indices = splits.by_index(len(lines), split)
    else:
      indices = np.arange(len(lines))
    return Subset(lines, indices, cache.digest(lines.key, divides, split))


def _index(data: Any, start: int, stop: int) -> np.ndarray:
  """First byte, end and number of each line that is not blank."""
  ends = []
  for low in range(start, stop, _PART_BYTES):
    part = data[low : min(low + _PART_BYTES, stop)]
    ends.append(np.flatnonzero(part == 10) + low)
  ends = np.concatenate([*ends, [stop]])
  starts = np.concatenate([[start], ends[:-1] + 1])
  lines = np.stack([starts, ends, np.arange(1, len(ends) + 1)], axis=1)
  is_blank = starts == ends
  for index in np.flatnonzero(ends - starts == 1):
    is_blank[index] = data[starts[index] : ends[index]][0] == 13
  return lines[~is_blank]


def parse(line: bytes, field: str, where: str) -> bytes:
  """The text in a field of a JSON object, as UTF-8.

  Args:
    line: The object.
    field: Its field.
    where: The place, for error messages.

  Raises:
    ValueError: If there is no object, no such field, or no string in it.
  """
  try:
    row = json.loads(line)
  except ValueError as e:
    raise ValueError(f'{where}: not JSON ({e}): {line[:60]!r}') from e
  if not isinstance(row, dict):
    raise ValueError(
      f'{where}: an object was expected, got {type(row).__name__}.'
    )
  if field not in row:
    raise ValueError(
      f'{where}: there is no field {field!r}; the fields are '
      f'{", ".join(row)}. Set field= to the one that holds the text; on a '
      'command line: --data=FILE.jsonl:FIELD.'
    )
  if not isinstance(row[field], str):
    raise ValueError(
      f'{where}: field {field!r} is {type(row[field]).__name__}; it must be a '
      'string.'
    )
  # JSON can name lone surrogates, which plain UTF-8 cannot encode.
  return row[field].encode('utf-8', 'surrogatepass')


class Lines:
  """The objects of .jsonl files as documents.

  Args:
    library: The files.
    field: Which field is the document.
  """

  def __init__(self, library: files.Library, field: str):
    self._field = field
    self._library = library
    self.key = cache.digest(library.key, field)
    lines = [
      _index(library.arrays[array], start, stop)
      for _, array, start, stop in library.ranges
    ]
    self._lines = np.concatenate(lines)
    self._ends = np.cumsum([len(part) for part in lines])
    if len(self):
      self[0]  # A wrong field is said at once.

  def __len__(self) -> int:
    return len(self._lines)

  def __getitem__(self, index: int) -> dict[str, Any]:
    start, stop, number = self._lines[index].tolist()
    file = int(np.searchsorted(self._ends, index, side='right'))
    name, array, *_ = self._library.ranges[file]
    line = self._library.arrays[array][start:stop].tobytes()
    where = f'{name}, line {number}'
    return {'data': parse(line, self._field, where), 'name': where}

  def many(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several documents."""
    return [self[index] for index in indices]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""ArrayRecord files: each record is a document, or JSON with one in a field.

The format of grain and TFDS for random access; see google/array_record. Data
sets that TFDS has prepared hold tf.Examples: read those with `tfds.Tfds`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import cache, files, jsonl, splits
from jaxtok.data.source import Subset


@configclass
class ArrayRecord:
  """Documents from ArrayRecord files, divided by `splits.by_index`."""

  path: str = ''  # File, folder or glob.
  field: str = ''  # If given, records are JSON objects with this field.
  validation: str = ''  # If given, `path` is all train.
  test: str = ''  # Likewise.

  def make(self, split: str) -> Subset:
    """The documents of a split, in the order of files and records.

    Raises:
      FileNotFoundError: If a path or glob matches nothing.
      ValueError: If a file is no ArrayRecord file.
    """
    path, divides = splits.choose_path(self, split)
    records = Records(files.find(path), self.field)
    if divides:
      indices = splits.by_index(len(records), split)
    else:
      indices = np.arange(len(records))
    return Subset(records, indices, cache.digest(records.key, divides, split))


class Records:
  """The records of ArrayRecord files as documents.

  Args:
    found: The files, none of them in an archive.
    field: See `ArrayRecord`.
  """

  def __init__(self, found: tuple[files.File, ...], field: str):
    from array_record.python import array_record_data_source

    self._field = field
    self.key = cache.digest(found, field)
    for file in found:
      _check(file)
    self._name = found[0].name if len(found) == 1 else f'{len(found)} files'
    self._records = array_record_data_source.ArrayRecordDataSource(
      [file.path for file in found]
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.many([index])[0]

  def many(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several documents, which is much faster than one after the other."""
    found = []
    for index, data in zip(
      indices, self._records.__getitems__(list(indices)), strict=True
    ):
      name = f'{self._name}, record {index}'
      if self._field:
        data = jsonl.parse(data, self._field, name)
      found.append({'data': data, 'name': name})
    return found


def _check(file: files.File) -> None:
  from array_record.python import array_record_module

  try:
    reader = array_record_module.ArrayRecordReader(file.path)
    reader.close()
  except (RuntimeError, ValueError) as e:
    raise ValueError(
      f'{file.path} cannot be read as ArrayRecord ({e}). It may be damaged, '
      'empty or of another format.'
    ) from e

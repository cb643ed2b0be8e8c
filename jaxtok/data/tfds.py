# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets of TensorFlow Datasets, read without TensorFlow.

They are read through `as_data_source`, which needs files in the ArrayRecord
format; preparing them is one command, which the error message names.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import cache, splits
from jaxtok.data.source import SPLITS, Subset, check_split


@configclass
class Tfds:
  """A TFDS data set that has been prepared in the ArrayRecord format.

  Its own splits are used. If only one of validation and test exists, each
  gets half of it; if there is only train, `splits.by_index` divides it.
  """

  name: str = ''  # E.g. 'lm1b' or 'name/config:1.0.0'.
  field: str = 'text'  # Which feature is the document.
  data_dir: str = ''  # Where it was prepared; '' means TFDS's default.

  def make(self, split: str) -> Subset:
    """The documents of a split, in the data set's order.

    Raises:
      ImportError: If TFDS is not installed.
      ValueError: If the data set is not prepared, or has no such feature.
    """
    check_split(split)
    builder = self._prepared()
    sizes = {
      name: builder.info.splits[name].num_examples
      for name in SPLITS
      if name in builder.info.splits
    }
    if 'train' not in sizes:
      raise ValueError(
        f'tfds:{self.name} has no split "train"; it has: '
        f'{", ".join(builder.info.splits)}.'
      )
    origin, indices = _choose(sizes, split)
    examples = Examples(builder, origin, self.field)
    return Subset(examples, indices, cache.digest(examples.key, split))

  def _prepared(self) -> Any:
    """The TFDS builder, after checking that its files can be read."""
    if not self.name:
      raise ValueError('name is empty. Give a TFDS data set, e.g. tfds:lm1b.')
    try:
      import tensorflow_datasets
    except ImportError as e:
      raise ImportError(
        f'tfds:{self.name} needs tensorflow-datasets ({e}). Install it with '
        "pip install 'jaxtok[tfds]'."
      ) from e
    options = {'data_dir': self.data_dir} if self.data_dir else {}
    try:
      builder = tensorflow_datasets.builder(
        self.name, file_format='array_record', **options
      )
    except tensorflow_datasets.core.DatasetNotFoundError as e:
      raise ValueError(
        f'TFDS knows no data set {self.name!r}, and none of that name is '
        f'prepared in {self.data_dir or "its default folder"}.'
      ) from e
    if not builder.is_prepared():
      arguments = f"'{self.name}', file_format='array_record'"
      if self.data_dir:
        arguments += f", data_dir='{self.data_dir}'"
      raise ValueError(
        f'tfds:{self.name} is not prepared as ArrayRecord in '
        f'{builder.data_dir}. Prepare it once (some data sets need TensorFlow '
        'for this; reading does not): python -c "import tensorflow_datasets '
        f'as tfds; tfds.builder({arguments}).download_and_prepare()"'
      )
    return builder


def _choose(sizes: dict[str, int], split: str) -> tuple[str, np.ndarray]:
  """The data set's split to read from, and which of its examples."""
  if len(sizes) == 1:
    return 'train', splits.by_index(sizes['train'], split)
  if len(sizes) == len(SPLITS) or split == 'train':
    return split, np.arange(sizes[split])
  origin = 'test' if 'test' in sizes else 'validation'
  half = sizes[origin] // 2
  bounds = (0, half) if split == 'validation' else (half, sizes[origin])
  return origin, np.arange(*bounds)


class Examples:
  """The examples of a prepared TFDS split as documents.

  Args:
    builder: A TFDS builder.
    split: One of its splits.
    field: Which feature is the document.
  """

  def __init__(self, builder: Any, split: str, field: str):
    features = builder.info.features
    if field not in features:
      raise ValueError(
        f'tfds:{builder.info.full_name} has no feature {field!r}; it has: '
        f'{", ".join(features)}. Set field= to the one that holds the text.'
      )
    self._name = f'{builder.info.full_name}, {split}'
    self._field = field
    self._examples = builder.as_data_source(split=split)
    folder, size = str(builder.data_dir), builder.info.splits[split].num_bytes
    self.key = cache.digest(self._name, field, folder, len(self), size)

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.many([index])[0]

  def many(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several documents, which is much faster than one after the other."""
    examples = self._examples.__getitems__(list(indices))
    return [
      self._record(index, example[self._field])
      for index, example in zip(indices, examples, strict=True)
    ]

  def _record(self, index: int, data: Any) -> dict[str, Any]:
    where = f'{self._name}, example {index}'
    if isinstance(data, str):
      data = data.encode()
    if not isinstance(data, bytes):
      raise ValueError(
        f'{where}: feature {self._field!r} is {type(data).__name__}; it must '
        'be text.'
      )
    return {'data': data, 'name': where}

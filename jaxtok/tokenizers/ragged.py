# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of ids of different lengths, in one flat array."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
  """Rows of ids, end to end.

  Attributes:
    values: int32, the ids of all rows.
    row_splits: int64; row i is `values[row_splits[i]:row_splits[i + 1]]`.
  """

  values: Int[np.ndarray, 'n']
  row_splits: Int[np.ndarray, 'rows_plus_1']

  def __post_init__(self):
    splits = self.row_splits
    if (
      len(splits) == 0
      or splits[0] != 0
      or splits[-1] != len(self.values)
      or (np.diff(splits) < 0).any()
    ):
      raise ValueError(
        'row_splits must rise from 0 to the number of values '
        f'({len(self.values)}), got {splits}.'
      )

  @classmethod
  def from_rows(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> 'Ragged':
    """Joins rows."""
    arrays = [np.asarray(row, np.int32) for row in rows]
    splits = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(a) for a in arrays], out=splits[1:])
    values = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
    return cls(values, splits)

  def __len__(self) -> int:
    """Number of rows."""
    return len(self.row_splits) - 1

  @property
  def lengths(self) -> Int[np.ndarray, 'rows']:
    """Number of ids of each row, int64."""
    return np.diff(self.row_splits)

  def rows(self) -> list[Int[np.ndarray, 'n']]:
    """The rows, as views."""
    bounds = zip(self.row_splits[:-1], self.row_splits[1:], strict=True)
    return [self.values[a:b] for a, b in bounds]

  def to_dense(
    self, length: int | None = None, *, pad: int = 0
  ) -> Int[np.ndarray, 'rows length']:
    """One padded row per row, int32.

    Args:
      length: Width; None takes the longest row.
      pad: Fills the end of shorter rows.

    Raises:
      ValueError: If a row is longer than `length`.
    """
    lengths = self.lengths
    longest = int(lengths.max(initial=0))
    length = longest if length is None else length
    if longest > length:
      raise ValueError(
        f'row {int(lengths.argmax())} has {longest} ids, more than '
        f'length={length}. Raise length, or cut the rows first.'
      )
    dense = np.full((len(self), length), pad, np.int32)
    dense[np.arange(length) < lengths[:, None]] = self.values
    return dense

  def pack(
    self, length: int, *, pad: int = 0
  ) -> tuple[Int[np.ndarray, 'p length'], Int[np.ndarray, 'p length']]:
    """Cuts all ids, end to end, into dense rows; nothing is dropped.

    Args:
      length: Width of the dense rows.
      pad: Fills the end of the last one.

    Returns:
      int32 ids, and int32 segment ids, which count the rows that meet in one
      dense row from 1; 0 marks padding.
    """
    if length < 1:
      raise ValueError(f'length must be >= 1, got {length}.')
    num = -(-len(self.values) // length)
    ids = np.full(num * length, pad, np.int32)
    ids[: len(self.values)] = self.values
    owner = np.full(num * length, -1, np.int64)
    owner[: len(self.values)] = np.repeat(np.arange(len(self)), self.lengths)
    owner = owner.reshape(num, length)
    starts = np.zeros((num, length), np.int32)
    starts[:, 1:] = (np.diff(owner, axis=1) != 0) & (owner[:, 1:] >= 0)
    segments = np.where(owner >= 0, 1 + np.cumsum(starts, axis=1), 0)
    return ids.reshape(num, length), segments.astype(np.int32)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of whole documents, packed by grain's first-fit.

A document `d o c` becomes the tokens `BOS d o c` with the targets
`d o c BOS`; one that does not fit a row is cut into pieces, each the context
of nothing but itself. Nothing is dropped; the space left over is padding.

Which documents share a row depends on all documents before, so the state is
grain's iterator, and a run continues on the same number of processes only.
"""

import functools
from typing import Any

import grain
import numpy as np
from grain import experimental

from jaxtok.data import batch as batch_lib
from jaxtok.data.permutation import Permutation
from jaxtok.data.tokens import Tokens

_PIECES = 2  # Key of the permutation, unlike those of `window`.
_ENDLESS = 1 << 50
_PACKED = ('tokens_bt', 'targets_bt', 'loss_mask_bt', 'num_bytes_bt')


class Pieces:
  """Documents as rows of at most T tokens, shuffled anew in each epoch.

  Args:
    tokens: The documents.
    seq_len: Row length T.
    seed: Of the order.
    process_index: Which process this is.
    process_count: Every process takes each `process_count`-th piece.
    num_epochs: How often all documents come; 0 means endlessly.
  """

  def __init__(
    self,
    tokens: Tokens,
    seq_len: int,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_epochs: int = 0,
  ):
    self._tokens = tokens
    self._seq_len = seq_len
    self._seed = seed
    self._shard = process_index, process_count
    # Of a document with n tokens, n + 1 are predicted.
    self._ends = np.cumsum(-(-(tokens.lengths + 1) // seq_len))
    self.num_pieces = int(self._ends[-1]) if len(self._ends) else 0
    total = self.num_pieces * num_epochs if num_epochs else _ENDLESS
    self._len = len(range(process_index, total, process_count))
    self._forget()

  def _forget(self) -> None:
    self._order = functools.lru_cache(maxsize=2)(self._make_order)

  def __getstate__(self):
    return {k: v for k, v in self.__dict__.items() if k != '_order'}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._forget()

  def _make_order(self, epoch: int) -> np.ndarray:
    return Permutation(self.num_pieces, self._seed, epoch, _PIECES).all()

  def __len__(self) -> int:
    return self._len

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    index_of, count = self._shard
    epoch, place = divmod(index * count + index_of, self.num_pieces)
    number = int(self._order(epoch)[place])
    document = int(np.searchsorted(self._ends, number, side='right'))
    first = int(self._ends[document - 1]) if document else 0
    return self._piece(document, (number - first) * self._seq_len)

  def _piece(self, document: int, start: int) -> dict[str, np.ndarray]:
    """Places `start` to `start + T` of BOS, the tokens, BOS."""
    length = int(self._tokens.lengths[document])
    stop = min(start + self._seq_len, length + 1)
    num_read = min(stop, length) + 1 - start  # The last BOS is not stored.
    where = [document], [start - 1], [num_read]
    ids, charges = self._tokens.read(*map(np.array, where))
    if stop > length:
      ids = np.append(ids, np.int32(self._tokens.bos))
      charges = np.append(charges, np.int32(0))
    return {
      'tokens_bt': ids[:-1],
      'targets_bt': ids[1:],
      'loss_mask_bt': np.ones(stop - start, np.float32),
      'num_bytes_bt': charges[1:],
    }


def _to_row(packed: dict[str, Any]) -> dict[str, np.ndarray]:
  row = {key: packed[key] for key in _PACKED}
  row['segment_ids_bt'] = packed['tokens_bt_segment_ids'].astype(np.int32)
  row['positions_bt'] = packed['tokens_bt_positions'].astype(np.int32)
  return {key: row[key] for key in batch_lib.TEXT_KEYS}


def dataset(
  pieces: Pieces, seq_len: int, *, num_bins: int, read: grain.ReadOptions
) -> grain.IterDataset:
  """Rows of packed pieces.

  Args:
    pieces: What is packed.
    seq_len: Row length T.
    num_bins: Rows that are filled side by side; more rows, less padding.
    read: Threads and buffers.
  """
  packed = experimental.FirstFitPackIterDataset(
    grain.MapDataset.source(pieces).to_iter_dataset(read),
    length_struct=dict.fromkeys(_PACKED, seq_len),
    num_packing_bins=num_bins,
    shuffle_bins=False,
  )
  return packed.map(_to_row)

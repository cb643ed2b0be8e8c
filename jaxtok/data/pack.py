# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of whole documents, packed by first-fit.

A document `d o c` becomes the tokens `BOS d o c` with the targets
`d o c BOS`; one that does not fit a row is cut into pieces, each the context
of nothing but itself. Nothing is dropped; the space left over is padding.

The rows of a batch are filled side by side: each piece goes to the first row
with enough space, and when there is none the batch is done. So the state
between batches is the number of the next piece. Processes take turns with the
pieces, so a run can only continue on the same number of them.
"""

import functools

import numpy as np

from jaxtok.data.batch import Batch
from jaxtok.data.permutation import Permutation
from jaxtok.data.tokens import Tokens

_PIECES = 2  # Key of the permutation, unlike those of `window`.
_BLOCK = 4096  # Pieces that are looked up at once, at most.


class Pieces:
  """Documents in pieces of at most T tokens, shuffled anew in each epoch.

  A piece is a row of three numbers: its document, its first place in
  `BOS, tokens, BOS`, and the number of places that it takes.

  Args:
    tokens: The documents.
    seq_len: Row length T.
    seed: Of the order.
    process_index: Which process this is.
    process_count: Every process takes each `process_count`-th piece.
  """

  def __init__(
    self,
    tokens: Tokens,
    seq_len: int,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
  ):
    self._tokens = tokens
    self.period = tokens.period
    self.seq_len = seq_len
    self._seed = seed
    self._shard = process_index, process_count
    # Of a document with n tokens, n + 1 are predicted.
    self._ends = np.cumsum(-(-(tokens.lengths + 1) // seq_len))
    self.num_pieces = int(self._ends[-1]) if len(self._ends) else 0
    # In a tiny corpus, a block would reach over many epochs.
    self._width = max(1, min(_BLOCK, self.num_pieces // process_count))
    self._order = functools.lru_cache(maxsize=2)(self._make_order)
    self._block = functools.lru_cache(maxsize=2)(self._make_block)

  def _make_order(self, epoch: int) -> np.ndarray:
    return Permutation(self.num_pieces, self._seed, epoch, _PIECES).all()

  def _make_block(self, block: int) -> list[list[int]]:
    process_index, process_count = self._shard
    index = np.arange(block * self._width, (block + 1) * self._width)
    epochs, places = np.divmod(
      index * process_count + process_index, self.num_pieces
    )
    number = np.empty(self._width, np.int64)
    for epoch in np.unique(epochs).tolist():
      number[epochs == epoch] = self._order(epoch)[places[epochs == epoch]]
    document = np.searchsorted(self._ends, number, side='right')
    places_in = self._tokens.lengths[document] + 1
    first = self._ends[document] - -(-places_in // self.seq_len)
    start = (number - first) * self.seq_len
    length = np.minimum(self.seq_len, places_in - start)
    return np.stack([document, start, length], axis=1).tolist()

  def __getitem__(self, index: int) -> list[int]:
    """This process's piece of that number: document, start, length."""
    block, offset = divmod(index, self._width)
    return self._block(block)[offset]

  def read(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids and charges of pieces, each with the place that follows it."""
    document, start, length = pieces.T
    # The BOS that ends a document is not stored.
    is_last = start + length > self._tokens.lengths[document]
    stored = self._tokens.read(document, start - 1, length + 1 - is_last)
    ends = np.cumsum(length + 1)
    is_stored = np.ones(int(ends[-1]), bool)
    is_stored[ends[is_last] - 1] = False
    ids = np.full(is_stored.shape, self._tokens.bos, np.int32)
    charges = np.zeros(is_stored.shape, np.int32)
    ids[is_stored], charges[is_stored] = stored
    return ids, charges


def assign(
  pieces: Pieces, index: int, num_rows: int, stop: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """First-fit.

  Args:
    pieces: What is packed.
    index: Number of the first piece.
    num_rows: Rows that are filled side by side.
    stop: Number of the piece to stop before; None means never.

  Returns:
    Document, start and length of the pieces that fit, (pieces, 3), and the
    row and column of each, (pieces, 2).
  """
  free = np.full(num_rows, pieces.seq_len)
  taken, places = [], []
  while index != stop:
    piece = pieces[index]
    row = int(np.argmax(free >= piece[2]))
    if free[row] < piece[2]:
      break
    places.append((row, pieces.seq_len - int(free[row])))
    taken.append(piece)
    free[row] -= piece[2]
    index += 1
  return np.array(taken).reshape(-1, 3), np.array(places).reshape(-1, 2)


def lay_out(
  pieces: Pieces, taken: np.ndarray, places: np.ndarray, num_rows: int
) -> Batch:
  """The batch that `assign` has planned."""
  ids, charges = pieces.read(taken)
  length = taken[:, 2]
  row, column = places.T
  within = np.arange(length.sum()) - np.repeat(
    np.cumsum(length) - length, length
  )
  source = np.arange(len(within)) + np.repeat(np.arange(len(length)), length)
  target = np.repeat(row, length), np.repeat(column, length) + within
  # The how-manieth piece of its row each one is; rows fill from the left.
  order = np.lexsort((column, row))
  first = np.searchsorted(row[order], row[order])
  segment = np.empty(len(row), np.int64)
  segment[order] = np.arange(len(row)) - first + 1
  values = {
    'tokens_bt': ids[source],
    'targets_bt': ids[source + 1],
    'loss_mask_bt': 1,
    'segment_ids_bt': np.repeat(segment, length),
    'positions_bt': within + np.repeat(taken[:, 1] % pieces.period, length),
    'num_bytes_bt': charges[source + 1],
  }
  batch = {}
  for key, value in values.items():
    dtype = np.float32 if key == 'loss_mask_bt' else np.int32
    batch[key] = np.zeros((num_rows, pieces.seq_len), dtype)
    batch[key][target] = value
  return batch

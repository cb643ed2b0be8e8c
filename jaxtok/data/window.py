# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows as windows of the concatenated documents; any row can be made alone.

  stream   BOS d o c 1 BOS d o c 2 BOS d o c 3
  row 0    tokens  BOS d o c     targets  d o c 1
  row 1    tokens  1 BOS d o     targets  BOS d o c

Row i holds the tokens `stream[i * T : (i + 1) * T]` and the targets one place
further on, so each token of the stream but the first is a target once. A BOS
target is predicted, and charged with no bytes.

Positions count from the document's BOS, or from the first token of the row,
which then has the number that it has in a window of the tokenizer: in any row,
the target at position p is token `p % period` of its window.
"""

import functools
import itertools

import numpy as np

from jaxtok.data.batch import Batch
from jaxtok.data.permutation import Permutation
from jaxtok.data.tokens import Tokens

_BLOCK = 4096  # Window numbers that are shuffled at once.
_DOCUMENTS, _WINDOWS = 0, 1  # Keys of independent permutations.


def num_rows(tokens: Tokens, seq_len: int) -> int:
  """Rows of one pass."""
  stream = int(tokens.lengths.sum()) + len(tokens.lengths)
  return -(-(stream - 1) // seq_len) if stream else 0


class Windows:
  """The rows of one pass over the documents, in a given order.

  Args:
    tokens: The documents.
    seq_len: Row length T.
    order: Document numbers; None keeps their own order.
  """

  def __init__(
    self, tokens: Tokens, seq_len: int, order: np.ndarray | None = None
  ):
    self._tokens = tokens
    self.seq_len = seq_len
    self._order = order
    lengths = tokens.lengths if order is None else tokens.lengths[order]
    self._starts = np.zeros(len(lengths) + 1, np.int64)  # Of each BOS.
    np.cumsum(lengths + 1, out=self._starts[1:])
    self._num_rows = num_rows(tokens, seq_len)

  def __len__(self) -> int:
    return self._num_rows

  def __getitem__(self, index: int) -> Batch:
    """One row: the keys of a batch without their batch axis."""
    if not 0 <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}.')
    return {key: value[0] for key, value in self.batch([index]).items()}

  def batch(self, rows) -> Batch:
    """Several rows, in the order given; arrays may be read-only.

    Args:
      rows: Row numbers; those beyond the last row give rows of zeros.
    """
    begins = np.asarray(rows, np.int64) * self.seq_len
    width = self.seq_len + 1
    ends = np.minimum(begins + width, self._starts[-1])
    # The documents in each row, then one entry for each of them.
    first = np.searchsorted(self._starts, begins, side='right') - 1
    counts = np.searchsorted(self._starts, ends, side='left') - first
    counts[begins >= ends] = 0
    row = np.repeat(np.arange(len(begins)), counts)
    before = np.cumsum(counts) - counts
    place = np.arange(len(row)) + (first - before)[row]
    start = self._starts[place]
    low = np.maximum(start, begins[row])
    high = np.minimum(self._starts[place + 1], ends[row])
    ids, charges = self._tokens.read(
      place if self._order is None else self._order[place],
      low - start - 1,  # -1 is the BOS.
      high - low,
    )
    is_start = (low == start) & (low > begins[row])
    column = (low - begins[row])[is_start]
    lengths = np.maximum(ends - begins, 0)
    batch = _lay_out(ids, charges, lengths, width)
    is_first = low == begins[row]
    offset = np.zeros(len(begins), np.int32)
    offset[row[is_first]] = (low - start)[is_first] % self._tokens.period
    if offset.any():
      is_valid = batch['segment_ids_bt']  # 1, or 0 in padding.
      shift = offset[:, None] * is_valid  # The array itself may be shared.
      batch['positions_bt'] = batch['positions_bt'] + shift
    _restart(batch, row[is_start], column, offset, self.seq_len)
    return batch


@functools.lru_cache(maxsize=4)
def _full(num_rows: int, seq_len: int) -> Batch:
  """What full rows of one document each have in common; read-only.

  Most time goes into fresh memory, so batches share these arrays.
  """
  shape = num_rows, seq_len
  positions = np.tile(np.arange(seq_len, dtype=np.int32), (num_rows, 1))
  batch = {
    'loss_mask_bt': np.ones(shape, np.float32),
    'segment_ids_bt': np.ones(shape, np.int32),
    'positions_bt': positions,
  }
  for value in batch.values():
    value.flags.writeable = False
  return batch


def _lay_out(ids, charges, lengths, width) -> Batch:
  """Rows of `width` = T + 1 tokens as a batch of rows of one document each.

  Args:
    ids: Tokens of all rows, one after the other.
    charges: Source bytes of each.
    lengths: Tokens of each row; the rest is padding.
    width: T + 1.
  """
  shape = len(lengths), width
  is_full = ids.size == shape[0] * width
  if is_full:
    ids, charges = ids.reshape(shape), charges.reshape(shape)
  else:
    is_token = np.arange(width) < lengths[:, None]
    padded = np.zeros((2, *shape), np.int32)
    padded[:, is_token] = ids, charges
    ids, charges = padded
  batch = {
    'tokens_bt': ids[:, :-1].astype(np.int32),
    'targets_bt': ids[:, 1:].astype(np.int32),
    'num_bytes_bt': charges[:, 1:].astype(np.int32),
    **_full(shape[0], width - 1),
  }
  if not is_full:
    is_target = is_token[:, 1:]
    batch = {k: v * is_target.astype(v.dtype) for k, v in batch.items()}
  return batch


def _restart(batch: Batch, row, column, offset, seq_len) -> None:
  """Counts segments and positions anew where a document starts in a row."""
  inside = column < seq_len
  row, column = row[inside], column[inside]
  if not row.size:
    return
  for key in ('segment_ids_bt', 'positions_bt'):
    if not batch[key].flags.writeable:
      batch[key] = batch[key].copy()
  changed, local = np.unique(row, return_inverse=True)
  starts = np.zeros((len(changed), seq_len), np.int32)
  starts[local, column] = 1
  segments = np.cumsum(starts, axis=1, dtype=np.int32)
  starts[local, column] = column + offset[row]
  begins = np.maximum.accumulate(starts, axis=1)
  is_valid = batch['segment_ids_bt'][changed]  # 1, or 0 in padding.
  batch['segment_ids_bt'][changed] += segments * is_valid
  batch['positions_bt'][changed] -= begins * is_valid


class Shuffled:
  """Batches of an endless stream of rows, shuffled anew in each epoch.

  Row g of the stream is row g % R of epoch g // R, whose documents and
  windows both come in an order that is a function of seed and epoch.

  Args:
    tokens: The documents.
    seq_len: Row length T.
    seed: Of the order.
  """

  def __init__(self, tokens: Tokens, seq_len: int, seed: int):
    self._tokens = tokens
    self.seq_len = seq_len
    self._seed = seed
    self.num_rows = num_rows(tokens, seq_len)
    self._forget()

  def _forget(self) -> None:
    self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)
    self._block = functools.lru_cache(maxsize=8)(self._make_block)

  def __getstate__(self):
    hidden = ('_epoch', '_block')
    return {k: v for k, v in self.__dict__.items() if k not in hidden}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._forget()

  def _make_epoch(self, epoch: int) -> Windows:
    documents = len(self._tokens.lengths)
    order = Permutation(documents, self._seed, epoch, _DOCUMENTS).all()
    return Windows(self._tokens, self.seq_len, order)

  def _make_block(self, epoch: int, block: int) -> np.ndarray:
    stop = min((block + 1) * _BLOCK, self.num_rows)
    permutation = Permutation(self.num_rows, self._seed, epoch, _WINDOWS)
    return permutation(np.arange(block * _BLOCK, stop))

  def batch(self, rows: np.ndarray) -> Batch:
    """Rows of the endless stream.

    Args:
      rows: Their numbers, ascending.
    """
    epochs, numbers = np.divmod(rows, self.num_rows)
    blocks, offsets = np.divmod(numbers, _BLOCK)
    # Usually one block; epochs and blocks ascend with the rows.
    changes = np.flatnonzero(np.diff(blocks) | np.diff(epochs)) + 1
    edges = [0, *changes.tolist(), len(rows)]
    parts = []
    for low, high in itertools.pairwise(edges):
      epoch, block = int(epochs[low]), int(blocks[low])
      shuffled = self._block(epoch, block)[offsets[low:high]]
      parts.append(self._epoch(epoch).batch(shuffled))
    if len(parts) == 1:
      return parts[0]
    return {
      key: np.concatenate([part[key] for part in parts]) for key in parts[0]
    }

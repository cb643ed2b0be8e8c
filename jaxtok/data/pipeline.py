# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches through grain: prefetched, sharded over processes, resumable.

The iterators are `grain.DatasetIterator`s whose states are small dicts of
JSON types. The state of `WindowIterator` is one number, the next row of an
endless stream that all processes share, so a run can continue on another
number of processes. That of `PackIterator` is grain's own, for this process.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from absl import logging
from grain import experimental

from jaxtok.data import pack
from jaxtok.data.batch import Batch

_GROUP_TOKENS = 1 << 17  # Per call of grain, 3 MB of arrays; by measurement.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How batches are made; nothing here changes what is in them.

  Attributes:
    num_threads: Threads that make batches ahead of time.
    prefetch: Batches that are kept ready.
    num_workers: Processes that make batches; 0 means none, only threads.
  """

  num_threads: int = 1
  prefetch: int = 8
  num_workers: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """Which rows of each global batch this process gets.

  Attributes:
    batch_size: Rows per process.
    process_index: Which process this is.
    process_count: How many there are.
  """

  batch_size: int
  process_index: int = 0
  process_count: int = 1

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be >= 1, got {self.batch_size}.')
    if not 0 <= self.process_index < self.process_count:
      raise ValueError(
        f'process_index={self.process_index} must be in [0, process_count='
        f'{self.process_count}).'
      )

  @property
  def global_batch_size(self) -> int:
    """Rows over all processes."""
    return self.batch_size * self.process_count

  def rows(self, start: int, num_batches: int) -> np.ndarray:
    """This process's rows of global batches that begin at row `start`."""
    batches = start + np.arange(num_batches) * self.global_batch_size
    own = self.process_index * self.batch_size + np.arange(self.batch_size)
    return (batches[:, None] + own).reshape(-1)

  def split(self, group: Batch) -> Iterator[Batch]:
    """The batches of a group, one after the other."""
    size = len(group['tokens_bt'])
    for low in range(0, size, self.batch_size):
      yield {k: v[low : low + self.batch_size] for k, v in group.items()}


@runtime_checkable
class Rows(Protocol):
  """Rows of one pass, e.g. `window.Windows`.

  Attributes:
    seq_len: Tokens of a row, for the size of groups.
  """

  seq_len: int

  def __len__(self) -> int: ...

  def batch(self, rows: Any) -> Batch:
    """Several rows; those beyond the last give rows of zeros."""
    ...


@runtime_checkable
class Stream(Protocol):
  """Rows of endless epochs, e.g. `window.Shuffled`.

  Attributes:
    seq_len: Tokens of a row, for the size of groups.
    num_rows: Rows of an epoch.
  """

  seq_len: int
  num_rows: int

  def batch(self, rows: np.ndarray) -> Batch:
    """Rows by number, ascending."""
    ...


class _TrainGroups:
  """Groups of batches from row `start` of the endless stream on, by number.

  Small batches are made several at a time: the time that grain and NumPy
  spend per call would otherwise exceed that of the work.
  """

  def __init__(self, rows: Stream, shard: Shard, start: int):
    self._rows, self._shard, self._start = rows, shard, start
    self.num_batches = _group_size(rows.seq_len, rows.num_rows, shard)

  def __len__(self) -> int:
    return 1 << 50

  def __getitem__(self, index: int) -> Batch:
    first = index * self.num_batches * self._shard.global_batch_size
    return self._rows.batch(
      self._shard.rows(self._start + first, self.num_batches)
    )


class _EvalGroups:
  """The batches of one pass in groups; missing rows are zeros."""

  def __init__(self, rows: Rows, shard: Shard):
    self._rows, self._shard = rows, shard
    self.num_batches = _group_size(rows.seq_len, len(rows), shard)
    self._total = -(-len(rows) // shard.global_batch_size)

  def __len__(self) -> int:
    return -(-self._total // self.num_batches)

  def __getitem__(self, index: int) -> Batch:
    first = index * self.num_batches
    count = min(self.num_batches, self._total - first)
    start = first * self._shard.global_batch_size
    return self._rows.batch(self._shard.rows(start, count))


def _group_size(seq_len: int, num_rows: int, shard: Shard) -> int:
  """Batches per group: few enough for the cache, and for a tiny corpus."""
  fits = _GROUP_TOKENS // (shard.batch_size * seq_len)
  return max(1, min(fits, num_rows // shard.global_batch_size))


def _prefetched(source: Any, options: Options) -> grain.IterDataset:
  """Groups of batches, made ahead of time."""
  read = grain.ReadOptions(
    num_threads=options.num_threads,
    prefetch_buffer_size=-(-options.prefetch // source.num_batches),
  )
  groups = grain.MapDataset.source(source).to_iter_dataset(read)
  if not options.num_workers:
    return groups
  # grain reads absl flags for its workers, which only `app.run` parses.
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  workers = grain.MultiprocessingOptions(num_workers=options.num_workers)
  return groups.mp_prefetch(workers)


class WindowIterator(grain.DatasetIterator):
  """Endless training batches of shuffled windows.

  Args:
    rows: The rows.
    shard: Which of them.
    options: How.
  """

  def __init__(self, rows: Stream, shard: Shard, options: Options):
    super().__init__()
    self._rows, self._shard, self._options = rows, shard, options
    self._row = 0
    self._groups = None
    self._batches = iter(())

  def __next__(self) -> Batch:
    batch = next(self._batches, None)
    if batch is None:
      self.start_prefetch()
      self._batches = self._shard.split(next(self._groups))
      batch = next(self._batches)
    self._row += self._shard.global_batch_size
    return batch

  def start_prefetch(self) -> None:
    """Begins to make batches."""
    if self._groups is None:
      source = _TrainGroups(self._rows, self._shard, self._row)
      self._groups = iter(_prefetched(source, self._options))
      self._groups.start_prefetch()

  def get_state(self) -> dict[str, Any]:
    """The number of the next row, over all processes and epochs."""
    return {
      'packing': 'window',
      'row': self._row,
      'rows_per_epoch': self._rows.num_rows,
    }

  def set_state(self, state: dict[str, Any]) -> None:
    """Continues at a row; `rows_per_epoch` only serves to warn."""
    _check_packing(state, 'window')
    if state['rows_per_epoch'] != self._rows.num_rows:
      logging.warning(
        'The training data has changed since the checkpoint: it had %d rows '
        'and has %d now. The run continues, but not as it would have.',
        *(state['rows_per_epoch'], self._rows.num_rows),
      )
    self.close()
    self._row, self._closed = state['row'], False
    self._groups, self._batches = None, iter(())

  def close(self) -> None:
    """Ends threads and worker processes."""
    if self._groups is not None:
      self._groups.close()
    super().close()


class _PackedIterator(grain.DatasetIterator):
  """One batch after the other; the state is the number of the next piece."""

  def __init__(self, pieces: pack.Pieces, num_rows: int):
    super().__init__()
    self._pieces, self._num_rows, self._next = pieces, num_rows, 0

  def __next__(self) -> Batch:
    taken, places = pack.assign(self._pieces, self._next, self._num_rows)
    self._next += len(taken)
    return pack.lay_out(self._pieces, taken, places, self._num_rows)

  def get_state(self) -> dict[str, Any]:
    return {'piece': self._next}

  def set_state(self, state: dict[str, Any]) -> None:
    self._next = state['piece']


class _Packed(grain.IterDataset):
  """The same as a data set, which grain can prefetch."""

  def __init__(self, pieces: pack.Pieces, num_rows: int):
    super().__init__()
    self._arguments = pieces, num_rows

  def __iter__(self) -> grain.DatasetIterator:
    return _PackedIterator(*self._arguments)


class PackIterator(grain.DatasetIterator):
  """Endless training batches of packed documents.

  Args:
    pieces: The documents.
    shard: Which of them.
    options: How.
  """

  def __init__(self, pieces: pack.Pieces, shard: Shard, options: Options):
    batches = experimental.ThreadPrefetchIterDataset(
      _Packed(pieces, shard.batch_size), prefetch_buffer_size=options.prefetch
    )
    self._shard = shard
    self._batches = iter(batches)
    super().__init__(self._batches)

  def __next__(self) -> Batch:
    return next(self._batches)

  def get_state(self) -> dict[str, Any]:
    """The state of grain's iterator, with the shard it belongs to."""
    shard = dataclasses.asdict(self._shard)
    return {'packing': 'pack', **shard, 'grain': self._batches.get_state()}

  def set_state(self, state: dict[str, Any]) -> None:
    """Continues; raises ValueError on another number of processes."""
    _check_packing(state, 'pack')
    for name, ours in dataclasses.asdict(self._shard).items():
      if state[name] != ours:
        raise ValueError(
          f'{name} was {state[name]} when the checkpoint was written and is '
          f"{ours} now. With packing='pack' a run continues only on the same "
          "number of processes and rows; packing='window' has no such limit."
        )
    self._batches.set_state(state['grain'])

  def close(self) -> None:
    """Ends the thread."""
    self._batches.close()
    super().close()


def _check_packing(state: dict[str, Any], packing: str) -> None:
  if state['packing'] != packing:
    raise ValueError(
      f'the checkpoint was written with packing={state["packing"]!r}; this run '
      f'has packing={packing!r}. Use the same.'
    )


def eval_batches(rows: Rows, shard: Shard, options: Options) -> Iterator[Batch]:
  """One pass in order; the same number of batches on every process."""
  groups = iter(_prefetched(_EvalGroups(rows, shard), options))
  try:
    for group in groups:
      yield from shard.split(group)
  finally:
    groups.close()

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Documents as ranges of flat byte storage: memory or files on disk.

Files are read by position (`pread`), not mapped: as fast for rows of a few
hundred bytes, but the resident memory stays flat over a corpus of any size
(mapped pages count as resident once touched), and a file that shrinks while
it is read is an error instead of a crash. Descriptors are opened on first use
and at most 128 stay open, so that storage can be pickled to worker processes.
"""

import array
import contextlib
import functools
import io
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging

from jaxtok.data import cache, splits
from jaxtok.data.source import documents

_MEMORY_BYTES = 64 << 20  # More than this goes to disk.
_NEAR_BYTES = 1 << 16  # How far a cut looks for the end of a line.


class _Descriptor:
  """An open file that closes itself when the last reader is done."""

  def __init__(self, path: str):
    self.number = os.open(path, os.O_RDONLY)

  def __del__(self):
    if hasattr(self, 'number'):
      os.close(self.number)


@functools.lru_cache(maxsize=128)
def _descriptor(path: str, size: int, mtime_ns: int) -> _Descriptor:
  found = os.stat(path)
  if (found.st_size, found.st_mtime_ns) != (size, mtime_ns):
    raise OSError(
      f'{path} has changed since it was opened (it had {size} bytes, now '
      f'{found.st_size}). Keep data files unchanged while a run uses them.'
    )
  return _Descriptor(path)


class FileArray:
  """A file as a one-dimensional array: only `len` and `array[a:b]`.

  Args:
    path: The file.
    dtype: Of its elements.
  """

  def __init__(self, path: str | os.PathLike, dtype: Any = np.uint8):
    self.path = os.path.abspath(path)
    self.dtype = np.dtype(dtype)
    stat = os.stat(self.path)
    self._identity = (self.path, stat.st_size, stat.st_mtime_ns)
    self._len = stat.st_size // self.dtype.itemsize

  def __len__(self) -> int:
    return self._len

  def __getitem__(self, part: slice) -> np.ndarray:
    return self.read([part.start], [part.stop - part.start], [False])

  def read(
    self, starts: list[int], lengths: list[int], gaps: list[bool]
  ) -> np.ndarray:
    """See `read`."""
    width, zero = self.dtype.itemsize, bytes(self.dtype.itemsize)
    number = itertools.repeat(_descriptor(*self._identity).number)
    scale = lambda xs: xs if width == 1 else [x * width for x in xs]
    parts = list(map(os.pread, number, scale(lengths), scale(starts)))
    if any(gaps):
      parts = [
        zero + part if gap else part
        for part, gap in zip(parts, gaps, strict=True)
      ]
    data = b''.join(parts)
    if len(data) != (sum(lengths) + sum(gaps)) * width:
      raise OSError(
        f'{self.path} has become shorter than {self._identity[1]} bytes. Keep '
        'data files unchanged while a run uses them.'
      )
    return np.frombuffer(data, self.dtype)


def read(
  array: Any, starts: list[int], lengths: list[int], gaps: list[bool]
) -> np.ndarray:
  """Reads ranges of an array, one after the other.

  Args:
    array: A `FileArray` or a uint8 array.
    starts: First element of each range.
    lengths: Elements of each.
    gaps: Whether to put a zero before it.
  """
  if isinstance(array, FileArray):
    return array.read(starts, lengths, gaps)
  view = array.data
  parts = [
    b'\0' + view[start : start + length]
    if gap
    else view[start : start + length]
    for start, length, gap in zip(starts, lengths, gaps, strict=True)
  ]
  return np.frombuffer(b''.join(parts), np.uint8)


class Stored:
  """A source whose documents are ranges of flat arrays of bytes.

  Args:
    arrays: uint8 arrays or `FileArray`s.
    ranges: For each document: number of the array, first byte, end.
    names: For each document; None means their numbers.
    key: See `Source`.
  """

  def __init__(
    self, arrays: list, ranges: Any, names: list[str] | None, key: str
  ):
    self.arrays = arrays
    self.ranges = np.asarray(ranges, np.int64).reshape(-1, 3)
    self.names = names
    self.key = key

  @property
  def sizes(self) -> np.ndarray:
    """Bytes of each document."""
    return self.ranges[:, 2] - self.ranges[:, 1]

  def read(
    self, documents: np.ndarray, starts: np.ndarray, lengths: np.ndarray
  ) -> np.ndarray:
    """Ranges within documents, one after the other.

    Args:
      documents: Their numbers.
      starts: First byte of each; -1 means a zero before the document.
      lengths: Bytes of each, with that zero.
    """
    if not len(documents):
      return np.zeros(0, np.uint8)
    gaps = starts < 0
    firsts = self.ranges[documents, 1] + starts + gaps
    arrays = self.ranges[documents, 0]
    used = np.unique(arrays).tolist()
    parts = []
    for number in used:
      chosen = arrays == number if len(used) > 1 else slice(None)
      stored = firsts[chosen], (lengths - gaps)[chosen], gaps[chosen]
      parts.append(
        read(self.arrays[number], *(part.tolist() for part in stored))
      )
    if len(parts) == 1:
      return parts[0]
    order = np.argsort(arrays, kind='stable')
    return _unsorted(np.concatenate(parts), lengths, order)

  def __len__(self) -> int:
    return len(self.ranges)

  def __getitem__(self, index: int) -> dict[str, Any]:
    array, start, stop = self.ranges[index].tolist()
    data = self.arrays[array][start:stop].tobytes()
    name = str(index) if self.names is None else self.names[index]
    return {'data': data, 'name': name}

  def head(self, max_bytes: int) -> 'Stored':
    """The first `max_bytes` bytes; the last document is cut."""
    ends = np.cumsum(self.sizes)
    count = min(int(np.searchsorted(ends, max_bytes)) + 1, len(self))
    ranges = self.ranges[:count].copy()
    if count:
      ranges[-1, 2] -= max(0, int(ends[count - 1]) - max_bytes)
    key = f'{self.key}:head={max_bytes}'
    names = None if self.names is None else self.names[:count]
    return Stored(self.arrays, ranges, names, key)


def _unsorted(data, lengths, order) -> np.ndarray:
  """Ranges of `lengths`, which follow each other in `order`, in their own."""
  ends = np.cumsum(lengths[order])
  starts = np.empty_like(lengths)
  starts[order] = ends - lengths[order]
  moves = starts - (np.cumsum(lengths) - lengths)
  return data[np.arange(len(data)) + np.repeat(moves, lengths)]


def pieces(array: Any, start: int, stop: int, max_bytes: int) -> Iterator:
  """Cuts a long document into documents of at most `max_bytes` bytes.

  A cut is moved back to the end of a line where one is near; the text itself
  is unchanged.

  Yields:
    First byte and end of each piece.
  """
  near = min(_NEAR_BYTES, max_bytes // 2)
  while stop - start > max_bytes:
    at = splits.cut_near(array, start + max_bytes, near)
    yield start, at
    start = at
  if stop > start:
    yield start, stop


def _reopen(path: pathlib.Path) -> tuple[FileArray, np.ndarray]:
  logging.info('Reusing unpacked documents in %s.', path)
  return FileArray(path), np.load(path.with_suffix('.ends.npy'))


def concatenate(
  contents: Iterable[Iterable[bytes]], key: str, cache_dir: Any = None
) -> tuple[Any, np.ndarray]:
  """Writes documents one after the other into flat storage.

  Up to 64 MiB stay in memory. More goes to a file in the cache folder, which
  later calls with the same key use again.

  Args:
    contents: For each document its bytes, in parts of any size.
    key: Changes when the documents change.
    cache_dir: The cache folder; None means `cache.default_cache_dir()`.

  Returns:
    A uint8 array or `FileArray`, and the end of each document (int64).
  """
  folder = pathlib.Path(cache_dir or cache.default_cache_dir())
  path = folder / 'bytes' / f'{cache.digest(key)}.bin'
  if path.exists():
    return _reopen(path)
  target, ends, size = io.BytesIO(), array.array('q'), 0
  with contextlib.ExitStack() as stack:
    for parts in contents:
      for part in parts:
        size += len(part)
        if size > _MEMORY_BYTES and isinstance(target, io.BytesIO):
          stack.enter_context(cache.writing(path))
          if path.exists():  # Another process has just written it.
            return _reopen(path)
          logging.info('Unpacking documents to %s.', path)
          file = stack.enter_context(open(path.with_suffix('.part'), 'wb'))
          file.write(target.getbuffer())
          target = file
        target.write(part)
      ends.append(size)
    ends = np.array(ends, np.int64)
    if isinstance(target, io.BytesIO):
      return np.frombuffer(target.getvalue(), np.uint8), ends
    target.close()
    np.save(path.with_suffix('.ends.npy'), ends)
    os.replace(path.with_suffix('.part'), path)
  return FileArray(path), ends


def store(source: Any, cache_dir: Any = None) -> Stored:
  """Any source as a stored one: as it is, or with its documents copied."""
  if isinstance(source, Stored):
    return source
  parts = ([data] for data in documents(source))
  array, ends = concatenate(parts, source.key, cache_dir)
  ranges = np.zeros((len(ends), 3), np.int64)
  ranges[1:, 1], ranges[:, 2] = ends[:-1], ends
  return Stored([array], ranges, None, source.key)

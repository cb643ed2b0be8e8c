# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The protocol of sources: documents by number.

A source holds the documents of one split. Its config has `make(split)` with
the splits 'train', 'validation' and 'test'. Which documents belong to a split,
and in which order they come, depends on names and contents only, so it is the
same on every machine and in every process.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

SPLITS = ('train', 'validation', 'test')
_MANY_BYTES = 16 << 20


@runtime_checkable
class Source(Protocol):
  """Random access to documents.

  Attributes:
    key: Equal keys mean equal documents; caches on disk are named by it.
  """

  key: str

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """A document: `{'data': bytes, 'name': str}`."""
    ...


def check_split(split: str) -> None:
  """Raises ValueError unless `split` is one of `SPLITS`."""
  if split not in SPLITS:
    raise ValueError(
      f'split={split!r} does not exist. Use one of: {", ".join(SPLITS)}.'
    )


def documents(source: Source) -> Iterator[bytes]:
  """The bytes of each document, in order.

  Sources for which one document at a time is slow have `many(indices)`, which
  is asked for up to 1024 documents and about 16 MB at once.
  """
  if not hasattr(source, 'many'):
    for index in range(len(source)):
      yield source[index]['data']
    return
  start, count = 0, 64
  while start < len(source):
    records = source.many(range(start, min(start + count, len(source))))
    yield from (record['data'] for record in records)
    start += len(records)
    size = sum(len(record['data']) for record in records)
    count = max(1, min(1024, _MANY_BYTES * len(records) // max(1, size)))


def corpus_id(texts: Iterable[bytes]) -> str:
  """Identifies a text by a hash of its documents' bytes."""
  state = hashlib.blake2b(digest_size=8)
  for data in texts:
    state.update(len(data).to_bytes(8, 'little'))
    state.update(data)
  return state.hexdigest()


class Subset:
  """Some documents of a source, in a given order.

  Args:
    source: Where the documents are; it has `many`.
    indices: Which of them.
    key: See `Source`.
  """

  def __init__(self, source: Any, indices: Any, key: str):
    self._source = source
    self._indices = indices
    self.key = key

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[int(self._indices[index])]

  def many(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several documents; see `documents`."""
    return self._source.many([int(self._indices[i]) for i in indices])


class Head:
  """The first `max_bytes` bytes of a source; the last document is cut.

  Args:
    source: Where the documents are.
    max_bytes: At least 1.
  """

  def __init__(self, source: Source, max_bytes: int):
    self._source = source
    self.key = f'{source.key}:head={max_bytes}'
    self._len, self._last_stop = len(source), None
    for index, data in enumerate(documents(source)):
      if len(data) >= max_bytes:
        self._len, self._last_stop = index + 1, max_bytes
        break
      max_bytes -= len(data)

  def __len__(self) -> int:
    return self._len

  def __getitem__(self, index: int) -> dict[str, Any]:
    record = self._source[index]
    if index == self._len - 1:
      record = {**record, 'data': record['data'][: self._last_stop]}
    return record


def head(source: Source, max_bytes: int) -> Source:
  """The first `max_bytes` source bytes; 0 means all of them."""
  if max_bytes < 0:
    raise ValueError(f'max_bytes must be >= 0 (0: all), got {max_bytes}.')
  if max_bytes == 0:
    return source
  if hasattr(source, 'head'):
    return source.head(max_bytes)
  return Head(source, max_bytes)


def from_spec(spec: str) -> Any:
  """The source config that a `--data=SPEC` flag means.

  Args:
    spec: 'stdlib', 'tfds:NAME' (e.g. 'tfds:lm1b'), or a path: a file, a
      folder or a glob; '.jsonl' (also .xz, .gz, .bz2) is read as JSON lines,
      whose field may follow ('a.jsonl:passage', else 'text'),
      '.array_record' as ArrayRecord, anything else as it is.

  Returns:
    A config with `make(split)`.
  """
  from jaxtok.data import array_records, files, jsonl, stdlib, tfds

  if not spec:
    raise ValueError(
      'data is empty. Give a file, a folder, a glob, "tfds:NAME" or "stdlib".'
    )
  scheme, colon, name = spec.partition(':')
  if colon and scheme == 'tfds':
    return tfds.Tfds(name=name)
  if spec == 'stdlib' and not os.path.exists(spec):
    return stdlib.Stdlib()
  path, colon, field = spec.rpartition(':')
  if colon and _is_jsonl(path) and not os.path.exists(spec):
    return jsonl.Jsonl(path=path, field=field)
  if _is_jsonl(spec):
    return jsonl.Jsonl(path=spec)
  if spec.lower().endswith('.array_record'):
    return array_records.ArrayRecord(path=spec)
  return files.Files(path=spec)


def _is_jsonl(path: str) -> bool:
  base = path.lower()
  for suffix in ('.xz', '.gz', '.bz2'):
    base = base.removesuffix(suffix)
  return base.endswith('.jsonl')

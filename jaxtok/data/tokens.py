# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A corpus as tokens: any range of any document, with its byte charges.

Each token is charged with the source bytes that it covers, so that the
charges of a document sum to its length, with every tokenizer. Tokenizers with
one token per byte work on the fly from stored bytes. All others run once, into
a cache on disk that holds token and charge side by side.
"""

import array
import itertools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tqdm
from absl import logging

from jaxtok.data import cache, stored
from jaxtok.data.source import Source, documents

_FORMAT = 1  # Of the cache on disk.
_GROUP_BYTES = 4 << 20  # Source bytes tokenized at once.


@runtime_checkable
class Tokens(Protocol):
  """The tokens of a source.

  Attributes:
    lengths: Tokens of each document, without special ones (int64).
    num_bytes: Source bytes of all documents.
    bos: The id that stands before each document.
    period: Tokens per window of the tokenizer.
  """

  lengths: np.ndarray
  num_bytes: int
  bos: int
  period: int

  def read(
    self, documents: np.ndarray, starts: np.ndarray, lengths: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Ids and charges of ranges within documents, one after the other.

    Both may be of any integer type: narrow ones are faster to come by.

    Args:
      documents: Their numbers.
      starts: First token of each; -1 means the bos before the document.
      lengths: Tokens of each, with that bos.
    """
    ...


def bos_id(tokenizer: Any) -> int:
  """The token between documents: bos, or eos where there is no bos."""
  for name in ('bos', 'eos'):
    if (found := getattr(tokenizer.special, name)) is not None:
      return found
  raise ValueError(
    f'{type(tokenizer).__name__} has neither a bos nor an eos token, so '
    'documents cannot be told apart. Build it with one of them.'
  )


def byte_table(tokenizer: Any) -> np.ndarray | None:
  """The id of each byte, if the tokenizer has one token for any byte."""
  if tokenizer.kind != 'concat' or tokenizer.lossless != 'bytes':
    return None
  if int(np.max(tokenizer.token_byte_lengths)) > 1:
    return None
  table = tokenizer.encode(bytes(range(256)))
  return table.astype(np.int32) if len(table) == 256 else None


class ByteTokens:
  """Tokens of a bytewise tokenizer, made when they are read.

  Args:
    source: The documents.
    table: The id of each byte.
    bos: See `Tokens`.
  """

  period = 1

  def __init__(self, source: stored.Stored, table: np.ndarray, bos: int):
    self._source = source
    is_short = max(int(table.max()), bos) < 1 << 16
    self._dtype = np.uint16 if is_short else np.int32
    is_identity = (table == np.arange(256)).all()
    self._table = None if is_identity else table.astype(self._dtype)
    self.lengths = source.sizes
    self.num_bytes = int(self.lengths.sum())
    self.bos = bos

  def read(
    self, documents: np.ndarray, starts: np.ndarray, lengths: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `Tokens`."""
    data = self._source.read(documents, starts, lengths)
    ids = data.astype(self._dtype) if self._table is None else self._table[data]
    charges = np.ones(len(ids), np.uint8)
    is_bos = starts < 0
    if is_bos.any():
      at_bos = (np.cumsum(lengths) - lengths)[is_bos]
      ids[at_bos], charges[at_bos] = self.bos, 0
    return ids, charges


class CachedTokens:
  """Tokens read from a cache on disk.

  Args:
    folder: Made by `_build`.
    bos: See `Tokens`.
    period: See `Tokens`.
  """

  def __init__(self, folder: pathlib.Path, bos: int, period: int = 1):
    meta = json.loads((folder / 'meta.json').read_text())
    ends = np.load(folder / 'ends.npy')
    dtype = [('token', meta['token']), ('num_bytes', meta['num_bytes'])]
    self._tokens = stored.FileArray(folder / 'tokens.bin', dtype)
    self._starts = np.concatenate([[0], ends])
    self.lengths = np.diff(self._starts)
    self.num_bytes = meta['bytes']
    self.bos = bos
    self.period = period

  def read(
    self, documents: np.ndarray, starts: np.ndarray, lengths: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `Tokens`."""
    gaps = starts < 0
    found = self._tokens.read(
      (self._starts[documents] + starts + gaps).tolist(),
      (lengths - gaps).tolist(),
      gaps.tolist(),
    )
    ids, charges = found['token'].copy(), found['num_bytes']
    ids[(np.cumsum(lengths) - lengths)[gaps]] = self.bos
    return ids, charges


def charges_of(
  tokenizer: Any,
  data: bytes,
  ids: np.ndarray | None = None,
  offsets: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The tokens of a document and the source bytes charged to each.

  Where tokens share bytes (a window of bytes that becomes several ids), the
  first of them is charged; bytes that no token covers are charged to the next
  token. So each byte is charged once.

  Args:
    tokenizer: Any tokenizer.
    data: The document.
    ids: Its tokens, if they are known.
    offsets: The range of bytes of each, if they are known.

  Returns:
    Ids and charges.

  Raises:
    ValueError: If a loss-free tokenizer does not cover the document.
  """
  if tokenizer.kind == 'concat':
    ids = tokenizer.encode(data) if ids is None else ids
    charges = tokenizer.token_byte_lengths[ids].astype(np.int64)
  else:
    if offsets is None:
      ids, offsets = tokenizer.encode_with_offsets(data)
    reached = np.maximum.accumulate(offsets[:, 1]) if len(ids) else ids
    charges = np.diff(reached, prepend=0)
    if len(ids):
      charges[-1] += len(data) - reached[-1]
  if charges.sum() != len(data) and tokenizer.kind != 'lossy':
    raise ValueError(
      f'{type(tokenizer).__name__} charged {charges.sum()} bytes to the tokens '
      f'of a document of {len(data)} bytes, which begins {data[:40]!r}. Bits '
      'per byte would be wrong; the tokenizer must cover every byte once.'
    )
  return ids, charges


def _groups(source: Source) -> Iterator[list[bytes]]:
  group, size = [], 0
  for data in documents(source):
    group.append(data)
    size += len(data)
    if size >= _GROUP_BYTES:
      yield group
      group, size = [], 0
  if group:
    yield group


def _encode(tokenizer: Any, group: list[bytes]) -> Iterator[tuple]:
  """Ids and charges of each document of a group."""
  if hasattr(tokenizer, 'encode_batch_with_offsets'):
    pairs = tokenizer.encode_batch_with_offsets(group)
    for data, (ids, offsets) in zip(group, pairs, strict=True):
      yield charges_of(tokenizer, data, ids, offsets)
    return
  if tokenizer.kind != 'concat':
    for data in group:
      yield charges_of(tokenizer, data)
    return
  # The charges of the whole group at once: documents may be short.
  ragged = tokenizer.encode_batch(group)
  charges = tokenizer.token_byte_lengths[ragged.values]
  reached = np.append(0, np.cumsum(charges, dtype=np.int64))
  sizes = np.diff(reached[ragged.row_splits])
  splits = ragged.row_splits.tolist()
  for i, (start, stop) in enumerate(itertools.pairwise(splits)):
    if sizes[i] != len(group[i]):  # Let it say what is wrong.
      charges_of(tokenizer, group[i], ragged.values[start:stop])
    yield ragged.values[start:stop], charges[start:stop]


@runtime_checkable
class Transform(Protocol):
  """Makes tokens of documents in another way than the tokenizer alone.

  Attributes:
    key: Equal keys mean equal tokens of equal documents.
  """

  key: str

  def __call__(
    self, data: bytes, index: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and charges of what a document becomes, one document or several.

    Args:
      data: The document.
      index: Its number.
    """
    ...


def _tokenized(
  source: Source, tokenizer: Any, transform: Transform | None
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
  """Ids and charges of what each document becomes."""
  if transform is None:
    for group in _groups(source):
      for pair in _encode(tokenizer, group):
        yield [pair]
    return
  for index, data in enumerate(documents(source)):
    yield list(transform(data, index))


def _build(
  source: Source,
  tokenizer: Any,
  transform: Transform | None,
  folder: pathlib.Path,
) -> None:
  """Tokenizes a source into `folder`."""
  is_short = tokenizer.kind == 'concat' and (
    int(np.max(tokenizer.token_byte_lengths)) < 1 << 16
  )
  dtypes = {
    'token': '<u2' if tokenizer.vocab_size <= 1 << 16 else '<u4',
    'num_bytes': '<u2' if is_short else '<u4',
  }
  record = np.dtype(list(dtypes.items()))
  folder.mkdir(parents=True)
  ends, count, size, began = array.array('q'), 0, 0, time.monotonic()
  progress = tqdm.tqdm(
    total=len(source), desc='tokenizing', unit='doc', disable=None, leave=False
  )
  with open(folder / 'tokens.bin', 'wb') as file, progress:
    for pairs in _tokenized(source, tokenizer, transform):
      for ids, charges in pairs:
        rows = np.empty(len(ids), record)
        rows['token'], rows['num_bytes'] = ids, charges
        file.write(rows.data)
        count, size = count + len(ids), size + int(charges.sum())
        ends.append(count)
      progress.update()
  np.save(folder / 'ends.npy', np.array(ends, np.int64))
  seconds = time.monotonic() - began
  meta = {**dtypes, 'bytes': size, 'tokens': count, 'seconds': seconds}
  (folder / 'meta.json').write_text(json.dumps(meta))
  logging.info(
    'Tokenized %d documents, %.1f MB, into %d tokens in %.1f s.',
    *(len(ends), size / 1e6, count, seconds),
  )


def open_tokens(
  source: Source,
  tokenizer: Any,
  cache_dir: Any = None,
  transform: Transform | None = None,
) -> Tokens:
  """The tokens of a source.

  Args:
    source: The documents.
    tokenizer: Any tokenizer with a bos or eos token.
    cache_dir: Where tokens are cached; None means
      `cache.default_cache_dir()`.
    transform: What else happens to documents, e.g. `fim.Cuts`.

  Returns:
    Tokens made on the fly (one token per byte) or from the cache, which is
    made by the first call and used again by later ones, in any process.
  """
  bos = bos_id(tokenizer)
  table = byte_table(tokenizer) if transform is None else None
  if table is not None:
    return ByteTokens(stored.store(source, cache_dir), table, bos)
  period = getattr(tokenizer, 'tokens_per_window', 1)
  how = () if transform is None else (transform.key,)
  name = cache.digest(_FORMAT, tokenizer.fingerprint, source.key, *how)
  root = pathlib.Path(cache_dir or cache.default_cache_dir())
  folder = root / 'tokens' / name
  if folder.exists():
    logging.info('Reusing tokens in %s.', folder)
    return CachedTokens(folder, bos, period)
  with cache.writing(folder):
    if not folder.exists():  # Else another process has just made it.
      logging.info('Tokenizing %d documents to %s.', len(source), folder)
      part = folder.with_suffix('.part')
      shutil.rmtree(part, ignore_errors=True)
      _build(source, tokenizer, transform, part)
      os.rename(part, folder)
  return CachedTokens(folder, bos, period)

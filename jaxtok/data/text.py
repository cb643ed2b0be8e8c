# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text as batches of rows: source, tokenizer, packing.

  data = text.Config(source=text.Files(path='novels/'), seq_len=256)
  batches = data.make(tokenizer).train_iterator(batch_size=32, seed=0)

The source bytes of all rows of one pass sum to the bytes of the corpus, with
every tokenizer, packing and number of processes.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from jaxtok.config import configclass
from jaxtok.data import source as source_lib
from jaxtok.data import tokens as tokens_lib
from jaxtok.data import window
from jaxtok.data.array_records import ArrayRecord
from jaxtok.data.batch import Batch
from jaxtok.data.files import Files
from jaxtok.data.jsonl import Jsonl
from jaxtok.data.source import from_spec
from jaxtok.data.stdlib import Stdlib
from jaxtok.data.tfds import Tfds

__all__ = [
  'ArrayRecord',
  'Config',
  'Files',
  'Jsonl',
  'Stdlib',
  'Text',
  'Tfds',
  'from_spec',
]

_PACKINGS = ('window', 'pack')


@configclass
class Config:
  """Text for a language model."""

  source: Any = dataclasses.field(default_factory=Stdlib)  # Any source config.
  seq_len: int = 256  # Row length T.
  packing: str = 'window'  # Or 'pack': whole documents, see `data.pack`.
  num_threads: int = 1  # Threads that make batches.
  prefetch: int = 8  # Batches that are kept ready.
  num_workers: int = 0  # Processes that make batches; 0 in notebooks.

  def __post_init__(self):
    for name, low in (
      *(('seq_len', 1), ('num_threads', 1), ('prefetch', 1)),
      ('num_workers', 0),
    ):
      if getattr(self, name) < low:
        raise ValueError(f'{name} must be >= {low}, got {getattr(self, name)}.')
    if self.packing not in _PACKINGS:
      raise ValueError(
        f'packing={self.packing!r} does not exist. Use one of: '
        f'{", ".join(_PACKINGS)}.'
      )
    if self.packing == 'pack' and self.num_workers:
      raise ValueError(
        f"num_workers={self.num_workers} does not go with packing='pack', "
        'which makes one batch after the other. Use num_workers=0.'
      )

  def documents(self, split: str) -> Iterator[bytes]:
    """The documents of a split, without a tokenizer."""
    return source_lib.documents(self.source.make(split))

  def make(self, tokenizer: Any, cache_dir: Any = None) -> 'Text':
    """Builds the pipeline.

    Args:
      tokenizer: Any tokenizer with a bos or eos token.
      cache_dir: Where tokens are cached; None means `$JAXTOK_CACHE` or
        `~/.cache/jaxtok`.
    """
    return Text(self, tokenizer, cache_dir)


class Text:
  """A tokenized text; splits are opened when they are first used.

  In each method `max_bytes` limits a split to its first bytes, in document
  order, the last document being cut: the same text with every tokenizer. 0
  means all.
  """

  def __init__(self, config: Config, tokenizer: Any, cache_dir: Any = None):
    self.config = config
    self._tokenizer = tokenizer
    self._cache_dir = cache_dir
    self._sources, self._tokens, self._ids = {}, {}, {}

  def source(self, split: str, max_bytes: int = 0) -> source_lib.Source:
    """The documents by number."""
    key = split, max_bytes
    if key not in self._sources:
      whole = self.config.source.make(split)
      if not len(whole):
        raise ValueError(
          f'{type(self.config.source).__name__} has no documents for {split}.'
        )
      self._sources[key] = source_lib.head(whole, max_bytes)
    return self._sources[key]

  def tokens(self, split: str, max_bytes: int = 0) -> tokens_lib.Tokens:
    """The tokens of each document; the first call may tokenize the split."""
    key = split, max_bytes
    if key not in self._tokens:
      self._tokens[key] = tokens_lib.open_tokens(
        self.source(split, max_bytes),
        self._tokenizer,
        self._cache_dir,
        self._transform(split),
      )
    return self._tokens[key]

  def _transform(self, split: str) -> tokens_lib.Transform | None:
    """What else happens to documents of a split; subclasses may say."""
    del split
    return None

  def documents(self, split: str, max_bytes: int = 0) -> Iterator[bytes]:
    """The bytes of each document, in order."""
    return source_lib.documents(self.source(split, max_bytes))

  def num_bytes(self, split: str, max_bytes: int = 0) -> int:
    """Source bytes."""
    return self.tokens(split, max_bytes).num_bytes

  def corpus_id(self, split: str, max_bytes: int = 0) -> str:
    """Identifies a text: a hash of its documents' bytes.

    Neither the tokenizer nor the documents' names play a part; `max_bytes`
    only by what it cuts off.
    """
    key = split, max_bytes
    if key not in self._ids:
      self._ids[key] = source_lib.corpus_id(self.documents(split, max_bytes))
    return self._ids[key]

  def describe(self, split: str, max_bytes: int = 0) -> str:
    """One line: documents, bytes, rows."""
    count = len(self.source(split, max_bytes))
    return (
      f'{split}: {count:,} documents, {self.num_bytes(split, max_bytes):,} '
      f'bytes, {len(self.rows(split, max_bytes)):,} rows of '
      f'{self.config.seq_len} tokens'
    )

  def rows(self, split: str, max_bytes: int = 0) -> window.Windows:
    """One pass in document order, as windows; each row can be made alone."""
    return window.Windows(self.tokens(split, max_bytes), self.config.seq_len)

  def eval_batches(
    self,
    split: str,
    *,
    batch_size: int,
    max_bytes: int = 0,
    process_index: int = 0,
    process_count: int = 1,
  ) -> Iterator[Batch]:
    """One pass over `rows`, in order, whatever the packing.

    Args:
      split: Which documents.
      batch_size: Rows per process.
      max_bytes: See the class.
      process_index: Which process this is.
      process_count: How many there are.

    Yields:
      Batches of one shape, the same number on every process; missing rows are
      zeros (segment 0, loss mask 0).
    """
    from jaxtok.data import pipeline

    shard = pipeline.Shard(
      batch_size=batch_size,
      process_index=process_index,
      process_count=process_count,
    )
    rows = self.rows(split, max_bytes)
    return pipeline.eval_batches(rows, shard, self._options)

  def train_iterator(
    self,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    split: str = 'train',
  ) -> Any:
    """Endless training batches, a function of seed and position.

    Args:
      batch_size: Rows per process.
      seed: Of the order.
      process_index: Which process this is.
      process_count: How many there are.
      split: Which documents.

    Returns:
      A `grain.DatasetIterator` with `get_state` and `set_state`. With windows,
      global batch b holds rows `[b * B, (b + 1) * B)` of one endless stream,
      of which process i gets the i-th part, B being the global batch size.
    """
    from jaxtok.data import pack, pipeline

    shard = pipeline.Shard(
      batch_size=batch_size,
      process_index=process_index,
      process_count=process_count,
    )
    tokens, seq_len = self.tokens(split), self.config.seq_len
    if not window.num_rows(tokens, seq_len):
      raise ValueError(f'the {split} split holds no bytes to train on.')
    if self.config.packing == 'window':
      rows = self.stream(split, seed)
      return pipeline.WindowIterator(rows, shard, self._options)
    pieces = pack.Pieces(
      tokens,
      seq_len,
      seed=seed,
      process_index=process_index,
      process_count=process_count,
    )
    return pipeline.PackIterator(pieces, shard, self._options)

  def stream(self, split: str, seed: int) -> window.Shuffled:
    """The endless stream of shuffled rows of `train_iterator`."""
    return window.Shuffled(self.tokens(split), self.config.seq_len, seed)

  @functools.cached_property
  def _options(self) -> Any:
    from jaxtok.data import pipeline

    return pipeline.Options(
      num_threads=self.config.num_threads,
      prefetch=self.config.prefetch,
      num_workers=self.config.num_workers,
    )

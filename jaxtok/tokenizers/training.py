# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains byte-level BPE vocabularies.

Ids 0..255 are the bytes, as in the byte tokenizer; then come special tokens,
then merges in the order in which they were found, so that a smaller
vocabulary is a prefix of a larger one.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from absl import logging

from jaxtok.tokenizers import base, bytelevel, libraries, utf8

Documents = Iterable[bytes | str]

# Words longer than this are cut for training, whose time is quadratic in the
# length of a word (35 s for one word of 200,000 letters).
_MAX_WORD = 4096
_LONG_WORD = re.compile(rf'(\S{{{_MAX_WORD}}}|\s{{{_MAX_WORD}}})')
_LONG_SPACE = re.compile(rf'\s{{{_MAX_WORD}}}')


def train_spec(
  documents: Documents,
  vocab_size: int,
  pre_tokenizer: dict[str, Any],
  special: tuple[str, ...],
  *,
  min_frequency: int = 2,
  max_bytes: int = 0,
  max_token_bytes: int = 0,
) -> bytelevel.Spec:
  """Trains on the valid UTF-8 of documents.

  Args:
    documents: Training text.
    vocab_size: Number of ids at most: 256 bytes, special tokens, merges.
    pre_tokenizer: How text is cut into words; see `bytelevel.split_on`.
    special: Names of special tokens, which get the ids after the bytes.
    min_frequency: Pairs seen less often are not merged.
    max_bytes: Read at most this much text; 0 reads all.
    max_token_bytes: Longest token; 0 sets no limit.

  Returns:
    The content of a tokenizer.json.

  Raises:
    ValueError: If the documents hold no bytes.
  """
  num_bytes = 0

  def texts() -> Iterator[str]:
    nonlocal num_bytes
    for data in limited(documents, max_bytes):
      num_bytes += len(data)
      for text in utf8.runs(data)[::2]:
        yield from _cut_long_words(text)

  fixed = 256 + len(special)
  merges = libraries.train_merges(
    texts(),
    vocab_size - fixed,
    pre_tokenizer,
    min_frequency=min_frequency,
    max_token_bytes=max_token_bytes,
  )
  if not num_bytes:
    raise ValueError(
      'the training text is empty: the documents hold no bytes. Check the '
      'data source and its training split.'
    )
  merges = _without(special, merges)
  tokens = [*bytelevel.ALPHABET, *special, *(a + b for a, b in merges)]
  vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
  if len(vocab) < vocab_size:
    logging.warning(
      'BPE found only %d of the %d tokens asked for in %d bytes of text.',
      len(vocab),
      vocab_size,
      num_bytes,
    )
  ids = {name: vocab.pop(name) for name in special}
  return bytelevel.make_spec(vocab, merges, ids, pre_tokenizer)


def _without(
  names: tuple[str, ...], merges: list[tuple[str, str]]
) -> list[tuple[str, str]]:
  """Leaves out merges that lead to the name of a special token."""
  forbidden, kept = set(names), []
  for left, right in merges:
    if {left, right, left + right} & forbidden:
      forbidden.add(left + right)
    else:
      kept.append((left, right))
  return kept


def limited(documents: Documents, max_bytes: int) -> Iterator[bytes]:
  """Documents until `max_bytes` are read; 0 reads all."""
  if isinstance(documents, bytes | str):
    raise TypeError(
      'documents must be an iterable of bytes or str, one per document; got '
      f'a single {type(documents).__name__}. Use [text].'
    )
  left = max_bytes
  for document in documents:
    data = base.as_bytes(document)
    if max_bytes:
      data = data[:left]
      left -= len(data)
    yield data
    if max_bytes and not left:
      return


def _cut_long_words(text: str) -> list[str]:
  longest = max(map(len, text.split()), default=0)
  if longest <= _MAX_WORD and not _LONG_SPACE.search(text):
    return [text]
  return [part for part in _LONG_WORD.split(text) if part]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which token sequences may stand for the beginning of a text; on the host.

`Vocabulary` finds the tokens whose text begins in a given way. `Canonical` says
which tokens may follow others in an encoding of some text.

Tokenizers emit one encoding per text, so most token sequences never occur. What
may follow depends on the words around the end of a text only: tokens do not
cross words, and later text can move none but the last two boundaries of words
under the published regexes (GPT-2, cl100k, o200k), which do not look back. So
tokens are checked within a short tail, from a boundary that stays.

A sequence is valid if an encoding of some text begins with it. Usually that
text is its own, but a regex may look ahead: `\\n\\n` is one word of GPT-2 at
the end of a text, and two before a letter. Where a text ends in white space,
near an apostrophe or within a character, some continuations are tried too.
"""

import bisect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxtok.tokenizers import base

NUM_SYMBOLS = 257  # The bytes, and the end of the text.
END = 256

# What may follow where the encoding of a text depends on it.
_PROBES = (
  *(b'a', b'l', b'e', b' a', b'1', b'.'),
  *(b'\n', b' \n', b'\t\n', b'\n\n', b'\r\n', b'  '),
)
_MAX_TAIL_WORDS = 8


def as_texts(texts: Any, name: str) -> list[bytes]:
  """Texts as bytes; a `str` gives its UTF-8.

  Args:
    texts: Several of them.
    name: Of the argument, for messages.

  Raises:
    TypeError: If they are one text, or hold what is none.
  """
  if isinstance(texts, base.Data):
    raise TypeError(
      f'{name}={texts!r} is a single {type(texts).__name__}. Use [text] for '
      'one text.'
    )
  for i, text in enumerate(texts):
    if not isinstance(text, base.Data):
      raise TypeError(
        f'{name}[{i}] is of type {type(text).__name__}. A text is bytes, or a '
        'str, which means its UTF-8.'
      )
  return [base.as_bytes(text) for text in texts]


class Vocabulary:
  """The tokens of a tokenizer in the order of their bytes.

  Attributes:
    ids_n: Their ids, without special tokens.
    texts: Their bytes, ascending.
    end_ids: Special ids that end a text.
  """

  def __init__(self, tokenizer: Any):
    """Sorts the tokens.

    Args:
      tokenizer: Of kind 'concat'; see `tokenizers.base`.

    Raises:
      TypeError: If ids of the tokenizer stand for no fixed bytes, or text is
        encoded with ids that stand for none.
    """
    if tokenizer.kind != 'concat':
      raise TypeError(
        f'{tokenizer!r} is of kind {tokenizer.kind!r}: its ids stand for no '
        "fixed bytes. Byte probabilities need kind='concat'."
      )
    found = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    silent = {i for i, text in enumerate(found) if not text}
    silent -= tokenizer.special.ids()
    if silent and tokenizer.max_tokens_per_byte > 1:
      raise TypeError(
        f'{tokenizer!r} puts tokens into a text that stand for no bytes (ids '
        f'{_shown(silent)}), and a law over bytes has no place for them. Use a '
        'tokenizer whose tokens all have bytes: models that find words '
        'themselves (hat2, spacebyte) read tokenizers.bytes.'
      )
    pairs = sorted((text, i) for i, text in enumerate(found) if text)
    self.texts = [text for text, _ in pairs]
    self.ids_n = np.array([i for _, i in pairs], np.int64)
    special = tokenizer.special
    ends = {special.bos, special.eos} - {None}
    self.end_ids = np.array(sorted(ends), np.int64)
    self.longest = max(map(len, self.texts))
    self.lengths_n = np.array([len(text) for text in self.texts])
    self._bytes = np.full((len(pairs), self.longest + 1), -1, np.int16)
    for row, text in zip(self._bytes, self.texts, strict=True):
      row[: len(text)] = np.frombuffer(text, np.uint8)

  def __len__(self) -> int:
    return len(self.texts)

  def narrow(
    self, low: int, high: int, depth: int, byte: int
  ) -> tuple[int, int]:
    """The tokens of a range that go on with a byte.

    Args:
      low: First token of a range with the same first `depth` bytes.
      high: One past the last.
      depth: Where the byte stands.
      byte: Its value.
    """
    column = self._bytes[low:high, depth]
    return (
      low + int(np.searchsorted(column, byte, 'left')),
      low + int(np.searchsorted(column, byte, 'right')),
    )

  def complete(self, low: int, high: int, depth: int) -> int:
    """One past the tokens of such a range that end at `depth`."""
    column = self._bytes[low:high, depth]
    return low + int(np.searchsorted(column, -1, 'right'))

  def next_bytes(self, low: int, high: int, depth: int) -> Int[np.ndarray, 'n']:
    """The byte at `depth` of each token of a range; -1 where one ends."""
    return self._bytes[low:high, depth]

  def find(self, text: bytes) -> tuple[int, int]:
    """The range of tokens whose bytes begin with `text`."""
    beyond = text + b'\xff' * (self.longest + 1)
    return (
      bisect.bisect_left(self.texts, text),
      bisect.bisect_left(self.texts, beyond),
    )


def _shown(ids: Iterable[int]) -> str:
  """The first few of some ids."""
  ids = sorted(ids)
  return ', '.join(map(str, ids[:8])) + (', ...' if len(ids) > 8 else '')


class Canonical:
  """What may follow in an encoding; remembers what it was asked.

  If each token is one byte and no two are the same, every sequence of them is
  an encoding. A tokenizer without `split` has one word per text.
  """

  def __init__(self, tokenizer: Any, vocabulary: Vocabulary):
    self._tokenizer, self._vocabulary = tokenizer, vocabulary
    num_texts = len(set(vocabulary.texts))
    self._is_free = vocabulary.longest == 1 and num_texts == len(vocabulary)
    self._has_words = isinstance(tokenizer, base.PretokenSplit)
    self._known: dict[tuple[int, ...], np.ndarray] = {}
    self._ends: dict[tuple[int, ...], bool] = {}

  def allowed(
    self, tail: tuple[int, ...], wanted_n: Bool[np.ndarray, 'n']
  ) -> Bool[np.ndarray, 'n']:
    """Which of the wanted tokens may follow; False for all others.

    Args:
      tail: The last tokens, from a boundary of words that stays.
      wanted_n: Tokens of the vocabulary, in its order.
    """
    if self._is_free:
      return wanted_n
    if tail not in self._known:  # 2: not looked at yet.
      self._known[tail] = np.full(len(self._vocabulary), 2, np.int8)
    known_n = self._known[tail]
    asked = np.flatnonzero(wanted_n & (known_n == 2))
    if asked.size:
      known_n[asked] = self._check(tail, asked)
    return wanted_n & (known_n == 1)

  def may_end(self, tail: tuple[int, ...]) -> bool:
    """Whether a text may end here."""
    if self._is_free:
      return True
    if tail not in self._ends:
      found = self._tokenizer.encode(self._text(tail))
      self._ends[tail] = tuple(found.tolist()) == tail
    return self._ends[tail]

  def shorten(self, tail: tuple[int, ...]) -> tuple[int, ...]:
    """The tail from a later boundary of words on, if it has become long."""
    if self._is_free:
      return ()
    starts = self._starts(self._text(tail))
    if len(starts) < _MAX_TAIL_WORDS:
      return tail
    keep_from, at = int(starts[-2]), 0
    for i, token in enumerate(tail):
      if at == keep_from:
        return tail[i:]
      at += len(self._tokenizer.token_bytes(token))
    return tail  # No token begins there: not the only way to cut the text.

  def settled(self, text: bytes) -> tuple[tuple[int, ...], int]:
    """The tokens of a text that no continuation changes, and their bytes."""
    if self._is_free:
      return tuple(self._tokenizer.encode(text).tolist()), len(text)
    starts = self._starts(text)
    if len(starts) < 3:
      return (), 0
    at = int(starts[-2])
    head = tuple(self._tokenizer.encode(text[:at]).tolist())
    whole = tuple(self._tokenizer.encode(text).tolist())
    return (head, at) if whole[: len(head)] == head else ((), 0)

  def _starts(self, text: bytes) -> Int[np.ndarray, 'w']:
    """Where words begin; a character that is not whole yet is left out."""
    if not self._has_words:
      return np.zeros(min(len(text), 1), np.int64)
    last = max(len(text) - 4, 0)
    for at in range(len(text) - 1, last - 1, -1):
      if text[at] >= 0xC0 and _missing(text[at:]):
        text = text[:at]
        break
    return self._tokenizer.split(text)[:, 0]

  def _text(self, tail: Iterable[int]) -> bytes:
    return b''.join(self._tokenizer.token_bytes(t) for t in tail)

  def _check(
    self, tail: tuple[int, ...], asked: Int[np.ndarray, 'a']
  ) -> Bool[np.ndarray, 'a']:
    head = self._text(tail)
    texts = [head + self._vocabulary.texts[i] for i in asked]
    ids = self._vocabulary.ids_n[asked]
    is_valid = self._begins(tail, ids, texts, [b''] * len(asked))
    open_ones = [
      (i, probe)
      for i in np.flatnonzero(~is_valid)
      for probe in _continuations(texts[i])
    ]
    if open_ones:
      places, probes = zip(*open_ones, strict=True)
      found = self._begins(
        tail, ids[list(places)], [texts[i] for i in places], probes
      )
      is_valid[np.array(places)[found]] = True
    return is_valid

  def _begins(
    self,
    tail: tuple[int, ...],
    ids: Int[np.ndarray, 'a'],
    texts: Sequence[bytes],
    probes: Sequence[bytes],
  ) -> Bool[np.ndarray, 'a']:
    """Whether the encoding of text and probe begins with tail and id."""
    ragged = self._tokenizer.encode_batch(
      [text + probe for text, probe in zip(texts, probes, strict=True)]
    )
    num, starts = len(tail) + 1, ragged.row_splits[:-1]
    is_long = np.diff(ragged.row_splits) >= num
    want = np.empty((len(ids), num), np.int64)
    want[:, :-1], want[:, -1] = tail, ids
    last = max(len(ragged.values) - 1, 0)
    at = np.minimum(starts[:, None] + np.arange(num), last)
    return is_long & (ragged.values[at] == want).all(axis=1)


def _continuations(text: bytes) -> list[bytes]:
  """What to try behind a text that is not encoded as its tokens by itself."""
  missing = _missing(text)
  if missing:
    rest = b'\x80' * (missing - 1)
    return [rest + bytes([b]) for b in range(0x80, 0xC0)]
  end = text[-3:]
  if b"'" in end or end[-1:].isspace() or end[-1:] >= b'\x80':
    return list(_PROBES)
  return []


def _missing(text: bytes) -> int:
  """Bytes that are missing from the last character; 0 if it is whole."""
  for back in range(1, min(3, len(text)) + 1):
    byte = text[-back]
    if byte >= 0xC0:
      size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
      return max(size - back, 0)
    if byte < 0x80:
      return 0
  return 0

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens of DNA: bases, k-mers side by side or overlapping, BPE of genomes.

  b'ACGTAC'  ->  A C G T A C             # Config(k=1)
             ->  ACG TAC                 # Config(k=3)
             ->  ACG CGT GTA TAC         # Config(k=3, overlapping=True)
             ->  ACGT AC                 # TrainBpe, after enough ACGTs

Overlapping 6-mers are DNABERT's (Ji et al. 2021), those side by side the
Nucleotide Transformer's (Dalla-Torre et al. 2023), BPE is DNABERT-2's (Zhou et
al. 2023, arXiv:2306.15006, section 3.1).

A k-mer is k letters of ACGT in a row; what is left of such a run, N (an
unknown base) and any other byte are tokens of their own. Case matters: sources
of genomes write upper case.

Ids: unk 0, cls = bos 1, sep = eos 2, pad 3, mask 4 (the order of DNABERT-2's
vocabulary), then the 251 bytes that are no base, then A C G T N, then k-mers or
merges. So any bytes round trip, and all ids from `first_base` on stand for DNA.
With `fallback=False` the 251 are left out: bytes that are no base become N.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxtok.config import configclass
from jaxtok.tokenizers import (
  base,
  bytelevel,
  concat,
  hf,
  libraries,
  subword,
  training,
  utf8,
)

BASES = b'ACGT'
LETTERS = b'ACGTN'
SPECIAL = base.SpecialTokens(unk=0, cls=1, bos=1, sep=2, eos=2, pad=3, mask=4)
_NAMES = ('[UNK]', '[CLS]', '[SEP]', '[PAD]', '[MASK]')
OTHERS = bytes(b for b in range(256) if b not in LETTERS)
_MAX_K = 10

# What pairs with each code of IUPAC; case is kept.
_CODES = b'ACGTUNRYSWKMBDHV'
_PARTNERS = b'TGCAANYRSWMKVHDB'
_COMPLEMENT = bytes.maketrans(
  _CODES + _CODES.lower(), _PARTNERS + _PARTNERS.lower()
)
_KNOWN = frozenset(_CODES + _CODES.lower())


def reverse_complement(sequence: bytes) -> bytes:
  """The other strand of DNA, in its reading direction.

  Args:
    sequence: Bases or codes for several of them (IUPAC); U is read as T.

  Raises:
    ValueError: If there is another byte, e.g. a line break.
  """
  if others := set(sequence) - _KNOWN:
    shown = bytes([min(others)])
    raise ValueError(
      f'{shown!r} at position {sequence.index(shown)} is no base and no code '
      f'for bases ({_CODES.decode()}). Remove line breaks and gaps first.'
    )
  return sequence.translate(_COMPLEMENT)[::-1]


def first_base(fallback: bool = True) -> int:
  """The id of A; all ids from here on stand for DNA."""
  return len(_NAMES) + len(OTHERS) * fallback


@configclass
class Config:
  """Builds a `KmerTokenizer` or an `OverlappingKmerTokenizer`."""

  k: int = 1  # Letters of a token.
  overlapping: bool = False  # A k-mer at each place, not at each k-th.
  fallback: bool = True  # Keep bytes that are no base; else they become N.

  def __post_init__(self):
    if not 1 <= self.k <= _MAX_K:
      raise ValueError(
        f'k={self.k} must be in 1..{_MAX_K}: the vocabulary has 4**k k-mers.'
      )
    if self.overlapping and self.k == 1:
      raise ValueError('k=1 cannot overlap: use overlapping=False, or k >= 2.')

  def make(self, documents: Any = None) -> base.Tokenizer:
    """Builds the tokenizer; nothing is trained, `documents` are not read."""
    del documents
    make = OverlappingKmerTokenizer if self.overlapping else KmerTokenizer
    return make(self.k, self.fallback)


def _table(k: int, fallback: bool) -> list[bytes]:
  """The bytes of each id."""
  table = [b''] * len(_NAMES)
  if fallback:
    table += [bytes([b]) for b in OTHERS]
  table += [bytes([b]) for b in LETTERS]
  if k > 1:
    codes = np.indices((4,) * k).reshape(k, -1).T
    kmers = np.frombuffer(BASES, np.uint8)[codes].tobytes()
    table += [kmers[i : i + k] for i in range(0, len(kmers), k)]
  return table


class _Runs:
  """Runs of ACGT in some bytes, and the k-mers in them.

  Attributes:
    single: Id of each byte as a token of its own.
    whole: Id of the k-mer that begins at each place, where there is one.
    place: Place of each byte in its run of ACGT.
    length: Length of that run; 0 outside runs.
  """

  def __init__(self, data: bytes, k: int, ids_of_bytes: np.ndarray):
    raw = np.frombuffer(data, np.uint8)
    n = len(raw)
    self.single = ids_of_bytes[raw]
    code = _CODE[raw]
    is_base = code >= 0
    edge = np.flatnonzero(np.diff(is_base, prepend=False, append=False))
    start, stop = edge[::2], edge[1::2]
    self.place = np.zeros(n, np.int64)
    self.length = np.zeros(n, np.int64)
    run = np.repeat(np.arange(len(start)), stop - start)
    self.place[is_base] = np.flatnonzero(is_base) - start[run]
    self.length[is_base] = (stop - start)[run]
    number = np.zeros(n, np.int64)
    padded = np.concatenate([np.maximum(code, 0), np.zeros(k, np.int64)])
    for i in range(k):
      number = 4 * number + padded[i : i + n]
    first = int(ids_of_bytes[LETTERS[0]])
    self.whole = number + first + (len(LETTERS) if k > 1 else 0)

  def has_room(self, k: int) -> Bool[np.ndarray, 'n']:
    """Whether a k-mer begins at each place."""
    return (self.length > 0) & (self.place + k <= self.length)


_CODE = np.full(256, -1, np.int64)
_CODE[list(BASES)] = np.arange(4)


@functools.cache
def _ids_of_bytes(fallback: bool) -> Int[np.ndarray, '256']:
  first = first_base(fallback)
  ids = np.full(256, first + LETTERS.index(b'N'), np.int64)
  if fallback:
    ids[list(OTHERS)] = np.arange(len(_NAMES), first)
  ids[list(LETTERS)] = first + np.arange(len(LETTERS))
  return ids


class _Saved:
  """What both k-mer tokenizers have in common: settings and their storage."""

  k: int
  fallback: bool
  _name: str

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': self._name, 'k': self.k, 'fallback': self.fallback}

  def save_config(self, path: Any) -> dict[str, Any]:
    del path
    return {'k': self.k, 'fallback': self.fallback}

  @classmethod
  def from_config(cls, path: Any, config: dict[str, Any]) -> Any:
    del path
    return cls(config['k'], config['fallback'])

  def _repr_extra(self) -> str:
    return f'k={self.k}, fallback={self.fallback}'


def _special_text() -> dict[int, bytes]:
  return {i: name.encode() for i, name in enumerate(_NAMES)}


class KmerTokenizer(_Saved, concat.ConcatTokenizer):
  """k-mers side by side, from the left of each run of ACGT; k=1 is bases."""

  _name = 'kmer'

  def __init__(self, k: int = 1, fallback: bool = True):
    Config(k=k, fallback=fallback)
    self.k, self.fallback = k, fallback
    super().__init__(
      _table(k, fallback),
      SPECIAL,
      kind='concat' if fallback else 'lossy',
      lossless='bytes' if fallback else 'no',
      special_text=_special_text(),
    )
    self.prefix, self.suffix = (SPECIAL.cls,), (SPECIAL.sep,)

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    k = self.k
    runs = _Runs(data, k, _ids_of_bytes(self.fallback))
    is_whole = runs.has_room(k) & (runs.place % k == 0)
    is_inside = runs.place < runs.length // k * k
    ids = np.where(is_whole, runs.whole, runs.single)
    return ids[is_whole | ~is_inside].astype(np.int32)

  def split(self, x: base.Data) -> Int[np.ndarray, 'w 2']:
    """Byte ranges, int64, of k-mers, what is left of a run, and other bytes."""
    runs = _Runs(base.as_bytes(x), self.k, _ids_of_bytes(self.fallback))
    is_start = (runs.length == 0) | (runs.place % self.k == 0)
    starts = np.flatnonzero(is_start)
    stops = np.append(starts[1:], len(is_start))[: len(starts)]
    return np.stack([starts, stops], axis=1)


class OverlappingKmerTokenizer(_Saved, base.Tokenizer):
  """A k-mer at every place of a run of ACGT that has k letters.

  Of neighbouring k-mers each adds one letter, its last, to those before it,
  and that byte alone is charged to it; the first one has k. Decoding goes by
  this rule for any ids: what a k-mer says about earlier letters is not read. A
  special token between k-mers ends the run.
  """

  _name = 'overlapping_kmer'

  def __init__(self, k: int = 6, fallback: bool = True):
    Config(k=k, fallback=fallback, overlapping=True)
    self.k, self.fallback = k, fallback
    self.kind = 'context' if fallback else 'lossy'
    self.lossless = 'bytes' if fallback else 'no'
    self._bytes = _table(k, fallback)
    self._first = len(self._bytes) - 4**k  # The first k-mer.
    self.vocab_size, self.special = len(self._bytes), SPECIAL
    self.special_text = _special_text()
    self.prefix, self.suffix = (SPECIAL.cls,), (SPECIAL.sep,)

  def _tokens(
    self, data: bytes
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n']]:
    """Ids, and how many bytes each is charged with."""
    runs = _Runs(data, self.k, _ids_of_bytes(self.fallback))
    is_whole = runs.has_room(self.k)
    is_token = is_whole | (runs.length < self.k)
    ids = np.where(is_whole, runs.whole, runs.single)[is_token]
    charges = np.where(is_whole & (runs.place == 0), self.k, 1)[is_token]
    return ids.astype(np.int32), charges

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    return self._tokens(data)[0]

  def encode_with_offsets(
    self, x: base.Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    ids, charges = self._tokens(base.as_bytes(x))
    if add_special:
      ids = np.concatenate([self.prefix, ids, self.suffix]).astype(np.int32)
      charges = np.pad(charges, (len(self.prefix), len(self.suffix)))
    ends = np.cumsum(charges, dtype=np.int64)
    return ids, np.stack([ends - charges, ends], axis=1)

  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    parts, is_inside = [], False
    for token in base.check_ids(ids, self.vocab_size).tolist():
      if token in self.special_text:
        parts.append(b'' if skip_special else self.special_text[token])
        is_inside = False
        continue
      text = self._bytes[token]
      is_kmer = token >= self._first
      parts.append(text[-1:] if is_kmer and is_inside else text)
      is_inside = is_kmer
    return b''.join(parts)


@configclass
class TrainBpe(hf.Train):
  """Trains BPE on the genomes of a run's training split.

  Sequences are not cut into words: a token may be any string of bases. Only for
  training they are cut into pieces, because time grows with the length of a
  word; pairs across the cuts are not counted (one in `piece`).

  Differs from the paper: bytes that are no base have ids of their own (251, on
  top of `vocab_size`), so that nothing is lost.
  """

  vocab_size: int = 4096  # As published: 5 special, 5 letters, then merges.
  pattern: str = r'[\s\S]+'  # How sequences are cut into words: not at all.
  piece: int = 256  # Bases that are trained on as one word.

  def __post_init__(self):
    if self.vocab_size < len(_NAMES) + len(LETTERS) + 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} is too small: 5 special tokens and 5 '
        'letters take 10 ids. Use at least 11.'
      )
    if self.piece < 2:
      raise ValueError(f'piece={self.piece} must be >= 2 bases.')
    self._check_limits()

  def _train(self, documents: training.Documents) -> subword.HfTokenizer:
    limited = training.limited(documents, self.max_bytes)
    words = bytelevel.split_on(self.pattern)
    merges = libraries.train_merges(
      _pieces(limited, self.piece),
      self.vocab_size - len(_NAMES) - len(LETTERS),
      words,
      min_frequency=self.min_frequency,
      max_token_bytes=self.max_token_bytes,
    )
    if not merges:
      raise ValueError(
        'no pair of bases occurs often enough to be merged: the documents are '
        f'empty or min_frequency={self.min_frequency} is too high.'
      )
    table = [*_table(1, True), *(bytelevel.to_bytes(a + b) for a, b in merges)]
    tokens = dict.fromkeys(
      bytelevel.to_chars(token) for token in table if token
    )
    vocab = {token: len(_NAMES) + i for i, token in enumerate(tokens)}
    special = {name: i for i, name in enumerate(_NAMES)}
    spec = bytelevel.make_spec(vocab, merges, special, words)
    return subword.HfTokenizer(spec, {'bos': '[CLS]', 'eos': '[SEP]'})


def _pieces(documents: Iterable[bytes], size: int) -> Iterator[str]:
  """The documents in pieces that may be words."""
  for data in documents:
    for i in range(0, len(data), size):
      yield from utf8.runs(data[i : i + size])[::2]

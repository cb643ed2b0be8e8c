# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Made-up DNA with something to find in it.

`Repeats`: half of each sequence is the tandem repeat of a 3-mer, half is
random; a tokenizer that looks at its text spends fewer tokens on the first.
`Motifs`: random bases with words of a small lexicon planted in them, as text to
pre-train on and as a task: which of two words does a sequence hold?

Everything is a function of (seed, split, index).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxtok.config import configclass
from jaxtok.data import cache, labelled, source, stored

_BASES = np.frombuffer(b'ACGT', np.uint8)


def _rng(*keys: int) -> np.random.Generator:
  return np.random.default_rng(keys)


def _stored(documents: list[bytes], key: str) -> stored.Stored:
  ends = np.cumsum([len(data) for data in documents])
  ranges = np.zeros((len(ends), 3), np.int64)
  ranges[1:, 1], ranges[:, 2] = ends[:-1], ends
  array = np.frombuffer(b''.join(documents), np.uint8)
  return stored.Stored([array], ranges, None, key)


def _size(config: Any, split: str) -> int:
  return config.num_train if split == 'train' else config.num_heldout


@configclass
class Repeats:
  """Sequences that are half repeat, half random."""

  length: int = 255  # Bases of a sequence.
  num_train: int = 20_000
  num_heldout: int = 500
  seed: int = 0

  def __post_init__(self):
    if self.length < 12:
      raise ValueError(f'length={self.length} must be >= 12.')

  def make(self, split: str) -> stored.Stored:
    """The sequences of a split as documents."""
    source.check_split(split)
    number = source.SPLITS.index(split)
    documents = [self.document(split, i)[0] for i in range(_size(self, split))]
    return _stored(documents, cache.digest(self, number))

  def document(
    self, split: str, index: int
  ) -> tuple[bytes, Bool[np.ndarray, 'n']]:
    """One sequence, and which of its bases are of the repeat."""
    rng = _rng(self.seed, source.SPLITS.index(split), index)
    unit = rng.integers(0, 4, 3)
    while (unit == unit[0]).all():  # A repeat of one base is another pattern.
      unit = rng.integers(0, 4, 3)
    half = self.length // 2
    repeat = np.resize(np.roll(unit, -rng.integers(3)), half)
    noise = rng.integers(0, 4, self.length - half)
    is_first = bool(rng.integers(2))
    parts = [repeat, noise] if is_first else [noise, repeat]
    is_repeat = np.arange(self.length) < half
    if not is_first:
      is_repeat = is_repeat[::-1]
    return _BASES[np.concatenate(parts)].tobytes(), is_repeat


@configclass
class Motifs:
  """Random bases with planted words of a lexicon."""

  length: int = 200  # Bases of a sequence.
  num_words: int = 16  # Of the lexicon; the first two are the classes.
  word: int = 10  # Bases of a word.
  num_planted: int = 5  # Words in a sequence, that of its class included.
  mutation: float = 0.1  # Share of a planted word's bases that are drawn anew.
  num_train: int = 4000
  num_heldout: int = 1000
  seed: int = 0

  num_classes = 2

  def __post_init__(self):
    if self.num_planted * self.word > self.length:
      raise ValueError(
        f'num_planted={self.num_planted} words of word={self.word} bases do '
        f'not fit length={self.length}.'
      )
    if self.num_words < 3 or self.num_planted < 1:
      raise ValueError(
        f'num_words={self.num_words} must be >= 3 (two classes and others), '
        f'num_planted={self.num_planted} >= 1.'
      )
    if not 0 <= self.mutation <= 1:
      raise ValueError(f'mutation={self.mutation} must be in [0, 1].')

  def lexicon(self) -> Int[np.ndarray, 'n k']:
    """The words, as numbers of bases."""
    return _rng(self.seed).integers(0, 4, (self.num_words, self.word))

  def read(self, split: str) -> labelled.Labelled:
    """Sequences with one word of either class, and others of no class."""
    source.check_split(split)
    number, words = source.SPLITS.index(split), self.lexicon()
    found = [self._row(words, number, i) for i in range(_size(self, split))]
    labels = np.array([label for _, label in found], np.int32)
    return labelled.Labelled([data for data, _ in found], labels)

  def _row(self, words, number: int, index: int) -> tuple[bytes, int]:
    rng = _rng(self.seed, 1 + number, index)
    bases = rng.integers(0, 4, self.length)
    label = int(rng.integers(2))
    others = rng.integers(2, self.num_words, self.num_planted - 1)
    chosen = rng.permutation([label, *others])
    # Places are those of gaps between words in a random order of both.
    num_free = self.length - self.num_planted * self.word
    gaps = np.sort(rng.integers(0, num_free + 1, self.num_planted))
    for i, word in enumerate(chosen):
      start = int(gaps[i]) + i * self.word
      is_kept = rng.random(self.word) >= self.mutation
      place = slice(start, start + self.word)
      bases[place] = np.where(is_kept, words[word], bases[place])
    return _BASES[bases].tobytes(), label

  def make(self, split: str) -> stored.Stored:
    """The sequences of a split as documents, without labels."""
    key = cache.digest(self, source.SPLITS.index(split))
    return _stored(self.read(split).sequences, key)

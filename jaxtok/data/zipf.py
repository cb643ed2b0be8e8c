# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A made-up language whose words are known.

A lexicon of random strings of letters; topics, each of which orders the lexicon
in its own way; texts in which the topic now and then changes and the word of
rank r in the topic's order has probability proportional to `1 / r`. Letters
inside a word are easy to predict and first letters are hard, as in real text,
and where words begin is no matter of opinion: behind each space.

Everything is a function of (seed, split, number of the document).
"""

import functools
import string
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.config import configclass
from jaxtok.data import cache, source

_LETTERS = np.frombuffer(string.ascii_lowercase.encode(), np.uint8)


@configclass
class Zipf:
  """Documents of words of a made-up language, each followed by a space."""

  num_words: int = 1000  # Of the lexicon.
  shortest: int = 3  # Letters of a word, drawn evenly up to `longest`.
  longest: int = 7
  num_topics: int = 4
  stay: float = 0.95  # Probability that a word's topic is that of the last.
  document_words: int = 400
  num_train: int = 1500  # Documents; about 2.4 kB each.
  num_heldout: int = 100  # Of validation, and of test.
  seed: int = 0

  def __post_init__(self):
    if not 1 <= self.shortest <= self.longest:
      raise ValueError(
        f'lengths must satisfy 1 <= shortest={self.shortest} <= longest='
        f'{self.longest}.'
      )
    room = sum(26.0**n for n in range(self.shortest, self.longest + 1))
    if not 1 <= self.num_words <= room / 2:
      raise ValueError(
        f'num_words={self.num_words} must be >= 1 and at most half of the '
        f'{room:.0f} strings of that length.'
      )
    if not 0 <= self.stay <= 1 or self.num_topics < 1:
      raise ValueError(
        f'stay={self.stay} must be in [0, 1] and num_topics={self.num_topics} '
        '>= 1.'
      )

  def make(self, split: str) -> 'ZipfSource':
    """The documents of a split."""
    source.check_split(split)
    return ZipfSource(self, split)

  def lexicon(self) -> list[bytes]:
    """All words, no two alike."""
    return _lexicon(self)

  def word_ids(self, split: str, index: int) -> Int[np.ndarray, 'n']:
    """A document as numbers of words."""
    rng = _rng(self.seed, 1 + source.SPLITS.index(split), index)
    num = self.document_words
    is_new = rng.random(num) >= self.stay
    is_new[0] = True
    drawn = rng.integers(0, self.num_topics, num)
    begin = np.maximum.accumulate(np.where(is_new, np.arange(num), 0))
    share = np.cumsum(1 / np.arange(1, self.num_words + 1))
    rank = np.searchsorted(share / share[-1], rng.random(num), side='right')
    rank = np.minimum(rank, self.num_words - 1)
    return _orders(self)[drawn[begin], rank]


class ZipfSource:
  """See `Zipf`."""

  def __init__(self, config: Zipf, split: str):
    self._config, self._split = config, split
    self.key = cache.digest(config, split)

  def __len__(self) -> int:
    c = self._config
    return c.num_train if self._split == 'train' else c.num_heldout

  def __getitem__(self, index: int) -> dict[str, Any]:
    words = self._config.lexicon()
    ids = self._config.word_ids(self._split, index)
    data = b''.join(words[i] + b' ' for i in ids)
    return {'data': data, 'name': f'{self._split}/{index}'}


def _rng(*keys: int) -> np.random.Generator:
  return np.random.default_rng(keys)


@functools.lru_cache(maxsize=8)
def _lexicon(config: Zipf) -> list[bytes]:
  rng, words = _rng(config.seed, 0, 0), {}
  while len(words) < config.num_words:
    size = rng.integers(config.shortest, config.longest + 1)
    words[rng.choice(_LETTERS, size).tobytes()] = None
  return list(words)


@functools.lru_cache(maxsize=8)
def _orders(config: Zipf) -> Int[np.ndarray, 'topics words']:
  """Words of each topic, the most frequent first."""
  rng = _rng(config.seed, 0, 1)
  shuffled = [
    rng.permutation(config.num_words) for _ in range(config.num_topics)
  ]
  return np.stack(shuffled)

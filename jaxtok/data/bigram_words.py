# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A made-up language in which each word tells what the next may be.

The words are those of `zipf`, random strings. Each has a class, and a text is a
Markov chain of classes: the class of the next word depends on that of the last
(a class bigram, Brown et al. 1992), and within its class a word has a fixed
probability. Over all texts the word of rank r has probability proportional to
`1 / r`, exactly: the chain is made so that it keeps that law. So what can be
known of the next word is known, too: `laws`.

Everything is a function of (seed, split, number of the document).
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxtok.config import configclass
from jaxtok.data import cache, source, zipf

_FLOOR = 1e-6  # So that each class may follow each.
_MOST_STEPS = 100_000


@configclass
class BigramWords:
  """Documents of words, each followed by a space."""

  num_words: int = 2000  # Of the lexicon.
  shortest: int = 3  # Letters of a word, drawn evenly up to `longest`.
  longest: int = 9
  num_classes: int = 50
  concentration: float = 0.05  # Of the chain; the less, the less follows each.
  document_words: int = 400
  num_train: int = 50  # Documents.
  num_heldout: int = 50  # Of validation, and of test.
  seed: int = 0

  def __post_init__(self):
    if not 1 <= self.num_classes <= self.num_words:
      raise ValueError(
        f'num_classes={self.num_classes} must be in [1, num_words='
        f'{self.num_words}].'
      )
    if self.concentration <= 0:
      raise ValueError(f'concentration={self.concentration} must be > 0.')
    self._strings()  # Checks the lexicon.

  def _strings(self) -> zipf.Zipf:
    return zipf.Zipf(
      num_words=self.num_words,
      shortest=self.shortest,
      longest=self.longest,
      seed=self.seed,
    )

  def make(self, split: str) -> 'BigramWordsSource':
    """The documents of a split."""
    source.check_split(split)
    return BigramWordsSource(self, split)

  def lexicon(self) -> list[bytes]:
    """All words, the most frequent first, no two alike."""
    return self._strings().lexicon()

  def classes(self) -> Int[np.ndarray, 'n']:
    """The class of each word; sizes differ by one at most."""
    order = np.random.default_rng((self.seed, 0, 2)).permutation(self.num_words)
    return order % self.num_classes

  def laws(self) -> Float[np.ndarray, 'classes n']:
    """Probability of each next word, behind a word of each class."""
    return _laws(self)

  def word_ids(self, split: str, index: int) -> Int[np.ndarray, 'n']:
    """A document as numbers of words; the first is drawn by Zipf's law."""
    key = (self.seed, 1 + source.SPLITS.index(split), index)
    uniform = np.random.default_rng(key).random(self.document_words)
    class_of, ids = self.classes(), np.empty(self.document_words, np.int64)
    cumulated = np.cumsum(np.vstack([_zipf(self), self.laws()]), axis=1)
    cumulated /= cumulated[:, -1:]
    row = cumulated[0]
    for i, x in enumerate(uniform):
      ids[i] = np.searchsorted(row, x, side='right')
      row = cumulated[1 + class_of[ids[i]]]
    return ids


class BigramWordsSource:
  """See `BigramWords`."""

  def __init__(self, config: BigramWords, split: str):
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


def _zipf(config: BigramWords) -> Float[np.ndarray, 'n']:
  share = 1 / np.arange(1, config.num_words + 1)
  return share / share.sum()


@functools.lru_cache(maxsize=8)
def _laws(config: BigramWords) -> Float[np.ndarray, 'classes n']:
  """A random chain of classes that keeps their shares.

  Sinkhorn's algorithm: the joint law of two neighbours gets the shares of the
  classes as the sums of both its rows and its columns.
  """
  num, class_of, law = config.num_classes, config.classes(), _zipf(config)
  share = np.bincount(class_of, law, num)
  rng = np.random.default_rng((config.seed, 0, 3))
  joint = rng.gamma(config.concentration, size=(num, num)) + _FLOOR
  for _ in range(_MOST_STEPS):
    joint *= (share / joint.sum(axis=1))[:, None]
    joint *= share / joint.sum(axis=0)
    if abs(joint.sum(axis=1) - share).max() <= 1e-12:
      break
  else:
    raise ValueError(
      f'concentration={config.concentration} must be larger for num_classes='
      f'{num}: no chain that keeps the shares was found.'
    )
  follows = joint / joint.sum(axis=1, keepdims=True)
  return follows[:, class_of] * (law / share[class_of])

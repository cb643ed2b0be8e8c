# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text with spelling noise, for measuring how much a model minds it.

A source of documents whose bytes are changed at random, each with probability
`rate`, the same on every machine. Only ASCII is touched. Most are the noise of
Neitemeier et al. 2025, arXiv:2501.10322, whose rates are not known.
"""

import hashlib
import string
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import source as source_lib

KINDS = ('delete', 'case', 'typo', 'spaces', 'swap', 'caps')
_LETTERS = np.frombuffer(string.ascii_lowercase.encode(), np.uint8)


@configclass
class Noisy:
  """Documents of another source, with noise.

  Kinds: 'delete' drops letters and digits inside words (not the first of one),
  'case' flips the case of letters, 'typo' puts a random letter in the place of
  one, 'spaces' drops spaces, 'swap' exchanges a letter or digit with the next
  of its word, 'caps' writes words in capitals (`rate=1`: all of them).
  """

  source: Any  # Any source config.
  kind: str = 'delete'
  rate: float = 0.1

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'kind={self.kind!r} must be one of {", ".join(KINDS)}.')
    if not 0 <= self.rate <= 1:
      raise ValueError(f'rate={self.rate} must be in [0, 1].')

  def make(self, split: str) -> 'NoisySource':
    """The documents of a split."""
    return NoisySource(self.source.make(split), self.kind, self.rate)


class NoisySource:
  """See `Noisy`."""

  def __init__(self, source: source_lib.Source, kind: str, rate: float):
    self._source, self._kind, self._rate = source, kind, rate
    self.key = f'{source.key}:noise={kind},{rate!r}'

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    record = self._source[index]
    return {**record, 'data': add_noise(record['data'], self._kind, self._rate)}


def add_noise(data: bytes, kind: str, rate: float) -> bytes:
  """A document with noise; the draws are a function of the document."""
  digest = hashlib.blake2b(data, digest_size=8).digest()
  rng = np.random.default_rng(int.from_bytes(digest, 'little'))
  x = np.frombuffer(data, np.uint8)
  is_hit = rng.random(len(x)) < rate
  is_letter = _between(x, 'a', 'z') | _between(x, 'A', 'Z')
  if kind == 'case':
    return np.where(is_hit & is_letter, x ^ 0x20, x).astype(np.uint8).tobytes()
  if kind == 'typo':
    letters = rng.choice(_LETTERS, len(x))
    return np.where(is_hit & is_letter, letters, x).astype(np.uint8).tobytes()
  if kind == 'spaces':
    return x[~(is_hit & (x == ord(' ')))].tobytes()
  is_word = is_letter | _between(x, '0', '9')
  if kind == 'swap':
    return _swap(x, is_hit, is_word).tobytes()
  if kind == 'caps':
    starts = is_word & ~np.concatenate([[False], is_word[:-1]])
    is_loud = rng.random(starts.sum() + 1) < rate  # The first is no word's.
    is_hit = is_loud[np.cumsum(starts)] & _between(x, 'a', 'z') & is_word
    return np.where(is_hit, x ^ 0x20, x).astype(np.uint8).tobytes()
  is_inside = is_word & np.concatenate([[False], is_word[:-1]])
  return x[~(is_hit & is_inside)].tobytes()


def _swap(x: np.ndarray, is_hit: np.ndarray, is_word: np.ndarray) -> np.ndarray:
  """Bytes that are hit change places with the next, each at most once."""
  is_hit = is_hit & is_word & np.concatenate([is_word[1:], [False]])
  index = np.arange(len(x))
  # Of neighbours that are hit, every other one.
  before = np.maximum.accumulate(np.where(is_hit, -1, index))
  at = index[is_hit & ((index - before) % 2 == 1)]
  x = x.copy()
  x[at], x[at + 1] = x[at + 1], x[at]
  return x


def _between(x: np.ndarray, low: str, high: str) -> np.ndarray:
  return (x >= ord(low)) & (x <= ord(high))

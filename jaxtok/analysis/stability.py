# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether the tokens of a sentence depend on what stands before it.

Lester et al. 2024, arXiv:2404.03626: the same sentence behind many different
words, and the edit distance between the token strings of each pair. Windows
that are reset fall into step again after a while; a plain arithmetic code never
does, so the same words look different each time.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

_PAIRS = 1 << 14  # Pairs that are compared at once.


@dataclasses.dataclass(frozen=True)
class Stability:
  """Edit distances between the tokens of one sentence behind many words.

  Attributes:
    distances: Levenshtein distance of each pair of words [pairs].
    lengths: Tokens behind each word [words].
  """

  distances: np.ndarray
  lengths: np.ndarray

  @property
  def relative(self) -> np.ndarray:
    """Distances over the mean number of tokens [pairs]; about 1: nothing in
    common."""
    return self.distances / self.lengths.mean()


def common_words(
  documents: Iterable[bytes], num_words: int = 500
) -> list[bytes]:
  """The most frequent words of letters; ties in alphabetical order."""
  counts = collections.Counter()
  for document in documents:
    counts.update(re.findall(rb'[A-Za-z]+', document))
  ranked = sorted(counts, key=lambda word: (-counts[word], word))
  return ranked[:num_words]


def measure(
  tokenizer: Any, sentence: bytes, words: Sequence[bytes]
) -> Stability:
  """Tokenizes `word + b' ' + sentence` for each word.

  Args:
    tokenizer: Any tokenizer.
    sentence: What stays the same.
    words: At least two.

  Raises:
    ValueError: If there are fewer than two words.
  """
  if len(words) < 2:
    raise ValueError(f'{len(words)} words make no pair; give at least two.')
  ragged = tokenizer.encode_batch([word + b' ' + sentence for word in words])
  rows = list(ragged.rows())
  lengths = np.array([len(row) for row in rows])
  padded = np.full((len(rows), lengths.max()), -1, np.int32)
  for row, ids in zip(padded, rows, strict=True):
    row[: len(ids)] = ids
  left, right = np.triu_indices(len(rows), k=1)
  found = [
    levenshtein(padded[i], lengths[i], padded[j], lengths[j])
    for i, j in (
      (left[at : at + _PAIRS], right[at : at + _PAIRS])
      for at in range(0, len(left), _PAIRS)
    )
  ]
  return Stability(np.concatenate(found), lengths)


def levenshtein(
  a: Int[np.ndarray, 'p m'],
  a_lengths: Int[np.ndarray, 'p'],
  b: Int[np.ndarray, 'p n'],
  b_lengths: Int[np.ndarray, 'p'],
) -> Int[np.ndarray, 'p']:
  """Edit distances of many pairs of rows at once.

  Wagner and Fischer 1974, a row of the table at a time. Insertions along the
  row are a running minimum of the values less their column.

  Args:
    a: Rows, padded at the end.
    a_lengths: How much of each counts.
    b: Likewise.
    b_lengths: Likewise.
  """
  columns = np.arange(b.shape[1] + 1, dtype=np.int32)
  row = np.tile(columns, (len(a), 1))
  found = np.take_along_axis(row, b_lengths[:, None], 1)[:, 0]
  for i in range(a.shape[1]):
    best = np.empty_like(row)
    best[:, 0] = i + 1
    best[:, 1:] = np.minimum(
      row[:, 1:] + 1, row[:, :-1] + (a[:, i : i + 1] != b)
    )
    row = np.minimum.accumulate(best - columns, axis=1) + columns
    here = np.take_along_axis(row, b_lengths[:, None], 1)[:, 0]
    found = np.where(a_lengths == i + 1, here, found)
  return found

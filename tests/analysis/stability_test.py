# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Edit distances against the textbook table, and of known token strings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.analysis import stability
from jaxtok.tokenizers import bytes as byte_tokenizer

rows = st.lists(st.integers(0, 2), max_size=9)


def textbook(a, b):
  table = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
  for i in range(1, len(a) + 1):
    for j in range(1, len(b) + 1):
      table[i][j] = min(
        table[i - 1][j] + 1,
        table[i][j - 1] + 1,
        table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
      )
  return table[-1][-1]


def padded(some):
  lengths = np.array([len(x) for x in some])
  found = np.full((len(some), max(lengths.max(), 1)), -1)
  for row, x in zip(found, some, strict=True):
    row[: len(x)] = x
  return found, lengths


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(rows, rows), min_size=1, max_size=8))
def test_levenshtein_equals_the_textbook(pairs):
  left, right = (padded([pair[i] for pair in pairs]) for i in (0, 1))
  found = stability.levenshtein(*left, *right)
  assert found.tolist() == [textbook(a, b) for a, b in pairs]


def test_bytes_differ_by_the_words_alone():
  words = [b'a', b'b', b'abc']
  found = stability.measure(byte_tokenizer.Config().make(), b'same', words)
  assert found.distances.tolist() == [1, 2, 2]  # a-b, a-abc, b-abc.
  assert found.lengths.tolist() == [6, 6, 8]
  np.testing.assert_allclose(found.relative, found.distances / (20 / 3))


def test_common_words_are_ranked_by_frequency():
  text = [b'the cat and the dog', b'and the end']
  assert stability.common_words(text, 3) == [b'the', b'and', b'cat']


def test_one_word_makes_no_pair():
  with pytest.raises(ValueError, match='give at least two'):
    stability.measure(byte_tokenizer.Config().make(), b'same', [b'a'])

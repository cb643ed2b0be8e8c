# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loops of `trie`, compiled. Only imported where numba is installed."""

import typing

import numba
import numpy as np

_EOS = 256


@numba.njit(cache=True, nogil=True)
@typing.no_type_check  # numba compiles the bare function.
def _walk(next_rv, word_n, length_n, text, words, lengths):
  """Fills `words` and `lengths`; returns how many."""
  count, place, total, rows = 0, 0, len(text) + 1, len(next_rv)
  while place < total:
    row, n = 0, place
    while row < rows:
      symbol = np.int64(text[n]) if n < total - 1 else _EOS
      row = next_rv[row, symbol]
      n += 1
    words[count] = word_n[row - rows]
    lengths[count] = length_n[row - rows]
    place += lengths[count]
    count += 1
  return count


@numba.njit(cache=True, nogil=True)
@typing.no_type_check  # numba compiles the bare function.
def _copy(offset_w, length_w, data, words, out):
  """Fills `out` with the words' strings."""
  place = 0
  for word in words:
    start = offset_w[word]
    for i in range(length_w[word]):
      out[place] = data[start + i]
      place += 1


def encode(next_rv, word_n, length_n, text):
  """See `trie.encode`."""
  words = np.empty(len(text) + 1, np.uint16)
  lengths = np.empty(len(text) + 1, np.int32)
  count = _walk(next_rv, word_n, length_n, text, words, lengths)
  return words[:count].copy(), lengths[:count].copy()


def decode(offset_w, length_w, data, words):
  """See `trie.decode`."""
  out = np.empty(int(length_w[words].sum(dtype=np.int64)), np.uint8)
  _copy(offset_w, length_w, data, words, out)
  return out

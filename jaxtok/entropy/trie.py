# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Greedy longest match over a tree of strings, and strings back from words.

Two implementations of each function with equal results: loops compiled by numba
where it is installed, and NumPy.
"""

import importlib.util
from typing import NamedTuple

import numpy as np

from jaxtok.entropy import quantize

_BLOCK = 1 << 18  # Start positions per pass of the NumPy encoder.


class Tree(NamedTuple):
  """A tree laid out for walking; node 0 is the root.

  Attributes:
    next_nv: int32 [nodes, 257], the child by symbol, -1 without.
    word_n: int32 [nodes], the word that stands for the node's string, or -1.
    depth: Length of the longest string.
  """

  next_nv: np.ndarray
  word_n: np.ndarray
  depth: int


class Strings(NamedTuple):
  """The bytes of each word's string, without EOS.

  Attributes:
    offset_w: int64, where a word's bytes start in `data`.
    length_w: int32.
    data: uint8.
  """

  offset_w: np.ndarray
  length_w: np.ndarray
  data: np.ndarray


def has_numba() -> bool:
  """Whether the compiled loops can be used."""
  return importlib.util.find_spec('numba') is not None


def encode(
  tree: Tree, text: np.ndarray, *, use_numba: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a text, followed by EOS, into longest matches.

  Args:
    tree: The tree; every text must have a match at every place.
    text: uint8.
    use_numba: By default, if it is installed.

  Returns:
    The words (uint16) and how many symbols each covers (int32).
  """
  if has_numba() if use_numba is None else use_numba:
    from jaxtok.entropy import trie_numba

    return trie_numba.encode(tree.next_nv, tree.word_n, text)
  symbols = np.append(text, np.uint16(quantize.EOS))
  words, starts, place = [], [], 0
  for start in range(0, len(symbols), _BLOCK):
    stop = min(start + _BLOCK, len(symbols))
    word, length = _match(
      tree, symbols[start : stop + tree.depth], stop - start
    )
    found, steps = [], length.tolist()
    while place < stop:
      found.append(place - start)
      place += steps[place - start]
    words.append(word[found].astype(np.uint16))
    starts.append(np.array(found, np.int64) + start)
  ends = np.append(np.concatenate(starts), len(symbols))
  return np.concatenate(words), np.diff(ends).astype(np.int32)


def _match(
  tree: Tree, symbols: np.ndarray, num: int
) -> tuple[np.ndarray, np.ndarray]:
  """The longest match from each of the first `num` places."""
  word, length = np.full(num, -1), np.zeros(num, np.int32)
  place, node = np.arange(num), np.zeros(num, np.int32)
  for n in range(min(tree.depth, len(symbols))):
    inside = place + n < len(symbols)
    place, node = place[inside], node[inside]
    node = tree.next_nv[node, symbols[place + n]]
    place, node = place[node >= 0], node[node >= 0]
    if not len(place):
      break
    ends = tree.word_n[node] >= 0
    word[place[ends]] = tree.word_n[node[ends]]
    length[place[ends]] = n + 1
  return word, length


def decode(
  strings: Strings, words: np.ndarray, *, use_numba: bool | None = None
) -> np.ndarray:
  """Concatenates the strings of words to uint8."""
  if has_numba() if use_numba is None else use_numba:
    from jaxtok.entropy import trie_numba

    return trie_numba.decode(*strings, words)
  blocks = [np.zeros(0, np.uint8)]
  for i in range(0, len(words), _BLOCK):
    word = words[i : i + _BLOCK]
    length = strings.length_w[word]
    # Bytes of a word are `shift` away from where they go.
    shift = strings.offset_w[word] - np.cumsum(length) + length
    place = np.repeat(shift, length) + np.arange(length.sum())
    blocks.append(strings.data[place])
  return np.concatenate(blocks)


def build(
  parents: np.ndarray, symbols: np.ndarray, node_of_word: np.ndarray
) -> tuple[Tree, Strings, np.ndarray]:
  """Lays a tree out for coding.

  Args:
    parents: int32 [nodes], each smaller than its child's number; -1 first.
    symbols: [nodes], the last symbol of each node's string.
    node_of_word: int32 [words].

  Returns:
    The tree, the words' strings, and which words end with EOS.
  """
  num = len(parents)
  depth = np.zeros(num, np.int32)
  for start, stop in _levels(parents):
    depth[start:stop] = depth[parents[start:stop]] + 1
  next_nv = np.full((num, quantize.NUM_SYMBOLS), -1, np.int32)
  next_nv[parents[1:], symbols[1:]] = np.arange(1, num)
  word_n = np.full(num, -1, np.int32)
  node, first = np.unique(node_of_word, return_index=True)
  word_n[node] = first  # The smallest word of each string.
  tree = Tree(next_nv, word_n, int(depth.max()))
  ends = symbols[node_of_word] == quantize.EOS
  return tree, _strings(parents, symbols, depth, node_of_word, ends), ends


def _levels(parents: np.ndarray) -> list[tuple[int, int]]:
  """Ranges of nodes of equal depth, without the root."""
  levels, stop = [], 1
  while stop < len(parents):
    end = int(np.searchsorted(parents, stop))  # Parents never fall.
    levels.append((stop, end))
    stop = end
  return levels


def _strings(parents, symbols, depth, node_of_word, ends) -> Strings:
  """Writes each word's string from its last symbol to its first."""
  length = (depth[node_of_word] - ends).astype(np.int32)
  offset = np.cumsum(length, dtype=np.int64) - length
  data = np.zeros(int(length.sum()), np.uint8)
  node = np.where(ends, parents[node_of_word], node_of_word)
  left = length.copy()
  while left.any():
    more = left > 0
    left[more] -= 1
    data[offset[more] + left[more]] = symbols[node[more]]
    node[more] = parents[node[more]]
  return Strings(offset, length, data)

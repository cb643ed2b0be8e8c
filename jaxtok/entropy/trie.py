# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of a text by walks over a tree of strings, and strings from words.

Two implementations of each function with equal results: loops compiled by numba
where it is installed, and NumPy.
"""

import importlib.util
from typing import NamedTuple

import numpy as np

from jaxtok.entropy import quantize
from jaxtok.entropy.dictionary_rules import Codes

_BLOCK = 1 << 16  # Start positions or words per pass of NumPy; fits a cache.


class Tree(NamedTuple):
  """A tree laid out for walking from the root, row 0.

  A window walks down until no child takes the next symbol, and is then coded by
  where it stopped. So only nodes with children have a row, and a table entry is
  the row to go on in, or, from the number of rows on, that number plus the node
  where the walk ends: a child that is a leaf, or the row's own node.

  Attributes:
    next_rv: int32 [rows, 257], by symbol.
    word_n: uint16, the word of a window whose walk ends at the node.
    length_n: int32, how many of the symbols it covers.
    depth: Length of the longest walk.
  """

  next_rv: np.ndarray
  word_n: np.ndarray
  length_n: np.ndarray
  depth: int


class Strings(NamedTuple):
  """The bytes of each word's string, without EOS.

  Attributes:
    offset_w: int32, where a word's bytes start in `data`.
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
  """Cuts a text, followed by EOS, into windows.

  Args:
    tree: The tree; the root has a child for every symbol.
    text: uint8.
    use_numba: By default, if it is installed.

  Returns:
    The words (uint16) and how many symbols each covers (int32).
  """
  if has_numba() if use_numba is None else use_numba:
    from jaxtok.entropy import trie_numba

    return trie_numba.encode(tree.next_rv, tree.word_n, tree.length_n, text)
  symbols = np.append(text, np.uint16(quantize.EOS)).astype(np.int32)
  words, lengths, place = [], [], 0
  for start in range(0, len(symbols), _BLOCK):
    stop = min(start + _BLOCK, len(symbols))
    node = _walk(tree, symbols[start : stop + tree.depth], stop - start)
    found, steps = [], tree.length_n[node].tolist()
    while place < stop:
      found.append(place - start)
      place += steps[place - start]
    words.append(tree.word_n[node[found]])
    lengths.append(tree.length_n[node[found]])
  return np.concatenate(words), np.concatenate(lengths)


def _walk(tree: Tree, symbols: np.ndarray, num: int) -> np.ndarray:
  """The nodes where walks from each of the first `num` places end."""
  rows, table = len(tree.next_rv), tree.next_rv.reshape(-1)
  end = table[symbols[:num]]
  place = np.flatnonzero(end < rows)
  row, n = end[place], 1
  while len(place):  # EOS ends a walk at the latest.
    found = table.take(row * quantize.NUM_SYMBOLS + symbols.take(place + n))
    end[place] = found
    goes_on = found < rows
    place, row, n = place[goes_on], found[goes_on], n + 1
  return end - rows


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
    ends = np.cumsum(length, dtype=np.int32)
    place = np.repeat(strings.offset_w[word] - ends + length, length)
    place += np.arange(len(place), dtype=np.int32)
    blocks.append(strings.data.take(place))
  return np.concatenate(blocks)


def lay_out(parents: np.ndarray, symbols: np.ndarray, codes: Codes) -> Tree:
  """Lays a tree out for walking.

  Args:
    parents: int32 [nodes], each smaller than its child's number; -1 first.
    symbols: [nodes], the last symbol of each node's string.
    codes: What stands for each node.
  """
  inner = np.unique(parents[1:])
  row_n = np.full(len(parents), -1)
  row_n[inner] = np.arange(len(inner))
  end_n = len(inner) + np.arange(len(parents))
  next_rv = np.repeat(end_n[inner, None], quantize.NUM_SYMBOLS, axis=1)
  place = row_n[parents[1:]], symbols[1:]
  next_rv[place] = np.where(row_n >= 0, row_n, end_n)[1:]
  depth = int(codes.depth_n.max())
  return Tree(next_rv.astype(np.int32), codes.word_n, codes.length_n, depth)


def spell(
  parents: np.ndarray, symbols: np.ndarray, codes: Codes
) -> tuple[Strings, np.ndarray]:
  """Writes each word's string from its last symbol to its first.

  Args:
    parents: As for `lay_out`.
    symbols: As for `lay_out`.
    codes: What stands for each word.

  Returns:
    The words' strings, and which words end with EOS.
  """
  node = codes.node_w
  ends = symbols[node] == quantize.EOS
  length = (codes.depth_n[node] - ends).astype(np.int32)
  offset = np.cumsum(length, dtype=np.int32) - length
  data = np.zeros(int(length.sum()), np.uint8)
  node = np.where(ends, parents[node], node)
  left = length.copy()
  while left.any():
    more = left > 0
    left[more] -= 1
    data[offset[more] + left[more]] = symbols[node[more]]
    node[more] = parents[node[more]]
  return Strings(offset, length, data), ends

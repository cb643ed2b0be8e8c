# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Close rules as tables over a dictionary's tree.

The nodes of the tree are the strings whose interval holds a whole word's cell,
that is all prefixes that fit into a window. With coder and model reset at each
window nothing is carried from one to the next, so a window depends on its own
walk alone: down to the longest prefix that fits, whose node then says which
word is emitted and how much of the walk it covers. Neither needs the model,
only which words each interval holds, and the tree has that.
"""

from typing import NamedTuple

import numpy as np

RULES = ('cell', 'delay')  # Those that promise to decode.


class Codes(NamedTuple):
  """What nodes and words stand for.

  Attributes:
    depth_n: int32, the length of each node's string.
    word_n: uint16, the word of a window whose walk ends at the node.
    length_n: int32, how many symbols of the walk it covers.
    node_w: int32, the node of each word's string.
    used_w: uint16, the words that encoding uses, rising.
  """

  depth_n: np.ndarray
  word_n: np.ndarray
  length_n: np.ndarray
  node_w: np.ndarray
  used_w: np.ndarray


def codes(rule: str, parents: np.ndarray, node_of_word: np.ndarray) -> Codes:
  """The tables of a rule.

  Args:
    rule: One of `RULES`.
    parents: int32 [nodes] in breadth-first order; -1 for the root.
    node_of_word: int32 [words], the deepest node whose interval holds the word.
  """
  depth_n = np.zeros(len(parents), np.int32)
  for start, stop in _levels(parents):
    depth_n[start:stop] = depth_n[parents[start:stop]] + 1
  make = {'cell': _cell, 'delay': _delay}[rule]
  return make(parents, depth_n, node_of_word)


def _cell(parents, depth_n, node_of_word) -> Codes:
  """The longest prefix that is some word's string, and its first word."""
  word_n = np.full(len(parents), -1)
  length_n = depth_n.copy()
  owner, first = np.unique(node_of_word, return_index=True)
  word_n[owner] = first
  for start, stop in _levels(parents):
    node = start + np.flatnonzero(word_n[start:stop] < 0)
    word_n[node] = word_n[parents[node]]
    length_n[node] = length_n[parents[node]]
  # Nodes above all owners: all their children fit, so no walk ends there.
  word_n = np.maximum(word_n, 0).astype(np.uint16)
  used = np.sort(first).astype(np.uint16)
  return Codes(depth_n, word_n, length_n, node_of_word, used)


def _delay(parents, depth_n, node_of_word) -> Codes:
  """The longest prefix's zero-padded word, for the shortest prefix with it.

  Nodes with the same word all hold its cell, so they lie on one path, and the
  shallowest is a prefix of the others. Words that no node has are never
  emitted; they decode as with `cell`.
  """
  first_n, stop_n = _words_inside(parents, node_of_word)
  word_n = zero_padded(first_n, stop_n)
  node_w = node_of_word.copy()
  deepest_first = np.arange(len(parents) - 1, 0, -1)  # Without the root.
  node_w[word_n[deepest_first]] = deepest_first  # The last, shallowest, stays.
  length_n = depth_n[node_w[word_n]]
  num_children = np.bincount(parents[1:], minlength=len(parents))
  stops = num_children < num_children[0]  # Where a symbol may not fit.
  used = np.unique(word_n[stops]).astype(np.uint16)
  return Codes(depth_n, word_n.astype(np.uint16), length_n, node_w, used)


def _words_inside(parents, node_of_word) -> tuple[np.ndarray, np.ndarray]:
  """The range of words whose cells each node's interval holds."""
  word = np.arange(len(node_of_word))
  first_n = np.full(len(parents), len(word))
  stop_n = np.zeros(len(parents), np.int64)
  np.minimum.at(first_n, node_of_word, word)
  np.maximum.at(stop_n, node_of_word, word + 1)
  for start, stop in reversed(_levels(parents)):
    np.minimum.at(first_n, parents[start:stop], first_n[start:stop])
    np.maximum.at(stop_n, parents[start:stop], stop_n[start:stop])
  return first_n, stop_n


def zero_padded(first_n: np.ndarray, stop_n: np.ndarray) -> np.ndarray:
  """The shortest bit string inside each range of words, padded with zeros.

  Args:
    first_n: The first word of each range.
    stop_n: One past its last; ranges are not empty.

  Returns:
    int64; of strings of equal length the smallest.
  """
  word_n = first_n.copy()
  for zeros in range(1, 17):
    unit = 1 << zeros
    start_n = -(-first_n // unit) * unit
    word_n = np.where(start_n + unit <= stop_n, start_n, word_n)
  return word_n


def _levels(parents: np.ndarray) -> list[tuple[int, int]]:
  """Ranges of nodes of equal depth, without the root."""
  levels, stop = [], 1
  while stop < len(parents):
    end = int(np.searchsorted(parents, stop))  # Parents never fall.
    levels.append((stop, end))
    stop = end
  return levels

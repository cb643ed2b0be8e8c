# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sequences with labels, and batches of them.

A task is a config with `num_classes` and `read(split) -> Labelled`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.data.batch import Batch


@dataclasses.dataclass(frozen=True)
class Labelled:
  """Sequences and the class of each.

  Attributes:
    sequences: Bytes of each.
    labels_n: Classes, counted from 0.
  """

  sequences: list[bytes]
  labels_n: Int[np.ndarray, 'n']

  def __len__(self) -> int:
    return len(self.sequences)


@dataclasses.dataclass(frozen=True)
class Rows:
  """Labelled sequences as rows of tokens, one each, padded.

  Attributes:
    tokens_nt: Token ids.
    lengths_n: Tokens of each row that are no padding.
    labels_n: Classes.
    num_cut: How many sequences were too long and lost their end.
  """

  tokens_nt: Int[np.ndarray, 'n t']
  lengths_n: Int[np.ndarray, 'n']
  labels_n: Int[np.ndarray, 'n']
  num_cut: int

  def __len__(self) -> int:
    return len(self.labels_n)

  def batch(self, rows: Int[np.ndarray, 'b'], size: int) -> Batch:
    """Some rows, filled up to `size` with rows of padding and label -1."""
    t = self.tokens_nt.shape[1]
    batch = {
      'tokens_bt': np.zeros((size, t), np.int32),
      'segment_ids_bt': np.zeros((size, t), np.int32),
      'labels_b': np.full(size, -1, np.int32),
    }
    num = len(rows)
    batch['tokens_bt'][:num] = self.tokens_nt[rows]
    batch['segment_ids_bt'][:num] = np.arange(t) < self.lengths_n[rows, None]
    batch['labels_b'][:num] = self.labels_n[rows]
    return batch

  def shuffled(self, size: int, seed: int) -> Iterator[Batch]:
    """Endless full batches; each epoch has an order of its own.

    An epoch gives `len(self) // size` batches; the rows that are left over are
    others in each.
    """
    epoch = 0
    while True:
      order = np.random.default_rng([seed, epoch]).permutation(len(self))
      for start in range(0, len(self) - size + 1, size):
        yield self.batch(order[start : start + size], size)
      epoch += 1

  def in_order(self, size: int) -> Iterator[Batch]:
    """All rows once."""
    for start in range(0, len(self), size):
      rows = np.arange(start, min(start + size, len(self)))
      yield self.batch(rows, size)


def tokenize(data: Labelled, tokenizer: Any, max_tokens: int = 0) -> Rows:
  """Encodes sequences, with the tokenizer's special tokens around them.

  Args:
    data: The sequences.
    tokenizer: See `tokenizers.base`.
    max_tokens: Length of the rows; longer ones are cut, but keep the special
      tokens at the end. 0 takes that of the longest.
  """
  encoded = tokenizer.encode_batch(data.sequences, add_special=True)
  lengths = np.diff(encoded.row_splits)
  longest = int(lengths.max(initial=1))
  width = max_tokens or longest
  tail = len(tokenizer.suffix)
  tokens = np.zeros((len(data), width), np.int32)
  for i, row in enumerate(encoded.rows()):
    if len(row) > width:
      row = np.concatenate([row[: width - tail], row[len(row) - tail :]])
    tokens[i, : len(row)] = row
  return Rows(
    tokens,
    np.minimum(lengths, width),
    np.asarray(data.labels_n, np.int32),
    int((lengths > width).sum()),
  )

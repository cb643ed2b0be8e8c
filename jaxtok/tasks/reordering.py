# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Applies a reordering that examples show to new symbols.

  a b c -> c a b ; d e f -> f d e ; g h i ->  i g h

One of the synthetic reasoning tasks of Huang et al. 2023, arXiv:2305.16349,
section 4.3 (Permutation). The order is drawn anew for each record, and so are
the symbols, all different. Tokens: symbols 0..num_symbols-1, then SEMICOLON,
ARROW, and the mask.
"""

import numpy as np

from jaxtok.config import configclass
from jaxtok.tasks import base


@configclass
class Reordering:
  """The task; `low` and `high` bound the symbols, as in `lookup.Lookup`."""

  num_symbols: int = 512
  num_examples: int = 4
  size: int = 3  # Symbols of an example.
  low: int = 0
  high: int = 0  # 0 means num_symbols.

  def __post_init__(self):
    least = self.low + self.size * (self.num_examples + 1)
    rule = f'in [{least}, {self.num_symbols}]: symbols are all different'
    is_room = least <= self.stop <= self.num_symbols
    base.require(
      'Reordering',
      num_examples=(self.num_examples, self.num_examples >= 1, '>= 1'),
      size=(self.size, self.size >= 2, '>= 2'),
      low=(self.low, self.low >= 0, '>= 0'),
      high=(self.stop, is_room, rule),
    )

  @property
  def stop(self) -> int:
    """The symbol behind the last one that is used."""
    return self.high or self.num_symbols

  @property
  def answer_len(self) -> int:
    return self.size

  @property
  def prompt_len(self) -> int:
    return self.num_examples * (2 * self.size + 2) + self.size + 1

  @property
  def mask_id(self) -> int:
    return self.num_symbols + 2

  @property
  def vocab_size(self) -> int:
    return self.num_symbols + 3

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`."""
    n, k = self.num_examples + 1, self.size
    semicolon, arrow = self.num_symbols, self.num_symbols + 1
    shape = self.stop - self.low
    groups_nk = rng.choice(shape, n * k, replace=False).reshape(n, k) + self.low
    order_k = rng.permutation(k)
    row = np.full((n, 2 * k + 2), semicolon)
    row[:, :k], row[:, k] = groups_nk, arrow
    row[:, k + 1 : -1] = groups_nk[:, order_k]
    return row.reshape(-1)[:-1].astype(np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`: as the first example says."""
    k = self.size
    first_bk, shown_bk = tokens_bt[:, :k], tokens_bt[:, k + 1 : 2 * k + 1]
    order_bk = (shown_bk[:, :, None] == first_bk[:, None]).argmax(-1)
    new_bk = tokens_bt[:, self.prompt_len - k - 1 : self.prompt_len - 1]
    want_bk = np.take_along_axis(new_bk, order_bk, axis=1)
    return (tokens_bt[:, self.prompt_len :] == want_bk).all(1)

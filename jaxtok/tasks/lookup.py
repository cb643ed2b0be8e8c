# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds in a list of pairs the value of a key.

  k1 v1 ; k2 v2 ; ... k1 ->  v1

One of the synthetic reasoning tasks of Huang et al. 2023, arXiv:2305.16349,
section 4.3 (LookUp). Keys and values are random symbols of a large vocabulary,
all different; whether a model has seen a symbol before matters only to models
that know symbols. `low` and `high` choose from which part of the vocabulary
they are drawn.

Tokens: symbols 0..num_symbols-1, then SEMICOLON, ARROW, and the mask.
"""

import numpy as np

from jaxtok.config import configclass
from jaxtok.tasks import base


@configclass
class Lookup:
  """The task."""

  num_symbols: int = 512
  num_pairs: int = 8
  low: int = 0  # The first symbol that is used.
  high: int = 0  # The one behind the last; 0 means num_symbols.

  def __post_init__(self):
    least = self.low + 2 * self.num_pairs
    rule = (
      f'in [low + 2 num_pairs, num_symbols] = [{least}, {self.num_symbols}]'
    )
    is_room = least <= self.stop <= self.num_symbols
    base.require(
      'Lookup',
      num_pairs=(self.num_pairs, self.num_pairs >= 1, '>= 1'),
      low=(self.low, self.low >= 0, '>= 0'),
      high=(self.stop, is_room, rule),
    )

  answer_len = 1

  @property
  def stop(self) -> int:
    """The symbol behind the last one that is used."""
    return self.high or self.num_symbols

  @property
  def prompt_len(self) -> int:
    return 3 * self.num_pairs + 2

  @property
  def mask_id(self) -> int:
    return self.num_symbols + 2

  @property
  def vocab_size(self) -> int:
    return self.num_symbols + 3

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`."""
    n, semicolon = self.num_pairs, self.num_symbols
    symbols = rng.choice(self.stop - self.low, 2 * n, replace=False) + self.low
    pairs = np.full((n, 3), semicolon)
    pairs[:, :2] = symbols.reshape(n, 2)
    key, value = pairs[rng.integers(n), :2]
    row = [*pairs.reshape(-1), key, semicolon + 1, value]
    return np.array(row, np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`."""
    n = self.num_pairs
    pairs_bn3 = tokens_bt[:, : 3 * n].reshape(-1, n, 3)
    is_key_bn = pairs_bn3[..., 0] == tokens_bt[:, 3 * n, None]
    is_value_bn = pairs_bn3[..., 1] == tokens_bt[:, -1:]
    return (is_key_bn & is_value_bn).any(1)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sums of two numbers, most significant digit first.

Confidence decoding commits digits before the carries into them are known
(arXiv:2605.29123 reports failures on long carries), so these are drawn more
often than by chance.

The prompt is a, PLUS, b, EQUALS; the answer has one digit more. Tokens: 0..9
digits, 10 PLUS, 11 EQUALS, 12 the mask.
"""

import numpy as np

from jaxtok.config import configclass
from jaxtok.tasks import base

PLUS, EQUALS, _MASK = 10, 11, 12


@configclass
class Addition:
  """The task."""

  num_digits: int = 6
  carry_share: float = 0.3  # Of records made to have a long chain of carries.

  def __post_init__(self):
    n, share = self.num_digits, self.carry_share
    base.require(
      'Addition',
      num_digits=(n, 1 <= n <= 18, 'in [1, 18]'),
      carry_share=(share, 0 <= share <= 1, 'in [0, 1]'),
    )

  mask_id = _MASK
  vocab_size = _MASK + 1

  @property
  def prompt_len(self) -> int:
    return 2 * self.num_digits + 2

  @property
  def answer_len(self) -> int:
    return self.num_digits + 1

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: digits are uniform but for the chains of carries."""
    n = self.num_digits
    a, b = rng.integers(0, 10, (2, n))
    chain = min(3, n - 1)
    if chain and rng.random() < self.carry_share:
      start = int(rng.integers(0, n - chain))  # Of digits that sum to nine.
      b[start : start + chain] = 9 - a[start : start + chain]
      # The digits to the right of them carry.
      low = start + chain
      a[low] = rng.integers(1, 10)
      b[low] = rng.integers(10 - a[low], 10)
    total = _digits(int(_number(np.stack([a, b])).sum()), n + 1)
    row = [*a, PLUS, *b, EQUALS, *total]
    return np.array(row, np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`."""
    n = self.num_digits
    a, b = tokens_bt[:, :n], tokens_bt[:, n + 1 : 2 * n + 1]
    answer = tokens_bt[:, self.prompt_len :]
    is_number = (answer < 10).all(-1)
    return is_number & (_number(answer) == _number(a) + _number(b))

  def carry_length(self, tokens_bt: np.ndarray) -> np.ndarray:
    """Longest run of digits that pass a carry on because they sum to nine."""
    n = self.num_digits
    sums_bn = tokens_bt[:, :n] + tokens_bt[:, n + 1 : 2 * n + 1]
    longest_b = np.zeros(len(tokens_bt), np.int64)
    run_b = np.zeros(len(tokens_bt), np.int64)
    has_carry_b = np.zeros(len(tokens_bt), bool)
    for k in reversed(range(n)):
      passes_b = has_carry_b & (sums_bn[:, k] == 9)
      run_b = np.where(passes_b, run_b + 1, 0)
      longest_b = np.maximum(longest_b, run_b)
      has_carry_b = (sums_bn[:, k] > 9) | passes_b
    return longest_b


def _number(digits_bn: np.ndarray) -> np.ndarray:
  powers_n = 10 ** np.arange(digits_bn.shape[1], dtype=np.int64)[::-1]
  return digits_bn.astype(np.int64) @ powers_n


def _digits(number: int, num: int) -> list[int]:
  return [int(c) for c in str(number).zfill(num)]

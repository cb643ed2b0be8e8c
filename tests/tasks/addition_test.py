# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sums against Python's integers."""

import numpy as np
import pytest

from jaxtok.tasks import addition, base

TASK = addition.Addition(num_digits=5)


def parse(row):
  text = ''.join('0123456789+=_'[t] for t in row)
  left, _, right = text.partition('=')
  a, _, b = left.partition('+')
  return int(a), int(b), int(right)


def carries(a: int, b: int) -> int:
  """Longest run of positions that pass a carry on, by long addition."""
  best = run = carry = 0
  for _ in range(TASK.num_digits):
    total = a % 10 + b % 10
    run = run + 1 if carry and total == 9 else 0
    best, carry = max(best, run), int(total + carry > 9)
    a, b = a // 10, b // 10
  return best


def test_records_are_sums_and_any_changed_digit_is_wrong():
  rows = base.batch(TASK, 0, 0, 300)
  for row in rows:
    a, b, total = parse(row)
    assert a + b == total
  assert TASK.is_correct(rows).all()
  for k in range(TASK.prompt_len, rows.shape[1]):
    for new in (lambda x: (x + 1) % 10, lambda x: 0 * x + TASK.mask_id):
      wrong = rows.copy()
      wrong[:, k] = new(wrong[:, k])
      assert not TASK.is_correct(wrong).any()


def test_long_carries_are_common():
  rows = base.batch(TASK, 0, 0, 300)
  want = np.array([carries(*parse(row)[:2]) for row in rows])
  np.testing.assert_array_equal(TASK.carry_length(rows), want)
  # At least carry_share = 0.3 in the mean, less 3 sd of 300 draws.
  assert (want >= 3).mean() > 0.22
  none = addition.Addition(num_digits=5, carry_share=0.0)
  assert (none.carry_length(base.batch(none, 0, 0, 300)) >= 3).mean() < 0.02


def test_records_depend_on_seed_and_index_alone():
  rows = base.batch(TASK, 3, 5, 4)
  np.testing.assert_array_equal(rows[2], base.record(TASK, 3, 7))
  assert not (rows == base.batch(TASK, 4, 5, 4)).all()


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match='num_digits=19 must be in'):
    addition.Addition(num_digits=19)

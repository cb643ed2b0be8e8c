# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxtok.tokenizers.ragged import Ragged

ROWS = Ragged.from_rows([[1, 2, 3], [], [4], [5, 6]])


def test_rows_come_back():
  assert [row.tolist() for row in ROWS.rows()] == [[1, 2, 3], [], [4], [5, 6]]
  assert ROWS.values.dtype == np.int32
  assert ROWS.row_splits.tolist() == [0, 3, 3, 4, 6]
  assert ROWS.lengths.tolist() == [3, 0, 1, 2]
  assert len(ROWS) == 4


def test_dense_rows_are_padded_at_the_end():
  np.testing.assert_array_equal(
    ROWS.to_dense(4, pad=9),
    [[1, 2, 3, 9], [9, 9, 9, 9], [4, 9, 9, 9], [5, 6, 9, 9]],
  )
  assert ROWS.to_dense().shape == (4, 3)


def test_a_row_that_does_not_fit_is_named():
  with pytest.raises(ValueError, match='row 0 has 3 ids, more than length=2'):
    ROWS.to_dense(2)


def test_packing_drops_nothing_and_counts_segments():
  ids, segments = ROWS.pack(4, pad=9)
  np.testing.assert_array_equal(ids, [[1, 2, 3, 4], [5, 6, 9, 9]])
  np.testing.assert_array_equal(segments, [[1, 1, 1, 2], [1, 1, 0, 0]])


def test_packing_cuts_long_rows():
  ids, segments = ROWS.pack(2)
  np.testing.assert_array_equal(ids, [[1, 2], [3, 4], [5, 6]])
  np.testing.assert_array_equal(segments, [[1, 1], [1, 2], [1, 1]])


def test_packing_needs_a_length():
  with pytest.raises(ValueError, match='length must be >= 1, got 0'):
    ROWS.pack(0)


def test_no_rows_are_fine():
  empty = Ragged.from_rows([])
  assert empty.rows() == []
  assert empty.to_dense().shape == (0, 0)
  assert empty.pack(3)[0].shape == (0, 3)


@pytest.mark.parametrize('splits', [[0, 2], [1, 3], [0, 4, 2, 3], []])
def test_splits_must_fit_the_values(splits):
  with pytest.raises(ValueError, match='row_splits must rise from 0'):
    Ragged(np.arange(3, dtype=np.int32), np.array(splits, np.int64))

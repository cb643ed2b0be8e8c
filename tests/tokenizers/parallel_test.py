# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxtok.tokenizers import parallel


@pytest.mark.parametrize(
  'sizes, num, want',
  [
    ([1, 1, 1, 1], 2, [0, 2, 4]),
    ([10, 11, 10, 12], 2, [0, 2, 4]),
    ([1, 1, 8], 2, [0, 2, 3]),
    ([8, 1, 1], 2, [0, 1, 3]),
    ([5, 5, 5], 3, [0, 1, 2, 3]),
    ([0, 0, 6], 2, [0, 2, 3]),
  ],
)
def test_threads_get_about_equal_shares(sizes, num, want):
  assert parallel.cut(sizes, num) == want


@pytest.mark.parametrize('num_threads', [None, 1, 2, 3, 50])
def test_results_come_in_the_order_of_the_inputs(num_threads):
  inputs = [bytes([i]) * (200_000 if i % 7 == 0 else 3) for i in range(20)]
  size = lambda x: np.array([x[0], len(x)])
  got = parallel.map_bytes(size, inputs, num_threads)
  assert [g.tolist() for g in got] == [[x[0], len(x)] for x in inputs]


def test_no_threads_are_refused():
  with pytest.raises(ValueError, match='num_threads must be >= 1'):
    parallel.map_bytes(len, [b'a'], 0)

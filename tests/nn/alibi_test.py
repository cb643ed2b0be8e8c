# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""ALiBi against the numbers of the paper and a loop."""

import numpy as np
import pytest

from jaxtok.nn import alibi


def test_slopes_of_eight_heads_are_powers_of_a_half():
  np.testing.assert_allclose(alibi.slopes(8), 2.0 ** -np.arange(1, 9))


def test_twelve_heads_take_those_of_eight_and_every_second_of_sixteen():
  rest = 2.0 ** -np.array([0.5, 1.5, 2.5, 3.5])
  want = np.concatenate([2.0 ** -np.arange(1, 9), rest])
  np.testing.assert_allclose(alibi.slopes(12), want)


def test_the_bias_falls_with_distance_on_both_sides():
  got = np.asarray(alibi.bias(3, 5))
  slopes = [2.0**-4, 2.0**-8, 2.0**-2]
  for n in range(3):
    for t in range(5):
      for s in range(5):
        # Powers of two times small integers are exact.
        assert got[0, n, t, s] == -slopes[n] * abs(t - s)


def test_no_head_is_refused():
  with pytest.raises(ValueError, match='num_heads=0 must be >= 1'):
    alibi.slopes(0)

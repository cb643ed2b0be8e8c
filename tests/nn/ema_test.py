# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The scan against a loop in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxtok.nn import ema


def loop(y, rate, state):
  """float64, one unit after the other."""
  z, found = state.astype(np.float64), []
  for j in range(y.shape[1]):
    p = rate[:, j, None].astype(np.float64)
    z = p * y[:, j] + (1 - p) * z
    found.append(z)
  return np.stack(found, 1)


def draw(w, seed=0):
  rng = np.random.default_rng(seed)
  y, rate = rng.normal(size=(3, w, 4)), rng.random((3, w))
  rate[rng.random((3, w)) < 0.2] = 1  # Documents begin.
  rate[rng.random((3, w)) < 0.2] = 0  # Slots without a unit.
  state = rng.normal(size=(3, 4))
  return [x.astype(np.float32) for x in (y, rate, state)]


def smooth(*arrays):
  return ema.smooth(*map(jnp.asarray, arrays))


@pytest.mark.parametrize('w', [1, 7, 64])
def test_the_scan_equals_a_loop(w):
  y, rate, state = draw(w)
  # Weights sum to 1 and |y| < 5; log2(w) levels with one rounding each, and
  # 1 - p is rounded: below 5 * 7 * 6e-8.
  atol = 3e-6
  got = jax.jit(smooth)(y, rate, state)
  np.testing.assert_allclose(got, loop(y, rate, state), atol=atol)
  got = jax.jit(smooth)(y, rate)
  np.testing.assert_allclose(got, loop(y, rate, 0 * state), atol=atol)


def test_a_row_may_be_cut_anywhere():
  y, rate, state = draw(13)
  whole = smooth(y, rate, state)
  for cut in (1, 6, 12):
    first = smooth(y[:, :cut], rate[:, :cut], state)
    second = smooth(y[:, cut:], rate[:, cut:], first[:, -1])
    got = jnp.concatenate([first, second], 1)
    np.testing.assert_allclose(got, whole, atol=3e-6)


def test_a_rate_of_one_forgets_exactly_even_what_is_huge():
  y, rate, state = draw(5)
  rate[:, 2] = 1
  huge = y.copy()
  huge[:, :2] = 1e30
  np.testing.assert_array_equal(
    smooth(y, rate, state)[:, 2:], smooth(huge, rate, state)[:, 2:]
  )


def test_sums_are_float32_for_bfloat16_states():
  y, rate, state = draw(64)
  y = jnp.asarray(y, jnp.bfloat16)
  got = smooth(y, rate, state)
  assert got.dtype == jnp.float32
  want = loop(np.asarray(y, np.float32), rate, state)
  np.testing.assert_allclose(got, want, atol=3e-6)


def test_gradients_equal_finite_differences():
  y, rate, state = draw(6)
  rate = np.clip(rate, 0.1, 0.9)
  test_util.check_grads(
    smooth, (y, rate, state), order=1, modes=['rev'], atol=1e-2, rtol=1e-2
  )

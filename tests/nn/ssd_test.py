# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The chunked scan against the recurrence in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxtok.nn import ssd

B, N, H, M = 2, 3, 4, 5


def draw(t, seed=0):
  rng = np.random.default_rng(seed)
  x, b, c = (
    rng.normal(size=shape) for shape in ((B, t, N, H), (B, t, M), (B, t, M))
  )
  log_decay = -rng.exponential(size=(B, t, N)) * rng.choice([0.01, 1, 20], N)
  segments = np.cumsum(rng.random((B, t)) < 0.15, axis=1)
  arrays = [y.astype(np.float32) for y in (x, log_decay, b, c)]
  return *arrays, segments.astype(np.int32)


def recurrence(x, log_decay, b, c, segments):
  """float64, one position after the other."""
  y = np.zeros(x.shape)
  for row in range(len(x)):
    state = np.zeros((N, H, M))
    for t in range(x.shape[1]):
      if t and segments[row, t] != segments[row, t - 1]:
        state[:] = 0
      decay = np.exp(log_decay[row, t].astype(np.float64))[:, None, None]
      state = decay * state + x[row, t, :, :, None] * b[row, t]
      y[row, t] = state @ c[row, t]
  return y


def call(*arrays, chunk):
  return ssd.scan(*map(jnp.asarray, arrays), chunk=chunk)


@pytest.mark.parametrize('t, chunk', [(1, 4), (21, 4), (24, 8), (21, 64)])
def test_the_scan_equals_the_recurrence(t, chunk):
  arrays = draw(t)
  got = jax.jit(lambda *a: call(*a, chunk=chunk))(*arrays)
  assert got.dtype == jnp.float32
  # Sums of up to 21 * 5 products of order 1, below 100, in another order; sums
  # of decays are rounded relative to themselves, and exp(-a) a 1e-7 < 1e-7.
  np.testing.assert_allclose(got, recurrence(*arrays), atol=1e-4)


def test_documents_do_not_see_each_other():
  x, log_decay, b, c, _ = draw(20)
  segments = np.repeat([[1] * 9 + [2] * 11], B, axis=0).astype(np.int32)
  got = call(x, log_decay, b, c, segments, chunk=4)
  for part in (slice(0, 9), slice(9, 20)):
    alone = call(*(y[:, part] for y in (x, log_decay, b, c, segments)), chunk=4)
    np.testing.assert_allclose(got[:, part], alone, atol=1e-4)


def test_gradients_equal_finite_differences():
  x, log_decay, b, c, segments = draw(6)
  of = lambda *a: call(*a, segments, chunk=4)
  test_util.check_grads(
    of, (x, np.minimum(log_decay, -0.1), b, c), 1, ['rev'], atol=0.1, rtol=0.02
  )


def test_strong_decay_gives_neither_nan_nor_infinite_gradients():
  x, log_decay, b, c, segments = draw(16)
  of = lambda a: call(x, a, b, c, segments, chunk=8).sum()
  value, grad = jax.value_and_grad(of)(jnp.asarray(1e4 * log_decay))
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


def test_a_chunk_without_positions_is_refused():
  with pytest.raises(ValueError, match='chunk=0 must be >= 1'):
    call(*draw(3), chunk=0)

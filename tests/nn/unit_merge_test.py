# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learned merging and masks of units against loops in NumPy."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.nn import unit_merge

UNITS = np.array([[0, 1, 1, 1, 2, -1], [0, 0, 1, 2, 3, 3]], np.int32)
D, W = 4, 4


@pytest.fixture(scope='module')
def pool():
  pool = unit_merge.AttentionPool(D, rngs=nnx.Rngs(0))
  pool.score.kernel[...] *= 5
  return pool


def states():
  return np.random.default_rng(0).normal(size=(2, 6, D)).astype(np.float32)


@functools.partial(nnx.jit, static_argnums=3)
def run(pool, x, units, num):
  return pool(x, units, num)


def test_weights_are_a_softmax_within_the_unit(pool):
  x = states()
  got = run(pool, x, UNITS, W)
  kernel, bias = (
    np.asarray(p[...]) for p in (pool.hidden.kernel, pool.hidden.bias)
  )
  for b in range(2):
    for unit in range(W):
      members = x[b][UNITS[b] == unit].astype(np.float64)
      want = np.zeros(D)
      if len(members):
        score = np.tanh(members @ kernel + bias) @ np.asarray(pool.score.kernel)
        weight = np.exp(score[:, 0])
        want = weight @ members / weight.sum()
      # Float32 sums of four products of order 1.
      np.testing.assert_allclose(got.values_bwd[b, unit], want, atol=1e-5)
  np.testing.assert_array_equal(
    got.valid_bw, [[True, True, True, False], [True] * 4]
  )


def test_units_of_one_and_constant_units_are_unchanged(pool):
  x = states()
  alone = np.tile(np.arange(6, dtype=np.int32), (2, 1))
  np.testing.assert_array_equal(run(pool, x, alone, 6).values_bwd, x)
  constant = np.tile(x[:, :1], (1, 6, 1))
  got = run(pool, constant, np.zeros((2, 6), np.int32), 1).values_bwd
  np.testing.assert_allclose(got[:, 0], x[:, 0], atol=1e-6)


def test_weighted_means_of_long_units_are_rounded_once(pool):
  x = np.random.default_rng(2).normal(1.0, 0.5, size=(1, 700, D))
  x = jnp.asarray(x, jnp.bfloat16)
  units = np.zeros((1, 700), np.int32)
  got = run(pool, x, units, 1).values_bwd
  assert got.dtype == jnp.bfloat16
  # The same weights, and float64.
  score = pool.score(jnp.tanh(pool.hidden(x)))
  weight = np.exp(np.asarray(score, np.float64)[0, :, 0])
  want = weight @ np.asarray(x, np.float64)[0] / weight.sum()
  # Half a unit in the last place; weights and 700 additions are float32.
  np.testing.assert_allclose(
    np.asarray(got[0, 0], np.float64), want, rtol=2**-8 + 2 * 700 * 2**-24
  )


def test_large_scores_do_not_overflow(pool):
  graph, params = nnx.split(pool)
  big = nnx.merge(graph, params)
  big.score.kernel[...] = jnp.full((D, 1), 1e4)
  assert np.isfinite(run(big, states(), UNITS, W).values_bwd).all()


def test_a_unit_sees_another_if_a_token_of_it_sees_one_of_the_other():
  visible = np.random.default_rng(1).random((2, 6, 6)) < 0.2
  got = unit_merge.merge_mask(jnp.asarray(visible), jnp.asarray(UNITS), W)
  for b in range(2):
    for i in range(W):
      for j in range(W):
        pairs = visible[b][UNITS[b] == i][:, UNITS[b] == j]
        assert got[b, i, j] == pairs.any()

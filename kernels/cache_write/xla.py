# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache writes as XLA scatters, which update donated arrays in place."""

import jax
import jax.numpy as jnp


def put(pool: jax.Array, new: jax.Array, rows_m: jax.Array) -> jax.Array:
  """`pool[rows[i]] = new[i]`; negative rows are dropped."""
  # Negative ones would wrap, rows past the end are dropped.
  rows_m = jnp.where(rows_m < 0, pool.shape[0], rows_m)
  return pool.at[rows_m].set(new, mode='drop')


def scatter(
  pools: tuple[jax.Array, ...], news: tuple[jax.Array, ...], rows_m: jax.Array
) -> tuple[jax.Array, ...]:
  """`put` for each pair."""
  return tuple(put(x, y, rows_m) for x, y in zip(pools, news, strict=True))


def compact(
  pool: jax.Array, source_xg: jax.Array, target_xg: jax.Array
) -> jax.Array:
  """Moves rows within a pool; all are read before one is written."""
  return put(pool, pool[source_xg.ravel()], target_xg.ravel())

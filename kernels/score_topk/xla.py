# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Top-k by bisection on the bits of the threshold, in plain JAX.

Instead of sorting, 32 counting passes find the k-th largest value exactly;
what lies above it is kept, and of its ties the first ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def ordered_bits(x: jax.Array) -> jax.Array:
  """uint32 that orders like float32; NaN like -inf, -0 like +0."""
  x = jnp.where(jnp.isnan(x), -jnp.inf, x.astype(jnp.float32))
  x = jnp.where(x == 0, 0.0, x)
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  negative = bits >> 31 == 1
  return bits ^ jnp.where(negative, jnp.uint32(0xFFFFFFFF), jnp.uint32(1 << 31))


def topk_threshold(
  x_rs: jax.Array,
  k: int,
  valid_rs: jax.Array | None,
  find: Callable[[jax.Array, int], jax.Array] | None = None,
) -> jax.Array:
  """Indices of the k largest, ascending, -1 padded; see the public function.

  Args:
    x_rs: Scores.
    k: Static.
    valid_rs: Entries that may be selected.
    find: Finds the thresholds; default `thresholds`.
  """
  bits = ordered_bits(x_rs)
  # The bits of -inf are > 0, so that 0 can stand for "not valid".
  if valid_rs is not None:
    bits = jnp.where(valid_rs, bits, 0)
  threshold = (find or thresholds)(bits, k)
  above, tied = bits > threshold, (bits == threshold) & (bits > 0)
  room = k - above.sum(-1, keepdims=True, dtype=jnp.int32)
  keep = above | (tied & (jnp.cumsum(tied, -1, dtype=jnp.int32) <= room))
  return compact(keep, k)


def thresholds(bits_rs: jax.Array, k: int) -> jax.Array:
  """The k-th largest of each row, `[r, 1]`; 0 if there are fewer than k."""

  def raise_bit(i, threshold):
    trial = threshold | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    count = (bits_rs >= trial).sum(-1, keepdims=True, dtype=jnp.int32)
    return jnp.where(count >= k, trial, threshold)

  zero = jnp.zeros((bits_rs.shape[0], 1), jnp.uint32)
  return jax.lax.fori_loop(0, 32, raise_bit, zero)


def compact(keep_rs: jax.Array, k: int) -> jax.Array:
  """Indices of the true entries, ascending, -1 padded to k."""
  rank_rs = jnp.cumsum(keep_rs, axis=-1, dtype=jnp.int32)
  wanted = jnp.arange(1, k + 1, dtype=jnp.int32)
  find = lambda rank: jnp.searchsorted(rank, wanted).astype(jnp.int32)
  ids = jax.vmap(find)(rank_rs)
  return jnp.where(ids < keep_rs.shape[-1], ids, -1)

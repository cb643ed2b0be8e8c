# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5's relative position bias: one learned number per head and distance bucket.

Raffel et al. 2020, arXiv:1910.10683, section 2.1. Half of the buckets are
exact distances, the other half grow logarithmically up to `max_distance`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int


def bucket(
  distance: Int[Array, '...'],
  *,
  is_causal: bool,
  num_buckets: int,
  max_distance: int,
) -> Int[Array, '...']:
  """The bucket of each key position minus query position.

  A causal bias has all buckets for keys in the past (future keys share bucket
  0); otherwise the upper half of the buckets is for the future.
  """
  base = 0
  if is_causal:
    distance = jnp.maximum(-distance, 0)
  else:
    num_buckets //= 2
    base = jnp.where(distance > 0, num_buckets, 0)
    distance = jnp.abs(distance)
  exact = num_buckets // 2
  # The first distance of each logarithmic bucket; comparing integers with
  # these is the same on every backend, a float32 logarithm is not.
  growth = math.log(max_distance / exact) / (num_buckets - exact)
  starts = exact * np.exp(growth * np.arange(1, num_buckets - exact))
  starts = jnp.asarray(np.ceil(starts - 1e-6), jnp.int32)
  log_bucket = exact + (distance[..., None] >= starts).sum(axis=-1)
  return base + jnp.where(distance < exact, distance, log_bucket)


class RelativeBias(nnx.Module):
  """A table [buckets, heads], looked up by relative position."""

  def __init__(
    self,
    num_heads: int,
    *,
    is_causal: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
    std: float = 1.0,
    rngs: nnx.Rngs,
  ):
    """Creates the table, drawn from N(0, std**2).

    Args:
      num_heads: Query heads n.
      is_causal: Whether only keys in the past are told apart.
      num_buckets: Rows of the table; even.
      max_distance: Distances from here on share the last bucket.
      std: Standard deviation of the initial table.
      rngs: Source of randomness.
    """
    if num_buckets % 4 or max_distance <= num_buckets // 2:
      raise ValueError(
        f'num_buckets={num_buckets} must be a multiple of 4 and max_distance='
        f'{max_distance} must exceed num_buckets/2.'
      )
    self.is_causal = is_causal
    self.num_buckets, self.max_distance = num_buckets, max_distance
    table = jax.random.normal(rngs.params(), (num_buckets, num_heads)) * std
    self.table = nnx.Param(table, axes=('buckets', 'heads'))

  def __call__(
    self,
    q_positions_bt: Int[Array, '#b t'],
    kv_positions_bs: Int[Array, '#b s'],
  ) -> Float[Array, 'b n t s']:
    """The bias of each query, key and head, float32."""
    buckets_bts = bucket(
      kv_positions_bs[:, None, :] - q_positions_bt[:, :, None],
      is_causal=self.is_causal,
      num_buckets=self.num_buckets,
      max_distance=self.max_distance,
    )
    return jnp.moveaxis(self.table[...][buckets_bts], -1, 1)

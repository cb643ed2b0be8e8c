# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merging the states of a unit into one, with weights, and its masks.

`ragged.segment_pool` has the mean. Axes: b rows, t positions, w units, d width.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.nn import linear, ragged


class AttentionPool(nnx.Module):
  """A weighted mean, with weights `softmax(v . tanh(W h + b))` in the unit.

  arXiv:2507.14423, section 3 (learned merging). The unit of one position is
  its state, unchanged, as the weight is exactly 1.
  """

  def __init__(self, dim: int, *, rngs: nnx.Rngs):
    self.hidden = linear.Linear(
      (dim,), (dim,), axes=('embed', 'mlp'), use_bias=True, rngs=rngs
    )
    self.score = linear.Linear((dim,), (1,), axes=('embed', 'score'), rngs=rngs)

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    unit_bt: Int[Array, 'b t'],
    capacity: int,
  ) -> ragged.Pooled:
    """See `ragged.segment_pool`; padding is unit -1."""
    score_bt1 = self.score(jnp.tanh(self.hidden(x_btd))).astype(jnp.float32)
    # Less the highest of the unit, so that no exponential overflows.
    most_bw1 = ragged.segment_pool(score_bt1, unit_bt, capacity, 'max')
    shifted_bt1 = score_bt1 - ragged.expand(most_bw1.values_bwd, unit_bt)
    weight_bt1 = jnp.exp(shifted_bt1)
    sum_bw1 = ragged.segment_pool(weight_bt1, unit_bt, capacity, 'sum')
    sum_bt1 = ragged.expand(sum_bw1.values_bwd, unit_bt)
    share_bt1 = weight_bt1 / jnp.where(sum_bt1 == 0, 1.0, sum_bt1)
    pooled = ragged.segment_pool(
      share_bt1 * x_btd.astype(jnp.float32), unit_bt, capacity, 'sum'
    )
    values_bwd = pooled.values_bwd.astype(x_btd.dtype)
    return dataclasses.replace(pooled, values_bwd=values_bwd)


def merge_mask(
  visible_bts: Bool[Array, 'b t t'], unit_bt: Int[Array, 'b t'], capacity: int
) -> Bool[Array, 'b w w']:
  """A mask over positions as one over units.

  A unit sees another if one of its positions sees one of the other's.

  Args:
    visible_bts: Which positions see which.
    unit_bt: The unit of each position; -1 is padding.
    capacity: Units w; static.
  """

  def over(x_bts):
    # Whether any of the rows of a unit holds.
    return ragged.segment_pool(x_bts, unit_bt, capacity, 'max').values_bwd > 0

  rows_bws = over(visible_bts.astype(jnp.float32))
  columns_bsw = jnp.swapaxes(rows_bws, 1, 2).astype(jnp.float32)
  return jnp.swapaxes(over(columns_bsw), 1, 2)

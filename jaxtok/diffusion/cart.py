# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dream's weights of masked tokens: more where more is visible nearby.

Ye et al. 2025, arXiv:2508.15487 (context-adaptive noise rescheduling at token
level, CART): in place of 1/t a masked token l weighs

  w_l = 1/2 sum over visible j of p (1 - p)**(|l - j| - 1),

a geometric distribution of distances to either side, so at most 1. A loss with
these weights is not a bound. Only tokens of the same document count.

Axes: b rows, t positions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def weights(
  is_masked_bt: Bool[Array, 'b t'],
  segment_ids_bt: Int[Array, 'b t'],
  p: float,
) -> Float[Array, 'b t']:
  """Weight of each masked token, 0 elsewhere.

  Args:
    is_masked_bt: Which tokens are masked.
    segment_ids_bt: Documents, which are contiguous; 0 is padding.
    p: In (0, 1]; the mean distance is 1 / p. Dream's is 0.3.
  """
  is_visible_bt = ~is_masked_bt & (segment_ids_bt > 0)
  left_bt = _before(is_visible_bt, segment_ids_bt, p)
  flip = lambda x_bt: jnp.flip(x_bt, axis=1)
  right_bt = flip(_before(flip(is_visible_bt), flip(segment_ids_bt), p))
  return jnp.where(is_masked_bt, (left_bt + right_bt) / 2, 0.0)


def _before(is_visible_bt, segment_ids_bt, p):
  """The sum over visible tokens before each position."""
  pad = ((0, 0), (1, 0))
  is_same_bt = jnp.pad(segment_ids_bt[:, 1:] == segment_ids_bt[:, :-1], pad)
  last_bt = jnp.pad(is_visible_bt[:, :-1], pad)

  # x_l = a_l x_(l-1) + b_l, so that 4,096 positions take 12 steps.
  def combined(early, late):
    return early[0] * late[0], late[0] * early[1] + late[1]

  a_bt = jnp.where(is_same_bt, 1.0 - p, 0.0)
  b_bt = jnp.where(is_same_bt & last_bt, p, 0.0)
  return jax.lax.associative_scan(combined, (a_bt, b_bt), axis=1)[1]

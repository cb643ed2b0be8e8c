# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average whose rate differs from step to step.

`z_j = p_j y_j + (1 - p_j) z_{j-1}`, over the units of a row: the smoothing of
H-Net (Hwang et al. 2025, arXiv:2507.07955, section 2.2.2). A step is an affine
map of z, and such maps compose, so the scan is associative.

Axes: b rows, w units, d width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def smooth(
  y_bwd: Float[Array, 'b w d'],
  rate_bw: Float[Array, 'b w'],
  state_bd: Float[Array, 'b d'] | None = None,
) -> Float[Array, 'b w d']:
  """The average at each unit, float32.

  Args:
    y_bwd: Values.
    rate_bw: p, from 0 (keeps the average) to 1 (forgets what was before).
    state_bd: The average before the first unit; None means zero.
  """
  rate_bw1 = rate_bw.astype(jnp.float32)[..., None]
  add_bwd = rate_bw1 * y_bwd.astype(jnp.float32)
  keep_bw1 = 1 - rate_bw1
  if state_bd is not None:
    first_bd = keep_bw1[:, 0] * state_bd.astype(jnp.float32)
    add_bwd = add_bwd.at[:, 0].add(first_bd)

  def compose(first, second):
    (a, x), (b, y) = first, second
    return a * b, b * x + y

  return jax.lax.associative_scan(compose, (keep_bw1, add_bwd), axis=1)[1]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Log-decays: their limits, and sums whose differences stay exact.

The weight between two tokens of a chunk is `exp` of a difference of two running
sums. One float32 sum would round every difference to the size of the largest
decay before: a reset of -1e4 leaves errors of 1e-3. So a decay per head is
split into a coarse part, a multiple of 1/16, and the rest, at most 1/32 in
size. Coarse sums are exact, as multiples of 1/16 below 2^20: at the limit of
128 per token that holds for chunks of 8192. The sums of the rests stay below
chunk / 32, so that a difference is wrong by about 2^-24 chunk / 32 (2e-7 for
128 tokens), plus its own rounding, whatever the decays.
"""

import jax
import jax.numpy as jnp

# A decay per feature is exponentiated over a sub-chunk of 16 tokens: 5 per
# token keeps that within float32.
MIN_BY_FEATURE = -5.0
# exp(-128) is 3e-56: exactly 0 in float32, whose least number is 1e-45, and
# nothing beside a sum in float64. Finite, so that differences are no NaN.
MIN_BY_HEAD = -128.0
_GRID = 16.0


def log_decay(
  decay: jax.Array | None, valid_bt: jax.Array | None, dtype
) -> jax.Array | None:
  """Within its limits, in `dtype`, and 0 for tokens that are not valid."""
  if decay is None:
    return None
  least = MIN_BY_FEATURE if decay.ndim == 4 else MIN_BY_HEAD
  decay = jnp.maximum(decay, least).astype(dtype)
  if valid_bt is None:
    return decay
  return jnp.where(jnp.expand_dims(valid_bt, range(2, decay.ndim)), decay, 0)


def running_sums(decay: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Running sums of the coarse parts and of the rests, which sum to `decay`.

  All of the derivative goes through the rests.
  """
  coarse = jax.lax.stop_gradient(jnp.round(decay * _GRID) / _GRID)
  return jnp.cumsum(coarse, axis), jnp.cumsum(decay - coarse, axis)

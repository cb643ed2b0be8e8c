# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""ALiBi: scores fall linearly with distance, at a fixed slope per head.

Press et al. 2022, arXiv:2108.12409, section 3; in its form for encoders the
distance counts in both directions.

Axes: n heads, t queries, s keys.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def slopes(num_heads: int) -> np.ndarray:
  """The slope of each head, float64 [n].

  For n heads, n a power of two, they are `2**(-8 i / n)`, i = 1..n. Otherwise
  those of the largest power of two below n come first, and then every second
  one of those of twice as many heads.

  Raises:
    ValueError: If there is no head.
  """
  if num_heads < 1:
    raise ValueError(f'num_heads={num_heads} must be >= 1.')
  power = 1 << (num_heads.bit_length() - 1)
  geometric = lambda n: 2.0 ** (-8.0 / n * np.arange(1, n + 1))
  rest = geometric(2 * power)[::2][: num_heads - power]
  return np.concatenate([geometric(power), rest])


def bias(num_heads: int, length: int) -> Float[Array, '1 n t t']:
  """`-slope * |distance|` between all places of a row, float32.

  Args:
    num_heads: Heads n.
    length: Places t; static.
  """
  place_t = jnp.arange(length)
  distance_tt = jnp.abs(place_t[:, None] - place_t).astype(jnp.float32)
  slopes_n = jnp.asarray(slopes(num_heads), jnp.float32)
  return -(slopes_n[:, None, None] * distance_tt)[None]

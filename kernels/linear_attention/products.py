# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature maps as a product of two matmuls, the form that kernels use.

Every feature is a product of two linear forms of `[x, 1]`, so that
`phi(x) = (x1 @ left) * (x1 @ right)`: no gathers, no concatenation of lanes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtok_kernels.linear_attention import features


def inputs(x: jax.Array, feature: str) -> jax.Array:
  """`[x, 1]`; what depends on the feature beyond products is applied here."""
  if feature == 'elu':
    x = (jax.nn.elu(x.astype(jnp.float32)) + 1).astype(x.dtype)
  return jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)


@functools.cache
def matrices(
  feature: str, h: int, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
  """`left` and `right` with zero rows and columns up to `[rows, columns]`."""
  unit = np.eye(h + 1, dtype=np.float32)
  x, one = unit[:, :h], unit[:, h:]
  if feature == 'taylor2':
    first, second, weight = features.pair_matrices(h)
    pad = lambda y: np.concatenate([y, np.zeros_like(y[:1])])
    left = [one, x * h**-0.25, pad(first) * weight]
    right = [one, np.repeat(one, h, 1), pad(second)]
  else:
    scale = h**-0.25 if feature == 'identity' else 1.0
    left, right = [x * scale], [np.repeat(one, h, 1)]
  size = features.feature_dim(feature, h)
  pads = ((0, rows - h - 1), (0, columns - size))
  return tuple(
    np.pad(np.concatenate(y, 1), pads).astype(np.float32) for y in (left, right)
  )


def similarity(scores: jax.Array, feature: str, h: int) -> jax.Array:
  """`phi(q) . phi(k)` from `scores = [q, 1] . [k, 1]`."""
  u = scores - 1
  if feature == 'elu':
    return u
  u = u * h**-0.5
  return u if feature == 'identity' else 1 + u + u * u / 2

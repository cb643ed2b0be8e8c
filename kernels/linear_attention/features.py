# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature maps of linear attention and the similarity they stand for.

`phi(q) . phi(k)` is, with `u = q . k / sqrt(h)`:
  'taylor2'   1 + u + u^2 / 2, the second-order Taylor form of exp(u)
              (Arora et al. 2024, arXiv:2402.18668), in its symmetric form of
              1 + h + h (h + 1) / 2 features.
  'identity'  u.
  'elu'       (elu(q) + 1) . (elu(k) + 1), not scaled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

FEATURES = ('taylor2', 'identity', 'elu')


def check(feature: str) -> None:
  """Raises `ValueError` for an unknown feature map."""
  if feature not in FEATURES:
    raise ValueError(
      f'feature={feature!r} is unknown; use one of {", ".join(FEATURES)}.'
    )


def feature_dim(feature: str, head_dim: int) -> int:
  """Number of features of a head of width `head_dim`."""
  check(feature)
  if feature != 'taylor2':
    return head_dim
  return 1 + head_dim + head_dim * (head_dim + 1) // 2


@functools.cache
def pair_matrices(h: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """`phi2(x) = (x @ left) * (x @ right) * weight`: products without gathers.

  Returns:
    Two 0/1 matrices `[h, h (h + 1) / 2]` and the weight of each product.
  """
  i, j = np.triu_indices(h)
  left, right = np.eye(h, dtype=np.float32)[:, [i, j]].transpose(1, 0, 2)
  weight = np.where(i == j, (2 * h) ** -0.5, h**-0.5)
  return left, right, weight


def feature_map(x: jax.Array, feature: str) -> jax.Array:
  """Features of `[..., h]` in at least float32, `[..., feature_dim]`."""
  check(feature)
  h = x.shape[-1]
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if feature == 'identity':
    return x * h**-0.25
  if feature == 'elu':
    return jax.nn.elu(x) + 1
  left, right, weight = pair_matrices(h)
  dot = functools.partial(jnp.dot, precision='highest')
  pairs = dot(x, left.astype(x.dtype)) * dot(x, right.astype(x.dtype))
  one = jnp.ones_like(x[..., :1])
  return jnp.concatenate([one, x * h**-0.25, pairs * weight], -1)


def similarity(q: jax.Array, k: jax.Array, feature: str) -> jax.Array:
  """`phi(q) . phi(k)` without features: `[..., t, h], [..., s, h]` to t x s."""
  dtype = jnp.promote_types(q.dtype, jnp.float32)
  if feature == 'elu':
    q, k = feature_map(q, feature), feature_map(k, feature)
    return jnp.einsum('...th,...sh->...ts', q, k)
  u = jnp.einsum('...th,...sh->...ts', q, k, preferred_element_type=dtype)
  u = u * q.shape[-1] ** -0.5
  return u if feature == 'identity' else 1 + u + u * u / 2

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""RMSNorm and LayerNorm with float32 statistics.

RMSNorm is that of T5 and Llama: Zhang and Sennrich 2019, arXiv:1910.07467,
without bias and without centring.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

KINDS = ('rms', 'layer')


class Norm(nnx.Module):
  """Normalises the last axis, then scales (and shifts, if `kind='layer'`)."""

  def __init__(
    self,
    dim: int,
    *,
    kind: str = 'rms',
    eps: float = 1e-6,
    axis: str = 'embed',
    use_bias: bool = True,
  ):
    """Creates a scale of ones and, for LayerNorm, a bias of zeros.

    Args:
      dim: Size of the axis.
      kind: 'rms' divides by the root mean square; 'layer' centres first.
      eps: Added to the mean square, under the root.
      axis: Logical name of the axis.
      use_bias: Whether `kind='layer'` has a bias.
    """
    if kind not in KINDS:
      raise ValueError(f'norm kind={kind!r} must be one of {KINDS}.')
    self.kind, self.eps = kind, eps
    self.scale = nnx.Param(jnp.ones(dim), axes=(axis,))
    has_bias = kind == 'layer' and use_bias
    self.bias = nnx.Param(jnp.zeros(dim), axes=(axis,)) if has_bias else None

  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    """Returns the normalised input in the input's dtype."""
    y = x.astype(jnp.float32)
    if self.kind == 'layer':
      y = y - y.mean(axis=-1, keepdims=True)
    mean_square = jnp.mean(y * y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(mean_square + self.eps) * self.scale[...]
    if self.bias is not None:
      y = y + self.bias[...]
    return y.astype(x.dtype)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A linear map between groups of axes, e.g. 'd -> n h'.

Parameters are float32 and carry the logical names of their axes as plain
metadata `axes=`, which `train.sharding` turns into shardings.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Linear(nnx.Module):
  """Contracts the trailing axes of its input with a kernel.

  The kernel is drawn from N(0, std**2); by default std is 1/sqrt(inputs).
  """

  def __init__(
    self,
    in_dims: tuple[int, ...],
    out_dims: tuple[int, ...],
    *,
    axes: tuple[str, ...],
    use_bias: bool = False,
    std: float = 0.0,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    """Creates the parameters.

    Args:
      in_dims: Sizes of the input axes that are contracted (trailing).
      out_dims: Sizes of the output axes.
      axes: Logical names of `in_dims + out_dims`.
      use_bias: Whether a bias of shape `out_dims` is added.
      std: Standard deviation of the initial kernel; 0 means 1/sqrt(inputs).
      dtype: Type of the matmul's inputs and result.
      rngs: Source of randomness.
    """
    self.num_in = len(in_dims)
    self.dtype = dtype
    std = std or 1 / math.sqrt(math.prod(in_dims))
    kernel = jax.random.normal(rngs.params(), (*in_dims, *out_dims)) * std
    self.kernel = nnx.Param(kernel, axes=axes)
    bias = lambda: nnx.Param(jnp.zeros(out_dims), axes=axes[self.num_in :])
    self.bias = bias() if use_bias else None

  def __call__(self, x: Float[Array, '...']) -> Float[Array, '...']:
    """Maps `[..., *in_dims]` to `[..., *out_dims]`, in `dtype`."""
    kernel = self.kernel[...].astype(self.dtype)
    y = jnp.tensordot(x.astype(self.dtype), kernel, axes=self.num_in)
    return y if self.bias is None else y + self.bias[...].astype(self.dtype)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A linear map between groups of axes, e.g. 'd -> n h'.

Parameters are float32 and carry the logical names of their axes as plain
metadata `axes=`, which `train.sharding` turns into shardings.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxtok.nn import platform


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
    y = matmul(x.astype(self.dtype), kernel, num_in=self.num_in)
    return y if self.bias is None else y + self.bias[...].astype(self.dtype)


def matmul(
  x: Float[Array, '...'],
  kernel: Float[Array, '...'],
  out_dtype: Any = None,
  *,
  num_in: int = 1,
) -> Float[Array, '...']:
  """Contracts the last `num_in` axes of x with the first of the kernel.

  On one CPU the other axes of x are flattened first: the kernel's gradient
  then contracts a single axis, for which XLA needs no transposed copies.

  Args:
    x: Left operand.
    kernel: Right operand.
    out_dtype: Type of sums and result; None means the operands'.
    num_in: Number of contracted axes; static.
  """
  if not platform.is_single_cpu():
    return jnp.tensordot(
      x, kernel, axes=num_in, preferred_element_type=out_dtype
    )
  in_dims, out_dims = kernel.shape[:num_in], kernel.shape[num_in:]
  num = math.prod(in_dims)
  y = jnp.matmul(
    x.reshape(-1, num),
    kernel.reshape(num, -1),
    preferred_element_type=out_dtype,
  )
  return y.reshape(*x.shape[: x.ndim - num_in], *out_dims)

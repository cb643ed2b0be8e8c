# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A linear map between groups of axes, e.g. 'd -> n h'.

Parameters are float32 and carry the logical names of their axes as plain
metadata `axes=`, which `train.sharding` turns into shardings.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxtok.nn import platform

DTYPES = ('float32', 'bfloat16')


def check_dtype(dtype: str) -> None:
  """Raises a ValueError if matmuls in this type are not supported."""
  if dtype == 'float16':
    raise ValueError(
      "dtype='float16' is not supported: small gradients vanish in it, as "
      "nothing scales the loss. Use 'bfloat16' or 'float32'."
    )
  if dtype not in DTYPES:
    raise ValueError(f'dtype={dtype!r} must be one of {", ".join(DTYPES)}.')


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
      dtype: Type of the matmul's inputs and, by default, its result.
      rngs: Source of randomness.
    """
    self.num_in = len(in_dims)
    self.dtype = dtype
    std = std or 1 / math.sqrt(math.prod(in_dims))
    kernel = jax.random.normal(rngs.params(), (*in_dims, *out_dims)) * std
    self.kernel = nnx.Param(kernel, axes=axes)
    bias = lambda: nnx.Param(jnp.zeros(out_dims), axes=axes[self.num_in :])
    self.bias = bias() if use_bias else None

  def __call__(
    self, x: Float[Array, '...'], out_dtype: Any = None
  ) -> Float[Array, '...']:
    """Maps `[..., *in_dims]` to `[..., *out_dims]`.

    Args:
      x: Input.
      out_dtype: Type of sums and result; None means `dtype`.
    """
    kernel = self.kernel[...].astype(self.dtype)
    y = matmul(x.astype(self.dtype), kernel, out_dtype, num_in=self.num_in)
    return y if self.bias is None else add_bias(y, self.bias[...])


def add_bias(
  y: Float[Array, '...'], bias: Float[Array, '...']
) -> Float[Array, '...']:
  """Adds `bias` to the trailing axes of y, in y's type.

  On one CPU the gradient sums the rows by a product with a row of ones: XLA's
  sum over many rows is several times slower there.
  """
  bias = bias.astype(y.dtype)
  return _add_rows(y, bias) if platform.is_single_cpu() else y + bias


@jax.custom_jvp
def _add_rows(y, bias):
  return y + bias


@_add_rows.defjvp
def _add_rows_jvp(primals, tangents):
  (y, bias), (dy, dbias) = primals, tangents
  ones = jnp.ones((y.size // bias.size, 1), y.dtype)
  drows = jnp.matmul(ones, dbias.reshape(1, -1))
  return y + bias, dy + drows.reshape(y.shape)


def matmul(
  x: Float[Array, '...'],
  kernel: Float[Array, '...'],
  out_dtype: Any = None,
  *,
  num_in: int = 1,
) -> Float[Array, '...']:
  """Contracts the last `num_in` axes of x with the first of the kernel.

  The backward pass multiplies in the operands' type too, whatever `out_dtype`.

  Args:
    x: Left operand.
    kernel: Right operand.
    out_dtype: Type of sums and result; None means the operands'.
    num_in: Number of contracted axes; static.
  """
  if out_dtype is None or jnp.dtype(out_dtype) == x.dtype:
    return _product(x, kernel, None, num_in)
  return _widened(jnp.dtype(out_dtype), num_in, x, kernel)


def _product(x, kernel, out_dtype, num_in):
  """`matmul`, with jax's own gradient.

  On one CPU the other axes of x are flattened first: the kernel's gradient
  then contracts a single axis, for which XLA needs no transposed copies.
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _widened(out_dtype, num_in, x, kernel):
  """A product whose result is wider than its operands.

  jax would multiply the wide cotangent with the narrow operands: a float32
  matmul, several times slower on an accelerator.
  """
  return _product(x, kernel, out_dtype, num_in)


def _widened_fwd(out_dtype, num_in, x, kernel):
  return _widened(out_dtype, num_in, x, kernel), (x, kernel)


def _widened_bwd(out_dtype, num_in, operands, cotangent):
  del out_dtype
  product = lambda x, kernel: _product(x, kernel, None, num_in)
  _, vjp = jax.vjp(product, *operands)
  return vjp(cotangent.astype(operands[0].dtype))


_widened.defvjp(_widened_fwd, _widened_bwd)

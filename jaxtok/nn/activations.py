# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Activation functions by name."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LINEAR, _CUBIC = 1.5957691216057308, 0.0713548162726009  # Of 2u, see below.


@jax.custom_jvp
def gelu_tanh(x: Float[Array, '...']) -> Float[Array, '...']:
  """GELU with the tanh approximation, as x * sigmoid(2u).

  Hendrycks and Gimpel 2016, arXiv:1606.08415. With
  u = sqrt(2/pi) (x + 0.044715 x**3), 0.5 (1 + tanh u) = sigmoid(2u). The
  derivative is written out so that the backward pass keeps one array.
  """
  return x * jax.nn.sigmoid(x * (_LINEAR + _CUBIC * x * x))


@gelu_tanh.defjvp
def _gelu_tanh_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  gate = jax.nn.sigmoid(x * (_LINEAR + _CUBIC * x * x))
  # Far from 0 the cube overflows, but 1 - gate or gate is 0 there.
  x_near = jnp.clip(x, -30, 30)
  inner = x_near * (_LINEAR + 3 * _CUBIC * x_near * x_near)
  return x * gate, dx * (gate + gate * (1 - gate) * inner)


FUNCTIONS = {
  'silu': jax.nn.silu,
  'gelu': gelu_tanh,
  'gelu_exact': functools.partial(jax.nn.gelu, approximate=False),
  'relu': jax.nn.relu,
  'relu2': lambda x: jnp.square(jax.nn.relu(x)),
}


def check(name: str) -> None:
  """Raises a ValueError if there is no activation of this name."""
  if name not in FUNCTIONS:
    raise ValueError(
      f'activation={name!r} must be one of {", ".join(FUNCTIONS)}; '
      "'gelu' is the tanh approximation, 'gelu_exact' uses erf."
    )

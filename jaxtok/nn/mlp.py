# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The feed-forward part of a block, gated or not.

Gated form: Shazeer 2020, arXiv:2002.05202: `down(act(gate(x)) * up(x))`.
"""

from flax import nnx
from jaxtyping import Array, Float

from jaxtok.nn import activations, linear


class Mlp(nnx.Module):
  """`down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))`."""

  def __init__(
    self,
    dim: int,
    hidden: int,
    *,
    activation: str = 'gelu',
    gated: bool = False,
    use_bias: bool = False,
    out_std: float = 0.0,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    """Creates the projections.

    Args:
      dim: Model width d.
      hidden: Hidden width f.
      activation: A name of `activations.FUNCTIONS`.
      gated: Whether a third projection gates the hidden units.
      use_bias: Whether all projections have biases.
      out_std: Standard deviation of `down`; 0 means 1/sqrt(f).
      dtype: Type of the matmuls.
      rngs: Source of randomness.
    """
    activations.check(activation)
    self.activation = activation
    make = lambda i, o, axes, std=0.0: linear.Linear(
      (i,), (o,), axes=axes, use_bias=use_bias, std=std, dtype=dtype, rngs=rngs
    )
    self.up = make(dim, hidden, ('embed', 'mlp'))
    self.gate = make(dim, hidden, ('embed', 'mlp')) if gated else None
    self.down = make(hidden, dim, ('mlp', 'embed'), out_std)

  def __call__(self, x_btd: Float[Array, 'b t d']) -> Float[Array, 'b t d']:
    """Applies the MLP to each position."""
    act = activations.FUNCTIONS[self.activation]
    up_btf = self.up(x_btd)
    if self.gate is None:
      return self.down(act(up_btf))
    return self.down(act(self.gate(x_btd)) * up_btf)

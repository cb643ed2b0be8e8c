# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""From token ids to vectors, and from vectors to logits."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.nn import activations, linear, norms


class Embed(nnx.Module):
  """A table of `num` rows drawn from N(0, std**2)."""

  def __init__(
    self,
    num: int,
    dim: int,
    *,
    axis: str = 'vocab',
    std: float = 0.02,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    self.num, self.dtype = num, dtype
    table = jax.random.normal(rngs.params(), (num, dim)) * std
    self.table = nnx.Param(table, axes=(axis, 'embed'))

  def __call__(self, ids: Int[Array, '*n']) -> Float[Array, '*n d']:
    """Rows of the table; ids outside 0..num-1 give NaN, never another row."""
    ids = jnp.where(ids < 0, self.num, ids)  # Negative ids would wrap.
    rows = jnp.take(self.table[...], ids, axis=0, mode='fill')
    return rows.astype(self.dtype)

  def scores(self, x_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Products with all rows (a tied head), float32."""
    table_dv = self.table[...].astype(self.dtype).T
    return linear.matmul(x_btd.astype(self.dtype), table_dv, jnp.float32)


class Embedder(nnx.Module):
  """Sum of a token's vector and, if asked for, its position's and type's."""

  def __init__(
    self,
    num_tokens: int,
    dim: int,
    *,
    max_len: int = 0,
    first_position: int = 0,
    num_types: int = 0,
    num_phases: int = 0,
    norm: norms.Norm | None = None,
    std: float = 0.02,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    """Creates the tables.

    Args:
      num_tokens: Rows of the token table.
      dim: Width d.
      max_len: Longest row of learned positions; 0 means no table.
      first_position: Row of position 0 in that table, which has as many more
        rows; those before it are positions -1, -2, ...
      num_types: Rows of the table of token types, of which only row 0 is
        used; 0 means no table.
      num_phases: Rows of the table of positions modulo that number; 0 means
        no table.
      norm: Applied to the sum, or None.
      std: Standard deviation of the initial tables.
      dtype: Type of the result.
      rngs: Source of randomness.
    """

    def table(num, axis):
      return Embed(num, dim, axis=axis, std=std, dtype=dtype, rngs=rngs)

    self.max_len, self.first_position = max_len, first_position
    self.tokens = table(num_tokens, 'vocab')
    num = max_len + first_position
    self.positions = table(num, 'position') if max_len else None
    self.types = table(num_types, 'type') if num_types else None
    self.phases = table(num_phases, 'phase') if num_phases else None
    self.num_phases = num_phases
    self.norm = norm

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    positions_bt: Int[Array, '#b t'] | None = None,
  ) -> Float[Array, 'b t d']:
    """Embeds tokens; positions count from 0 if None.

    Raises:
      ValueError: If a row is longer than the table of positions. Single
        positions beyond it give NaN.
    """
    x_btd = self.tokens(tokens_bt)
    t = tokens_bt.shape[1]
    if positions_bt is None:
      positions_bt = jnp.arange(t)[None]
    if self.positions is not None:
      if t > self.max_len:
        raise ValueError(
          f'rows of {t} tokens exceed the {self.max_len} learned positions. '
          'Shorten them or raise max_len.'
        )
      x_btd += self.positions(positions_bt + self.first_position)
    if self.phases is not None:
      x_btd += self.phases(positions_bt % self.num_phases)
    if self.types is not None:
      x_btd += self.types.table[0].astype(x_btd.dtype)
    return x_btd if self.norm is None else self.norm(x_btd)


class Head(nnx.Module):
  """Logits of the vocabulary, with a table of its own or the embedding's."""

  def __init__(
    self,
    dim: int,
    num_rows: int,
    *,
    is_tied: bool,
    transform: str = '',
    norm: norms.Norm | None = None,
    use_bias: bool = False,
    scale: float = 1.0,
    soft_cap: float = 0.0,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    """Creates the parameters.

    Args:
      dim: Width d.
      num_rows: Size of the vocabulary, with padding.
      is_tied: Whether the embedding's table is used.
      transform: Name of an activation: a dense layer and the activation come
        first (BERT); '' means neither.
      norm: Applied after that, or None.
      use_bias: Whether the logits have a bias.
      scale: Multiplies the states.
      soft_cap: If > 0, logits become `soft_cap * tanh(logits / soft_cap)`.
      dtype: Type of the matmuls' inputs.
      rngs: Source of randomness.
    """
    self.transform, self.scale, self.soft_cap = transform, scale, soft_cap

    def dense(num, axis, use_bias):
      return linear.Linear(
        (dim,),
        (num,),
        axes=('embed', axis),
        use_bias=use_bias,
        dtype=dtype,
        rngs=rngs,
      )

    self.dense = dense(dim, 'mlp', True) if transform else None
    self.norm = norm
    self.out = None if is_tied else dense(num_rows, 'vocab', False)
    bias = lambda: nnx.Param(jnp.zeros(num_rows), axes=('vocab',))
    self.bias = bias() if use_bias else None

  def __call__(
    self, x_btd: Float[Array, 'b t d'], tokens: Embed
  ) -> Float[Array, 'b t v']:
    """Logits of all rows, float32; `tokens` is the embedding's table."""
    if self.dense is not None:
      x_btd = activations.FUNCTIONS[self.transform](self.dense(x_btd))
    if self.norm is not None:
      x_btd = self.norm(x_btd)
    if self.scale != 1:
      x_btd = x_btd * self.scale
    if self.out is None:
      logits_btv = tokens.scores(x_btd)
    else:
      logits_btv = self.out(x_btd, jnp.float32)
    if self.bias is not None:
      logits_btv += self.bias[...]
    if self.soft_cap:
      logits_btv = self.soft_cap * jnp.tanh(logits_btv / self.soft_cap)
    return logits_btv

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The transformer block: self-attention, optional cross-attention, MLP.

Pre-norm: `x + f(norm(x))`; post-norm (the original, BERT): `norm(x + f(x))`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxtok.config import configclass
from jaxtok.nn import attention, masks, mlp, norms


@configclass
class Config:
  """Hyper-parameters of `Block`."""

  attention: attention.Config
  mlp_dim: int = 512
  activation: str = 'gelu'
  gated: bool = False
  mlp_bias: bool = False
  norm: str = 'rms'
  norm_eps: float = 1e-6
  is_pre_norm: bool = True
  has_cross: bool = False  # Attends to an encoder's states as well.
  out_std: float = 0.0  # Of the MLP's `down`; 0 means 1/sqrt(mlp_dim).
  dropout: float = 0.0  # Of each branch's output, if an rng is given.

  def flops(
    self, rows: int, keys: int, cross_rows: int = 0, cross_keys: int = 0
  ) -> dict[str, float]:
    """Matmul FLOPs of one block, forward, by part (2 per multiply-add).

    Args:
      rows: Positions, over the whole batch.
      keys: Keys of each query; all are counted, seen or not.
      cross_rows: Encoder states, over the whole batch.
      cross_keys: Encoder states per row.
    """
    a = self.attention
    inner, inner_kv = a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim
    mlp = (3 if self.gated else 2) * a.dim * self.mlp_dim
    pair = 2 * inner  # One query against one key: score and sum.
    parts = {
      'projections': 2 * rows * a.dim * 2 * (inner + inner_kv),
      'attention': 2 * rows * keys * pair,
      'mlp': 2 * rows * mlp,
    }
    if self.has_cross:
      projections = rows * a.dim * 2 * inner + cross_rows * a.dim * 2 * inner_kv
      parts['cross'] = 2 * (projections + rows * cross_keys * pair)
    return {name: float(value) for name, value in parts.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
  """What all blocks of one call share.

  Attributes:
    mask: Which keys a query sees.
    layout: Order and documents of queries and keys.
    rotation: `rope.rotation` of the queries, or None.
    bias: Added to the scores [#b, n, t, s], or None.
    slots_bt: Where a cache stores the new tokens; None without a cache.
    cross_layout: Documents of queries and encoder states, or None.
  """

  mask: masks.Mask
  layout: masks.Layout
  rotation: Any = None
  bias: Any = None
  slots_bt: Any = None
  cross_layout: Any = None


def dropout(
  x: Float[Array, '...'], rate: float, rng: Array | None
) -> Float[Array, '...']:
  """Zeroes elements with probability `rate`; nothing happens without rng."""
  if rng is None or rate == 0:
    return x
  keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
  return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def split(rng: Array | None, num: int) -> list[Array | None]:
  """Independent keys, or as many None."""
  return [None] * num if rng is None else list(jax.random.split(rng, num))


class Block(nnx.Module):
  """One layer. Pure: the cache comes in and goes out."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    att = config.attention
    norm = lambda: norms.Norm(att.dim, kind=config.norm, eps=config.norm_eps)
    self.attention_norm = norm()
    self.attention = attention.Attention(att, rngs=rngs)
    has_cross = config.has_cross
    self.cross_norm = norm() if has_cross else None
    self.cross = attention.Attention(att, rngs=rngs) if has_cross else None
    self.mlp_norm = norm()
    self.mlp = mlp.Mlp(
      att.dim,
      config.mlp_dim,
      activation=config.activation,
      gated=config.gated,
      use_bias=config.mlp_bias,
      out_std=config.out_std,
      dtype=att.dtype,
      rngs=rngs,
    )

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    context: Context,
    *,
    layer: int = 0,
    cache: Any = None,
    cross_kv: Any = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """Applies the block.

    Args:
      x_btd: Residual stream.
      context: Mask, rotation and bias, shared by all blocks.
      layer: Index of this block in the cache; static.
      cache: A `cache.kv.KVCache` with slots reserved, or None.
      cross_kv: Keys, values and bias (or None) of the encoder's states for
        this block.
      rng: Turns dropout on.

    Returns:
      The new residual stream and the cache.
    """
    x_btd, cache = self.attend(
      x_btd, context, layer=layer, cache=cache, rng=rng
    )
    rngs = split(rng, 3)
    if self.cross is not None:
      look = lambda x: (self._cross_attention(x, context, cross_kv), None)
      x_btd, _ = self._branch(x_btd, self.cross_norm, look, rngs[1])
    think = lambda x: (self.mlp(x), None)
    x_btd, _ = self._branch(x_btd, self.mlp_norm, think, rngs[2])
    return x_btd, cache

  def attend(
    self,
    x_btd: Float[Array, 'b t d'],
    context: Context,
    *,
    layer: int = 0,
    cache: Any = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """The first branch, self-attention, alone; see `__call__`."""
    attend = lambda x: self._self_attention(x, context, layer, cache)
    key = split(rng, 3)[0]
    return self._branch(x_btd, self.attention_norm, attend, key)

  def _branch(self, x_btd, norm, branch, rng):
    """Pre-norm or post-norm residual around `branch`."""
    if self.config.is_pre_norm:
      y_btd, extra = branch(norm(x_btd))
      return x_btd + dropout(y_btd, self.config.dropout, rng), extra
    y_btd, extra = branch(x_btd)
    return norm(x_btd + dropout(y_btd, self.config.dropout, rng)), extra

  def _self_attention(self, x_btd, context, layer, cache):
    q_btnh = self.attention.queries(x_btd, context.rotation)
    k_bskh, v_bskh = self.attention.keys_values(x_btd, context.rotation)
    if cache is not None:
      cache = cache.write(layer, k_bskh, v_bskh, context.slots_bt)
      k_bskh, v_bskh = cache.layer(layer)
    y_btd = self.attention.attend(
      q_btnh,
      k_bskh,
      v_bskh,
      mask=context.mask,
      layout=context.layout,
      bias=context.bias,
    )
    return y_btd, cache

  def _cross_attention(self, x_btd, context, cross_kv):
    k_bskh, v_bskh, bias = cross_kv
    return self.cross.attend(
      self.cross.queries(x_btd),
      k_bskh,
      v_bskh,
      mask=masks.Segments(),
      layout=context.cross_layout,
      bias=bias,
    )

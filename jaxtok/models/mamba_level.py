# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A level of Mamba-2 layers: called like `level.Level`, without attention.

Each layer is `x + mamba2(norm(x))`, without an MLP (H-Net's `m`). Positions are
known from the recurrence, so there is no rotation and no mask.

Axes: b rows, t positions, d width.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.cache import slots
from jaxtok.config import configclass
from jaxtok.nn import block, mamba2, norms, ragged


@configclass
class Config:
  """Hyper-parameters of `MambaLevel`."""

  dim: int = 128  # Width d.
  num_layers: int = 2
  head_dim: int = 64
  state_dim: int = 64
  norm_eps: float = 1e-6
  dropout: float = 0.0
  dtype: str = 'float32'

  def layer(self) -> mamba2.Config:
    """The config of one layer."""
    return mamba2.Config(
      dim=self.dim,
      head_dim=self.head_dim,
      state_dim=self.state_dim,
      norm_eps=self.norm_eps,
      out_std=1 / math.sqrt(2 * self.dim * max(self.num_layers, 1)),
      dtype=self.dtype,
    )

  def flops(self, rows: int, keys: int) -> float:
    """Matmul FLOPs of all layers, forward; `keys` play no part."""
    del keys
    return self.num_layers * self.layer().flops(rows)

  def init_cache(self, batch_size: int, max_len: int) -> slots.SlotCache:
    """An empty cache for this level."""
    layer, states = self.layer(), {}
    empty = lambda *axes: jnp.zeros((batch_size, max_len, *axes), self.dtype)
    for i in range(self.num_layers):
      states[f'u_{i}'] = empty(layer.conv_dim)
      states[f'dt_{i}'] = empty(layer.num_heads).astype(jnp.float32)
    return slots.SlotCache.empty(states)


class MambaLevel(nnx.Module):
  """Layers one after the other, then a norm."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    norm = lambda: norms.Norm(config.dim, eps=config.norm_eps)
    self.norms = nnx.List(norm() for _ in range(config.num_layers))
    self.layers = nnx.List(
      mamba2.Mamba2(config.layer(), rngs=rngs) for _ in range(config.num_layers)
    )
    self.norm = norm()

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    *,
    positions_bt: Any = None,
    segment_ids_bt: Int[Array, 'b t'],
    mask: Any = None,
    cache: slots.SlotCache | None = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """Returns the states and the longer cache; see `level.Level`."""
    del positions_bt, mask
    rngs = block.split(rng, len(self.layers))
    if cache is not None:
      cache, slots_bt = cache.reserve(segment_ids_bt)
    for i, (norm, layer, key) in enumerate(
      zip(self.norms, self.layers, rngs, strict=True)
    ):
      h_btd = norm(x_btd)
      u_btf, dt_btn = layer.inputs(h_btd)
      if cache is None:
        y_bte = layer.mix(u_btf, dt_btn, segment_ids_bt)
      else:
        cache = cache.put(f'u_{i}', slots_bt, u_btf)
        cache = cache.put(f'dt_{i}', slots_bt, dt_btn)
        u_bsf, dt_bsn = cache.states[f'u_{i}'], cache.states[f'dt_{i}']
        y_bse = layer.mix(u_bsf, dt_bsn, cache.documents_bs)
        y_bte = ragged.gather(y_bse, slots_bt)
      h_btd = layer.finish(h_btd, y_bte)
      x_btd = x_btd + block.dropout(h_btd, self.config.dropout, key)
    return self.norm(x_btd), cache

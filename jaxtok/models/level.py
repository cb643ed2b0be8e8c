# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What hierarchical models share: a level of blocks, and bookkeeping of units.

Models that work on bytes and on units of bytes have a stack of blocks for each.
What the levels attend to, and how their positions are counted, the model says;
the rest is the same for all.

Axes: b rows, t positions (bytes or units), d width.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.cache import kv
from jaxtok.config import configclass
from jaxtok.nn import (
  attention,
  block,
  masks,
  ragged,
  relative_bias,
  rope,
  stack,
)
from jaxtok.objectives.base import Mean


@configclass
class Config:
  """Hyper-parameters of `Level`; RMSNorm before each branch, no biases."""

  dim: int = 128  # Width d.
  num_layers: int = 2
  num_heads: int = 2
  num_kv_heads: int = 0  # 0 means num_heads.
  mlp_dim: int = 0  # 0 means 8/3 dim if gated, else 4 dim; a multiple of 8.
  activation: str = 'silu'
  gated: bool = True
  position: str = 'rope'  # Or 't5', a relative bias.
  rotary: rope.Config = rope.Config()
  norm_eps: float = 1e-6
  branch_scale: float = 0.0  # At first; see `transformer.Config`.
  dropout: float = 0.0
  has_norm: bool = True  # After the last block.
  remat: bool = False
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    if self.dim < 1 or self.num_heads < 1 or self.dim % self.num_heads:
      raise ValueError(
        f'dim={self.dim} must be a multiple of num_heads={self.num_heads}, '
        'both >= 1.'
      )
    if self.position not in ('rope', 't5'):
      raise ValueError(f"position={self.position!r} must be 'rope' or 't5'.")
    if self.num_kv_heads < 0 or self.num_heads % self.kv_heads:
      raise ValueError(
        f'num_kv_heads={self.num_kv_heads} must divide num_heads='
        f'{self.num_heads} (0 means as many).'
      )
    if self.num_layers < 0:
      raise ValueError(f'num_layers={self.num_layers} must be >= 0.')
    if self.branch_scale < 0:
      raise ValueError(
        f'branch_scale={self.branch_scale} must be >= 0; 0 means 1 / sqrt('
        'number of branches).'
      )
    check_dropout(self.dropout)
    rope.frequencies(self.head_dim, self.rotary)

  @property
  def head_dim(self) -> int:
    return self.dim // self.num_heads

  @property
  def kv_heads(self) -> int:
    return self.num_kv_heads or self.num_heads

  @property
  def mlp_width(self) -> int:
    if self.mlp_dim:
      return self.mlp_dim
    return -(-self.dim * 8 // 24) * 8 if self.gated else 4 * self.dim

  def block(self) -> block.Config:
    """The config of one block."""
    scale = self.branch_scale or 1 / math.sqrt(max(2 * self.num_layers, 1))
    return block.Config(
      attention=attention.Config(
        dim=self.dim,
        num_heads=self.num_heads,
        num_kv_heads=self.kv_heads,
        head_dim=self.head_dim,
        out_std=scale / math.sqrt(self.dim),
        norm_eps=self.norm_eps,
        dtype=self.dtype,
        implementation=self.implementation,
      ),
      mlp_dim=self.mlp_width,
      activation=self.activation,
      gated=self.gated,
      norm_eps=self.norm_eps,
      out_std=scale / math.sqrt(self.mlp_width),
      dropout=self.dropout,
    )

  def flops(self, rows: int, keys: int) -> float:
    """Matmul FLOPs of all blocks, forward.

    Args:
      rows: Positions, over the whole batch.
      keys: Keys of each query.
    """
    return self.num_layers * sum(self.block().flops(rows, keys).values())

  def init_cache(self, batch_size: int, max_len: int) -> kv.KVCache:
    """An empty cache for this level."""
    return kv.KVCache.empty(
      num_layers=self.num_layers,
      batch_size=batch_size,
      max_len=max_len,
      num_kv_heads=self.kv_heads,
      head_dim=self.head_dim,
      dtype=self.dtype,
    )


class Level(nnx.Module):
  """A stack of blocks and what positions mean to it."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    bias = lambda: relative_bias.RelativeBias(
      config.num_heads,
      is_causal=True,
      std=1 / math.sqrt(config.dim),
      rngs=rngs,
    )
    self.stack = stack.Stack(
      config.block(),
      num_layers=config.num_layers,
      bias=bias() if config.position == 't5' else None,
      remat=config.remat,
      has_norm=config.has_norm,
      rngs=rngs,
    )

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    *,
    positions_bt: Int[Array, '#b t'],
    segment_ids_bt: Int[Array, '#b t'] | None,
    mask: masks.Mask,
    cache: kv.KVCache | None = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """Returns the states and the longer cache.

    Args:
      x_btd: Residual stream.
      positions_bt: For rotation or bias; a bias tells only the past apart.
      segment_ids_bt: Attention stays within positions of the same number; 0
        sees nothing and is not seen. None means that all are alike.
      mask: Which of them are seen.
      cache: Keys and values of earlier positions.
      rng: Turns dropout on.
    """
    t = x_btd.shape[1]
    layout = masks.Layout(
      t, t, q_segments_bt=segment_ids_bt, kv_segments_bs=segment_ids_bt
    )
    slots_bt = None
    if cache is not None:
      cache, slots_bt = cache.reserve(positions_bt, segment_ids_bt, t)
      layout = masks.Layout(
        t,
        cache.max_len,
        q_index_bt=slots_bt,
        q_segments_bt=segment_ids_bt,
        kv_segments_bs=cache.segment_ids_bs,
        kv_length_b=cache.length_b,
      )
    c, rotation, bias_nts = self.config, None, None
    positions_bt = jnp.asarray(positions_bt)
    if c.position == 'rope':
      rotation = rope.rotation(positions_bt, c.head_dim, c.rotary)
    else:
      keys = positions_bt if cache is None else cache.positions_bs
      bias_nts = self.stack.bias(positions_bt, keys)
    context = block.Context(
      masks.Segments() & mask, layout, rotation, bias_nts, slots_bt
    )
    return self.stack(x_btd, context, cache=cache, rng=rng)


def unit_sizes(
  capacity: ragged.Capacity, t: int, is_training: bool, cache: Any
) -> tuple[int, ...]:
  """Sizes of the trunk's input for `ragged.dispatch`.

  In training those of the capacity; otherwise also t, which always suffices,
  and with a cache 0, for steps without a unit.
  """
  sizes = set(capacity.sizes(t))
  if not is_training:
    sizes.add(t)
  if cache is not None:
    sizes.add(0)
  return tuple(sorted(sizes))


def unit_aux(
  unit_bt: Int[Array, 'b t'],
  is_unit_bt: Any,
  segment_ids: Int[Array, '#b t'] | None,
  capacity: int,
  is_training: bool,
) -> dict[str, Any]:
  """`Output.aux` of a model with units.

  Args:
    unit_bt: Index of the unit whose state each position needs.
    is_unit_bt: Positions that add a unit to the trunk.
    segment_ids: Documents; 0 is padding.
    capacity: Units that have room in training.
    is_training: Whether units beyond it were lost.
  """
  valid_bt = jnp.ones(unit_bt.shape, bool)
  if segment_ids is not None:
    valid_bt = jnp.broadcast_to(segment_ids, unit_bt.shape) != 0
  total_b = valid_bt.sum(axis=1).astype(jnp.float32)
  is_lost_bt = (unit_bt >= capacity) & valid_bt
  lost_b = jnp.where(is_training, is_lost_bt.sum(axis=1), 0)
  units_b = is_unit_bt.sum(axis=1).astype(jnp.float32)
  aux = {
    'metrics': {
      'units_per_token': Mean(units_b, total_b),
      'lost_targets': Mean(lost_b.astype(jnp.float32), total_b),
    }
  }
  return aux | ({'target_mask_bt': ~is_lost_bt} if is_training else {})


def check_sizes(config: Any, *names: str) -> None:
  """Checks what configs of hierarchical models have in common.

  Args:
    config: With `vocab_multiple` and `dropout`.
    *names: Its other fields that must be >= 1.

  Raises:
    ValueError: Naming the field, its value and the rule.
  """
  for name in (*names, 'vocab_multiple'):
    if getattr(config, name) < 1:
      raise ValueError(f'{name}={getattr(config, name)} must be >= 1.')
  check_dropout(config.dropout)


def check_dropout(share: float) -> None:
  """Raises a ValueError if a share of dropout is none."""
  if not 0 <= share < 1:
    raise ValueError(f'dropout={share} must be in [0, 1).')


def refuse(model: str, **arguments: Any) -> None:
  """Raises a ValueError if an argument that a model cannot take is given."""
  for name, value in arguments.items():
    if value is not None:
      raise ValueError(f'{model} takes no {name}; leave it None.')

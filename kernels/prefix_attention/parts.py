# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared-prefix attention: one level at a time.

The queries of all sequences of a group become rows of one matmul against the
group's prefix, so that each prefix is read once per tile of sequences instead
of once per sequence.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import implementations, packing, xla
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.prefix_attention import cost
from jaxtok_kernels.prefix_attention.levels import (
  GroupTiles,
  PrefixLevel,
  group_tiles,
)
from jaxtok_kernels.state import AttentionState, empty, stats_dtype


def level_forward(
  q_btnh: jax.Array, level: PrefixLevel, options: xla.Options
) -> AttentionState:
  """State of all sequences over their prefix of one level."""
  b, t, n, _ = q_btnh.shape
  out_shape = (b, t, n, level.v_mpkh.shape[-1])
  start = empty(out_shape, stats_dtype(q_btnh.dtype))

  def tile(i, tiles: GroupTiles, state: AttentionState):
    q_1tnh = _take(q_btnh, tiles.rows[i])
    k_1pkh, v_1pkh = (_prefix(x, tiles.group[i]) for x in _kv(level))
    mask = _mask(level, tiles, i, t)
    part = xla.forward(q_1tnh, k_1pkh, v_1pkh, mask, None, options)
    return jax.tree.map(lambda x, y: _put(x, y, tiles.rows[i]), state, part)

  return _over_tiles(q_btnh, level, tile, start)


def level_backward(
  q_btnh: jax.Array,
  level: PrefixLevel,
  lse_btn: jax.Array,
  dout_btnh: jax.Array,
  delta_btn: jax.Array,
  options: xla.Options,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Cotangents of q, the prefixes' keys and their values, in float32."""
  dtype = stats_dtype(q_btnh.dtype)
  t = q_btnh.shape[1]
  zeros = lambda x: jnp.zeros(x.shape, dtype)
  start = (zeros(q_btnh), *(zeros(x) for x in _kv(level)))

  def tile(i, tiles: GroupTiles, grads):
    dq, dk, dv = grads
    rows, group = tiles.rows[i], tiles.group[i]
    q, lse, dout, delta = (
      _take(x, rows) for x in (q_btnh, lse_btn, dout_btnh, delta_btn)
    )
    k, v = (_prefix(x, group) for x in _kv(level))
    mask = _mask(level, tiles, i, t)
    part = xla.backward(q, k, v, mask, None, lse, dout, delta, options)
    return (
      _put(dq, part[0].astype(dtype), rows),
      dk.at[group].add(part[1][0].astype(dtype)),
      dv.at[group].add(part[2][0].astype(dtype)),
    )

  return _over_tiles(q_btnh, level, tile, start)


def _kv(level: PrefixLevel) -> tuple[jax.Array, jax.Array]:
  return level.k_mpkh, level.v_mpkh


def _prefix(x_mpkh: jax.Array, group: jax.Array) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(x_mpkh, group, 0)


def _take(x: jax.Array, rows: jax.Array) -> jax.Array:
  """Queries of a tile's sequences as rows of one sequence, `[1, rows * t]`."""
  picked = x.at[rows].get(mode='clip')
  return picked.reshape(1, -1, *x.shape[2:])


def _put(x: jax.Array, part: jax.Array, rows: jax.Array) -> jax.Array:
  """Writes a tile's rows back; rows without a sequence are dropped."""
  part = part.reshape(rows.shape[0], *x.shape[1:])
  return x.at[rows].set(part.astype(x.dtype), mode='drop')


def level_forward_tiled(
  q_btnh: jax.Array, level: PrefixLevel, static: Static
) -> AttentionState:
  """`level_forward` in one call of a Pallas kernel.

  The tiles are the batch of the kernel; each reads the keys of its group. The
  query heads of a key head are rows too.
  """
  b, t, n, h = q_btnh.shape
  m, p, k, _ = level.k_mpkh.shape
  block = cost.sequences_per_tile(b, t * n // k)
  tiles = group_tiles(level.group_b, m, block)
  q = q_btnh.at[tiles.rows].get(mode='clip')
  q = packing.pack(q.reshape(-1, block * t, n, h), k)
  length = level.length_m.astype(jnp.int32)
  end = jnp.where(tiles.rows < b, length[tiles.group][:, None], 0)
  end = jnp.repeat(end, t * n // k, axis=1)[..., None]
  mask = masks.from_intervals(jnp.stack([jnp.zeros_like(end), end], -1))
  valid = (jnp.arange(p) < length[:, None])[..., None, None]
  clean = lambda x: jnp.where(valid, x, 0)
  part = implementations.forward(
    static,
    q,
    clean(level.k_mpkh),
    clean(level.v_mpkh),
    mask,
    kv_batch=tiles.group,
  )
  part = packing.unpack(part, block * t)
  state = empty((b, t, n, part.out.shape[-1]), part.out.dtype)
  put = lambda x, y: x.at[tiles.rows.ravel()].set(
    y.reshape(-1, *x.shape[1:]), mode='drop'
  )
  return jax.tree.map(put, state, part)


def _mask(level, tiles: GroupTiles, i, t: int) -> masks.MaskSpec:
  """The whole prefix for rows that hold a sequence, nothing for the others."""
  b = level.group_b.shape[0]
  length = level.length_m[tiles.group[i]].astype(jnp.int32)
  end = jnp.where(tiles.rows[i] < b, length, 0)
  end = jnp.repeat(end, t)[None, :, None]
  return masks.from_intervals(jnp.stack([jnp.zeros_like(end), end], -1))


def _over_tiles(q_btnh, level, body: Callable, start: Any) -> Any:
  b, t = q_btnh.shape[:2]
  groups = level.length_m.shape[0]
  tiles = group_tiles(level.group_b, groups, cost.sequences_per_tile(b, t))
  if tiles.rows.shape[0] == 1:
    return body(0, tiles, start)
  return jax.lax.fori_loop(
    0, tiles.count, lambda i, carry: body(i, tiles, carry), start
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared-prefix attention: one level at a time.

The queries of all sequences of a group become rows of one matmul against the
group's prefix, so that each prefix is read once per tile of sequences instead
of once per sequence.
"""

import importlib
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
from jaxtok_kernels.selected_decode import units
from jaxtok_kernels.state import AttentionState, empty, merge, stats_dtype


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
  query heads of a key head are rows too. On a GPU a long prefix is cut into
  parts that are read side by side, so that all of its processors have work.
  """
  b, t, n, h = q_btnh.shape
  m, p, k, _ = level.k_mpkh.shape
  rows = t * n // k
  tiles = group_tiles(level.group_b, m, cost.sequences_per_tile(b, rows))
  num_tiles, block = tiles.rows.shape
  splits = 1
  if static.name != 'tpu':
    full_tiles = -(-b // block)
    splits = cost.prefix_splits(p, full_tiles * k * -(-block * rows // 128))
  q = q_btnh.at[tiles.rows].get(mode='clip')
  q = packing.pack(q.reshape(-1, block * t, n, h), k)
  length = level.length_m.astype(jnp.int32)
  end = jnp.where(tiles.rows < b, length[tiles.group][:, None], 0)
  part = jnp.arange(splits, dtype=jnp.int32)[:, None, None]
  end = jnp.clip(end - part * (p // splits), 0, p // splits)
  end = jnp.repeat(end.reshape(splits * num_tiles, block), rows, axis=1)
  end = end[..., None]
  valid = (jnp.arange(p) < length[:, None])[..., None, None]
  cut = lambda x: x.reshape(m * splits, p // splits, *x.shape[2:])
  state = implementations.forward(
    static,
    jnp.tile(q, (splits, 1, 1, 1)),
    cut(level.k_mpkh),
    cut(jnp.where(valid, level.v_mpkh, 0)),
    masks.from_intervals(jnp.stack([jnp.zeros_like(end), end], -1)),
    kv_batch=(tiles.group * splits + part[..., 0]).ravel(),
  )
  split = lambda x: x.reshape(splits, num_tiles, *x.shape[1:])
  state = jax.tree.map(split, state)
  state = merge(
    [jax.tree.map(lambda x, i=i: x[i], state) for i in range(splits)]
  )
  state = packing.unpack(state, block * t)
  out = empty((b, t, n, state.out.shape[-1]), state.out.dtype)
  put = lambda x, y: x.at[tiles.rows.ravel()].set(
    y.reshape(-1, *x.shape[1:]), mode='drop'
  )
  return jax.tree.map(put, out, state)


def suffix_forward(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  length_b: jax.Array,
  static: Static,
) -> AttentionState:
  """State of all sequences over their own keys.

  On a GPU few queries are the work of the decoding kernel, which wastes fewer
  rows of a tile than flash attention and clears hidden values as it reads them.
  """
  mask = masks.lengths(length_b, q_btnh.shape[1])
  b, s, k, _ = k_bskh.shape
  t, group = q_btnh.shape[1], q_btnh.shape[2] // k
  can_decode = s > 0 and _can_decode(q_btnh, k_bskh, v_bskh)
  if static.name == 'tpu' or not can_decode:
    state = implementations.forward(
      static,
      packing.pack(q_btnh, k),
      k_bskh,
      v_bskh,
      packing.pack_mask(mask, group),
    )
    return packing.unpack(state, t)
  slots = jnp.arange(b * s, dtype=jnp.int32).reshape(b, 1, s)
  row = jnp.arange(t, dtype=jnp.int32)
  length = length_b.astype(jnp.int32)[:, None]
  tokens = units.Units(
    ids=slots,
    count=length,
    first=jnp.broadcast_to(slots[:1], slots.shape),
    limit=length - (t - 1) + row,
  )
  flat = lambda x: x.reshape(b * s, 1, *x.shape[2:])
  pool = units.Pool(flat(k_bskh), flat(v_bskh))
  return _gpu_triton().forward(
    q_btnh, pool, tokens, static.options, interpret=static.interpret
  )


def _can_decode(q_btnh, k_bskh, v_bskh) -> bool:
  rows = q_btnh.shape[1] * q_btnh.shape[2] // k_bskh.shape[2]
  widths = {k_bskh.shape[3], v_bskh.shape[3]}
  return (
    rows <= 64
    and q_btnh.dtype in (jnp.float32, jnp.bfloat16)
    and k_bskh.dtype == v_bskh.dtype == q_btnh.dtype
    and all(x >= 16 and x & (x - 1) == 0 for x in widths)
  )


def _gpu_triton():
  """Pallas is slow to import, so only what is used is."""
  return importlib.import_module('jaxtok_kernels.selected_decode.gpu_triton')


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

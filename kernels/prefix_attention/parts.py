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
from jaxtok_kernels.selected_decode import xla as decode_xla
from jaxtok_kernels.selected_decode.pages import PagedKV
from jaxtok_kernels.selected_decode.units import Pool, Units, is_empty
from jaxtok_kernels.state import AttentionState, empty, merge, stats_dtype

# Keys and values `[b, s, k, h]`, or pages.
Suffix = tuple[jax.Array, jax.Array] | PagedKV


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
  suffix: Suffix,
  length_b: jax.Array,
  static: Static,
  state_in: AttentionState | None = None,
) -> AttentionState:
  """State of all sequences over their own keys, added to `state_in`.

  Pages are the work of the decoding kernels. So are, on a GPU, the keys of few
  queries: decoding wastes fewer rows of a tile than flash attention and clears
  hidden values as it reads them.
  """
  t = q_btnh.shape[1]
  if isinstance(suffix, PagedKV):
    units = suffix.units(length_b, t)
    return _decode(q_btnh, suffix.pool, units, static, state_in)
  mask = masks.lengths(length_b, t)
  k = suffix[0].shape[2]
  if static.name == 'xla':
    return xla.forward(q_btnh, *suffix, mask, None, static.options, state_in)
  if static.name != 'tpu' and _can_decode(q_btnh, *suffix):
    return _decode(q_btnh, *_tokens(*suffix, length_b, t), static, state_in)
  state = implementations.forward(
    static,
    packing.pack(q_btnh, k),
    *suffix,
    packing.pack_mask(mask, q_btnh.shape[2] // k),
    state_in=packing.pack_state(state_in, k),
  )
  return packing.unpack(state, t)


def suffix_backward(
  q_btnh: jax.Array,
  suffix: Suffix,
  length_b: jax.Array,
  lse_btn: jax.Array,
  dout_btnh: jax.Array,
  delta_btn: jax.Array,
  options: xla.Options,
) -> tuple[jax.Array, Suffix]:
  """Cotangents of q and the suffix."""
  rows = lse_btn, dout_btnh, delta_btn
  t = q_btnh.shape[1]
  if isinstance(suffix, PagedKV):
    units = suffix.units(length_b, t)
    dq, dpool = decode_xla.backward(q_btnh, suffix.pool, units, *rows, options)
    return dq, PagedKV(dpool.k, no_gradient(suffix.page_table_bu))
  mask = masks.lengths(length_b, t)
  dq, dk, dv, _ = xla.backward(q_btnh, *suffix, mask, None, *rows, options)
  return dq, (dk, dv)


def no_gradient(x: jax.Array):
  """Cotangent of integers."""
  return jnp.zeros(x.shape, jax.dtypes.float0)


def suffix_shapes(suffix: Suffix) -> tuple[Any, Any]:
  """Keys and values `[b, s, k, h]`, or what has their shapes and types."""
  if not isinstance(suffix, PagedKV):
    return suffix
  _, page, heads, h = suffix.pages_pzch.shape
  b, u = suffix.page_table_bu.shape
  shape = (b, u * page, heads // 2, h)
  return (jax.ShapeDtypeStruct(shape, suffix.pages_pzch.dtype),) * 2


def unsupported(
  name: str,
  q_btnh: jax.Array,
  suffix: Suffix,
  length_b: jax.Array,
  fuse: bool,
) -> str | None:
  """Why an implementation cannot serve a call, or None."""
  shapes, is_paged = suffix_shapes(suffix), isinstance(suffix, PagedKV)
  if fuse and name == 'reference':
    return 'fuse=True: every part is dense there and no kernel takes a state'
  reason = implementations.unsupported(name, q_btnh, *shapes, masks.full())
  if reason or name in ('reference', 'xla'):
    return reason
  if not is_paged:
    on_hopper = fuse and name == 'mosaic_gpu'
    if on_hopper and shapes[0].shape[1] and not _can_decode(q_btnh, *shapes):
      return (
        'fuse=True: the kernel takes no incoming state, and more than 64 rows '
        f'per key head (q_btnh {q_btnh.shape}) or float16 are not decoded'
      )
    return None
  units = suffix.units(length_b, q_btnh.shape[1])
  reason = _decoder(name).unsupported(q_btnh, suffix.pool, units)
  return reason and f'suffix_k_bskh has pages: {reason}'


def _decode(
  q_btnh, pool, units, static: Static, state_in: AttentionState | None
) -> AttentionState:
  operands = q_btnh, pool, units, static.options
  if static.name == 'xla' or is_empty(q_btnh, pool, units):
    return decode_xla.forward(*operands, state_in=state_in)
  return _decoder(static.name).forward(
    *operands, state_in=state_in, interpret=static.interpret
  )


def _decoder(name: str) -> Any:
  """The decoding kernel of the device; Mosaic GPU has none, Triton serves.

  Pallas is slow to import, so only what is used is.
  """
  module = 'tpu' if name == 'tpu' else 'gpu_triton'
  return importlib.import_module(f'jaxtok_kernels.selected_decode.{module}')


def _tokens(k_bskh, v_bskh, length_b, t: int) -> tuple[Pool, Units]:
  """Contiguous keys as single tokens of a pool."""
  b, s = k_bskh.shape[:2]
  slots = jnp.arange(b * s, dtype=jnp.int32).reshape(b, 1, s)
  row = jnp.arange(t, dtype=jnp.int32)
  length = length_b.astype(jnp.int32)[:, None]
  units = Units(
    ids=slots,
    count=length,
    first=jnp.broadcast_to(slots[:1], slots.shape),
    limit=length - (t - 1) + row,
  )
  flat = lambda x: x.reshape(b * s, 1, *x.shape[2:])
  return Pool(flat(k_bskh), flat(v_bskh)), units


def _can_decode(q_btnh, k_bskh, v_bskh) -> bool:
  rows = q_btnh.shape[1] * q_btnh.shape[2] // k_bskh.shape[2]
  widths = {k_bskh.shape[3], v_bskh.shape[3]}
  return (
    k_bskh.shape[1] > 0
    and rows <= 64
    and q_btnh.dtype in (jnp.float32, jnp.bfloat16)
    and k_bskh.dtype == v_bskh.dtype == q_btnh.dtype
    and all(x >= 16 and x & (x - 1) == 0 for x in widths)
  )


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

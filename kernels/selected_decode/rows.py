# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Arrays that the Pallas kernels take: packed queries, positions, limits."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import packing
from jaxtok_kernels.selected_decode.units import Pool, Tail, Units
from jaxtok_kernels.state import AttentionState


def queries(q_btnh: jax.Array, k: int, multiple: int) -> jax.Array:
  """`[b, k, rows, h]`: all queries of a key head, padded to a multiple."""
  rows = packing.pack(q_btnh, k).swapaxes(1, 2)
  return jnp.pad(rows, ((0, 0), (0, 0), (0, -rows.shape[2] % multiple), (0, 0)))


def limits(units: Units, group: int, padded: int) -> jax.Array:
  """int32 `[b, rows]`: each row sees positions below its limit."""
  rows = jnp.repeat(units.limit, group, axis=1)
  return jnp.pad(rows, ((0, 0), (0, padded - rows.shape[1])))


def positions(units: Units, unit: int, padded: int) -> jax.Array:
  """int32 `[b, k|1, padded * unit]`; past the count beyond every limit."""
  u = jnp.arange(units.ids.shape[-1], dtype=jnp.int32)
  live = (u < units.count[..., None]) & (units.first != masks.MAX_POS)
  pos = units.first[..., None] + jnp.arange(unit, dtype=jnp.int32)
  pos = jnp.where(live[..., None], pos, masks.MAX_POS)
  pos = pos.reshape(*pos.shape[:2], -1)
  more = padded * unit - pos.shape[-1]
  return jnp.pad(
    pos, ((0, 0), (0, 0), (0, more)), constant_values=masks.MAX_POS
  )


def state_operands(
  state_in: AttentionState, k: int, multiple: int
) -> tuple[jax.Array, jax.Array]:
  """Float32 `[b, k, rows, h]` and `[b, k, rows]`, rows as in `queries`."""
  lse_btn1 = state_in.lse[..., None].astype(jnp.float32)
  out_btnh = state_in.out.astype(jnp.float32)
  return queries(out_btnh, k, multiple), queries(lse_btn1, k, multiple)[..., 0]


def state(
  out_bkrh: jax.Array, lse_bkr: jax.Array, t: int, group: int
) -> AttentionState:
  """The kernel's results as a state of `[b, t, n]` rows."""
  rows = t * group
  packed = AttentionState(
    out_bkrh[:, :, :rows].swapaxes(1, 2), lse_bkr[:, :, :rows].swapaxes(1, 2)
  )
  return packing.unpack(packed, t)


def union(units: Units) -> Units:
  """One list that covers the lists of all key heads.

  A kernel that reads whole tokens serves lists that differ between heads by
  reading what any head selected and hiding it from the others. Costs a sort of
  all entries.

  Args:
    units: Lists `[b, k, u]`, without rotation.

  Returns:
    Units with lists `[b, 1, k u]` and positions `first [b, k, k u]`, `MAX_POS`
    where a head did not select them.
  """
  b, k, u = units.ids.shape
  entry = jnp.arange(u, dtype=jnp.int32)
  live = entry < units.count[..., None]
  ids = jnp.where(live, units.ids, masks.MAX_POS)
  order = jnp.argsort(ids, axis=-1, stable=True)
  ids = jnp.take_along_axis(ids, order, -1)
  first = jnp.take_along_axis(jnp.where(live, units.first, 0), order, -1)
  # A head that lists a unit twice sees it twice: entries are told apart by
  # how often the unit came before in the same list.
  run = jnp.concatenate(
    [jnp.ones((b, k, 1), bool), ids[..., 1:] != ids[..., :-1]], -1
  )
  start = jax.lax.cummax(jnp.where(run, entry, 0), axis=2)
  repeat = entry - start
  flat = lambda x: x.reshape(b, k * u)
  head = jnp.broadcast_to(jnp.arange(k)[:, None], (b, k, u))
  keys = (flat(ids), flat(repeat), flat(head), flat(first))
  ids, repeat, head, first = jax.lax.sort(keys, num_keys=2)
  same = (ids[:, 1:] == ids[:, :-1]) & (repeat[:, 1:] == repeat[:, :-1])
  new = jnp.concatenate([jnp.ones((b, 1), bool), ~same], -1)
  slot = jnp.cumsum(new, -1, dtype=jnp.int32) - 1
  valid = ids != masks.MAX_POS
  row = jnp.arange(b)[:, None]
  slot = jnp.where(valid, slot, k * u)
  joint = jnp.zeros((b, k * u), jnp.int32).at[row, slot].set(ids, mode='drop')
  pos = jnp.full((b, k, k * u), masks.MAX_POS, jnp.int32)
  pos = pos.at[row, head, slot].set(first, mode='drop')
  count = (new & valid).sum(-1, dtype=jnp.int32)
  return dataclasses.replace(
    units, ids=joint[:, None], count=count[:, None], first=pos
  )


def unsupported(q: jax.Array, pool: Pool, units: Units) -> str | None:
  """Reasons that hold for all Pallas kernels."""
  if q.dtype not in (jnp.float32, jnp.bfloat16):
    return f'q_btnh of type {q.dtype} is not supported'
  if pool.k.dtype != q.dtype:
    return (
      f'a cache of type {pool.k.dtype} with queries of type {q.dtype} is not '
      'supported'
    )
  return None


def tail_operands(
  tail: Tail, group: int, padded: int, multiple: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Keys and values `[b, k, z, h]`, int32 bits `[b, rows, ceil(z / 32)]`.

  Padded to `padded` rows and a multiple of so many keys, which nobody sees.
  """
  more = -tail.k.shape[1] % multiple
  by_head = lambda x: jnp.pad(
    x.swapaxes(1, 2), ((0, 0), (0, 0), (0, more), (0, 0))
  )
  keys, values = by_head(tail.k), by_head(tail.v)
  bits = jax.lax.bitcast_convert_type(tail.bits, jnp.int32)
  bits = jnp.repeat(bits, group, axis=1)
  words = -(-keys.shape[2] // 32) - bits.shape[2]
  bits = jnp.pad(bits, ((0, 0), (0, padded - bits.shape[1]), (0, words)))
  return keys, values, bits

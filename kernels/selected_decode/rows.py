# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Arrays that the Pallas kernels take: packed queries, positions, limits."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import packing
from jaxtok_kernels.selected_decode.units import Pool, Units
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
  live = (u < units.count[..., None])[..., None]
  pos = units.first[..., None] + jnp.arange(unit, dtype=jnp.int32)
  pos = jnp.where(live, pos, masks.MAX_POS)
  pos = pos.reshape(*pos.shape[:2], -1)
  more = padded * unit - pos.shape[-1]
  return jnp.pad(
    pos, ((0, 0), (0, 0), (0, more)), constant_values=masks.MAX_POS
  )


def state(
  out_bkrh: jax.Array, lse_bkr: jax.Array, t: int, group: int
) -> AttentionState:
  """The kernel's results as a state of `[b, t, n]` rows."""
  rows = t * group
  packed = AttentionState(
    out_bkrh[:, :, :rows].swapaxes(1, 2), lse_bkr[:, :, :rows].swapaxes(1, 2)
  )
  return packing.unpack(packed, t)


def unsupported(q: jax.Array, pool: Pool, units: Units) -> str | None:
  """Reasons that hold for all Pallas kernels."""
  if q.dtype not in (jnp.float32, jnp.bfloat16):
    return f'q_btnh of type {q.dtype} is not supported'
  if pool.k.dtype != q.dtype:
    return (
      f'a cache of type {pool.k.dtype} with queries of type {q.dtype} is not '
      'supported'
    )
  if units.cos is not None:
    return 'rope is not supported'
  return None

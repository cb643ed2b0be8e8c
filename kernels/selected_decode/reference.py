# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention over gathered units with all scores in memory."""

import jax
import jax.numpy as jnp
from jaxtok_kernels.selected_decode.units import (
  Pool,
  Units,
  fetch,
  is_empty,
  rotate,
)
from jaxtok_kernels.state import AttentionState, empty, stats_dtype


def decode(
  q_btnh: jax.Array,
  pool: Pool,
  units: Units,
  *,
  scale: float,
  softcap: float | None,
) -> AttentionState:
  """Gathers all units, then dense softmax."""
  b, t, n, h = q_btnh.shape
  k = pool.num_kv_heads
  dtype = stats_dtype(q_btnh.dtype)
  if is_empty(q_btnh, pool, units):
    return empty((b, t, n, pool.value_dim), dtype)
  k_bksh, v_bksh = (x.astype(dtype) for x in fetch(pool, units.ids))
  if units.cos is not None:
    k_bksh = rotate(k_bksh, units.cos, units.sin)
  u = jnp.arange(units.ids.shape[-1])
  live = (u < units.count[..., None])[..., None]
  pos = units.first[..., None] + jnp.arange(pool.unit)
  live = jnp.broadcast_to(live, pos.shape).reshape(*pos.shape[:2], -1)
  pos = pos.reshape(*pos.shape[:2], -1)
  # [b, k|1, t, s]
  seen = live[:, :, None] & (pos[:, :, None] < units.limit[:, None, :, None])
  used = seen.any(2)[..., None]
  k_bksh, v_bksh = jnp.where(used, k_bksh, 0), jnp.where(used, v_bksh, 0)
  q_btkgh = q_btnh.reshape(b, t, k, n // k, h).astype(dtype)
  scores = scale * jnp.einsum(
    'btkgh,bksh->bkgts', q_btkgh, k_bksh, precision='highest'
  )
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  scores = jnp.where(seen[:, :, None], scores, -jnp.inf)
  top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  top = jnp.where(jnp.isneginf(top), 0, top)
  p = jnp.exp(scores - top)
  total = p.sum(-1, keepdims=True)
  has = total > 0
  total = jnp.where(has, total, 1)
  out = jnp.einsum('bkgts,bksh->btkgh', p / total, v_bksh, precision='highest')
  lse = jnp.where(has, top + jnp.log(total), -jnp.inf)[..., 0]
  return AttentionState(
    out.reshape(b, t, n, -1), jnp.moveaxis(lse, 3, 1).reshape(b, t, n)
  )

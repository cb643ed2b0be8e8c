# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding over selected units in plain JAX, a few hundred tokens at a time.

Only selected units are read and only as many steps run as the longest list
needs, so time and bytes follow the selection, not the cache.
"""

import jax
import jax.numpy as jnp
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode import cost
from jaxtok_kernels.selected_decode.units import (
  Pool,
  Units,
  add,
  fetch,
  is_empty,
  rotate,
)
from jaxtok_kernels.state import AttentionState, empty, stats_dtype


def forward(
  q_btnh: jax.Array,
  pool: Pool,
  units: Units,
  options: Options,
  *,
  state_in: AttentionState | None = None,
) -> AttentionState:
  """State of the queries over the selected units, added to `state_in`."""
  b, t, n = q_btnh.shape[:3]
  k = pool.num_kv_heads
  dtype = stats_dtype(q_btnh.dtype)
  if state_in is None:
    state_in = empty((b, t, n, pool.value_dim), dtype)
  if is_empty(q_btnh, pool, units):
    return state_in
  q_bkgth = _to_bkgth(q_btnh, k)
  step, units = _chunked(pool, units)

  def body(i, carry):
    top, total, acc = carry
    _, _, v, scores, _ = _scores(q_bkgth, pool, units, i, step, options)
    new = jnp.maximum(top, scores.max(-1))
    base = jnp.where(jnp.isneginf(new), 0, new)
    keep = jnp.exp(top - base)
    p = jnp.exp(scores - base[..., None])
    acc = keep[..., None] * acc + jnp.einsum(
      'bkgts,bksh->bkgth', p.astype(v.dtype), v, preferred_element_type=dtype
    )
    return new, keep * total + p.sum(-1), acc

  # The state counts as one key whose score is its log-sum-exp.
  top = _to_bkgth(state_in.lse[..., None], k)[..., 0]
  seen = jnp.where(jnp.isneginf(top), 0, 1).astype(dtype)
  start = top.astype(dtype), seen, _to_bkgth(state_in.out, k).astype(dtype)
  top, total, acc = _over_chunks(units, step, body, start)
  has = total > 0
  total = jnp.where(has, total, 1)
  out = acc / total[..., None]
  lse = jnp.where(has, top + jnp.log(total), -jnp.inf)
  return AttentionState(
    out.transpose(0, 3, 1, 2, 4).reshape(b, t, n, -1),
    lse.transpose(0, 3, 1, 2).reshape(b, t, n),
  )


def backward(
  q_btnh: jax.Array,
  pool: Pool,
  units: Units,
  lse_btn: jax.Array,
  dout_btnh: jax.Array,
  delta_btn: jax.Array,
  options: Options,
) -> tuple[jax.Array, Pool]:
  """Cotangents of the queries and of the pool (scatter-added)."""
  if is_empty(q_btnh, pool, units):
    return jax.tree.map(jnp.zeros_like, (q_btnh, pool))
  b, t, n, h = q_btnh.shape
  k = pool.num_kv_heads
  dtype = stats_dtype(q_btnh.dtype)
  q = _to_bkgth(q_btnh, k)
  dout = _to_bkgth(dout_btnh, k)
  lse, delta = (
    _to_bkgth(x[..., None], k)[..., 0] for x in (lse_btn, delta_btn)
  )
  lse = jnp.where(jnp.isneginf(lse), jnp.inf, lse)
  step, units = _chunked(pool, units)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), pool)

  def body(i, carry):
    dq, dpool = carry
    ids, keys, v, scores, slope = _scores(q, pool, units, i, step, options)
    p = jnp.exp(scores - lse[..., None])
    dp = jnp.einsum('bkgth,bksh->bkgts', dout, v, preferred_element_type=dtype)
    ds = options.scale * p * (dp - delta[..., None])
    if slope is not None:
      ds = ds * slope
    dk = jnp.einsum('bkgts,bkgth->bksh', ds, q.astype(dtype))
    dv = jnp.einsum('bkgts,bkgth->bksh', p, dout.astype(dtype))
    if units.cos is not None:
      dk = rotate(dk, *_table(units, i, step, pool.unit, inverse=True))
    dq = dq + jnp.einsum('bkgts,bksh->bkgth', ds, keys.astype(dtype))
    return dq, add(dpool, ids, dk, dv)

  dq, dpool = _over_chunks(
    units, step, body, (jnp.zeros(q.shape, dtype), zeros)
  )
  dq = dq.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h).astype(q_btnh.dtype)
  return dq, jax.tree.map(lambda x, y: x.astype(y.dtype), dpool, pool)


def _to_bkgth(x_btnh: jax.Array, k: int) -> jax.Array:
  b, t, n, h = x_btnh.shape
  return x_btnh.reshape(b, t, k, n // k, h).transpose(0, 2, 3, 1, 4)


def _chunked(pool: Pool, units: Units) -> tuple[int, Units]:
  """Units per step, and the lists padded to a multiple of it."""
  size = units.ids.shape[-1]
  step = cost.units_per_step(size, pool.unit)
  more = -size % step
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more)))
  table = lambda x: (
    None if x is None else jnp.pad(x, ((0, more * pool.unit), (0, 0)))
  )
  return step, Units(
    jnp.maximum(pad(units.ids), 0),
    jnp.minimum(units.count, size),
    pad(units.first),
    units.limit,
    table(units.cos),
    table(units.sin),
  )


def _over_chunks(units: Units, step: int, body, start):
  if units.ids.shape[-1] == step:
    return body(0, start)
  return jax.lax.fori_loop(0, -(-units.count.max() // step), body, start)


def _scores(q_bkgth, pool: Pool, units: Units, i, step: int, options: Options):
  """Ids, keys, values, masked scores and slope of the cap of step `i`."""
  cut = lambda x: jax.lax.dynamic_slice_in_dim(x, i * step, step, 2)
  ids = cut(units.ids)
  k_bksh, v_bksh = fetch(pool, ids)
  u = i * step + jnp.arange(step, dtype=jnp.int32)
  live = u < units.count[..., None]
  pos = cut(units.first)[..., None] + jnp.arange(pool.unit, dtype=jnp.int32)
  live = jnp.broadcast_to(live[..., None], pos.shape)
  live, pos = (x.reshape(*x.shape[:2], 1, 1, -1) for x in (live, pos))
  seen = live & (pos < units.limit[:, None, None, :, None])
  # Slots that nobody sees may hold NaN, which 0 * NaN would leak.
  used = seen.any((2, 3))[..., None]
  k_bksh, v_bksh = jnp.where(used, k_bksh, 0), jnp.where(used, v_bksh, 0)
  if units.cos is not None:
    k_bksh = rotate(k_bksh, *_table(units, i, step, pool.unit))
  scores = options.scale * jnp.einsum(
    'bkgth,bksh->bkgts',
    q_bkgth,
    k_bksh,
    preferred_element_type=stats_dtype(q_bkgth.dtype),
  )
  slope = None
  if options.softcap is not None:
    unit = jnp.tanh(scores / options.softcap)
    scores, slope = options.softcap * unit, 1 - unit**2
  return ids, k_bksh, v_bksh, jnp.where(seen, scores, -jnp.inf), slope


def _table(units: Units, i, step: int, unit: int, inverse: bool = False):
  size = step * unit
  cos, sin = (
    jax.lax.dynamic_slice_in_dim(x, i * size, size, 0)
    for x in (units.cos, units.sin)
  )
  return cos, -sin if inverse else sin

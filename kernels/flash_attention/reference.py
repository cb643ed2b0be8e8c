# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention with the whole score matrix in memory: the meaning of the op.

The oracle of all other implementations. Differentiable to any order, in
forward and reverse mode.
"""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.state import AttentionState, empty, merge, stats_dtype


def flash_attention(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  *,
  mask: masks.MaskSpec,
  scale: float,
  softcap: float | None = None,
  sink_n: jax.Array | None = None,
  bias_bnts: jax.Array | None = None,
  state_in: AttentionState | None = None,
) -> AttentionState:
  """Dense softmax attention, see `jaxtok_kernels.flash_attention`."""
  b, t, n, h = q_btnh.shape
  s, k = k_bskh.shape[1:3]
  dtype = stats_dtype(q_btnh.dtype)
  if 0 in (b, t, n, s):
    rows = empty((b, t, n, v_bskh.shape[3]), dtype)
    return _with_extras(rows, sink_n, state_in)
  q_btkgh = q_btnh.reshape(b, t, k, n // k, h).astype(dtype)
  seen_bkgts = mask.dense_by_head(t, s)[:, :, None]
  # Keys that nobody sees may hold anything, also NaN, which 0 * NaN would leak.
  used_bks = seen_bkgts.any((2, 3))
  hide = lambda x: jnp.where(used_bks.swapaxes(1, 2)[..., None], x, 0).astype(
    dtype
  )
  k_bskh, v_bskh = hide(k_bskh), hide(v_bskh)
  precision = jax.lax.Precision.HIGHEST
  scores = scale * jnp.einsum(
    'btkgh,bskh->bkgts', q_btkgh, k_bskh, precision=precision
  )
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  if bias_bnts is not None:
    c, m = bias_bnts.shape[:2]
    shape = (c, 1, 1, t, s) if m == 1 else (c, k, n // k, t, s)
    scores = scores + bias_bnts.reshape(shape).astype(dtype)
  scores = jnp.where(seen_bkgts, scores, -jnp.inf)
  max_bkgt = jax.lax.stop_gradient(scores.max(-1))
  max_bkgt = jnp.where(jnp.isneginf(max_bkgt), 0, max_bkgt)
  p_bkgts = jnp.where(seen_bkgts, jnp.exp(scores - max_bkgt[..., None]), 0)
  sum_bkgt = p_bkgts.sum(-1)
  has_bkgt = sum_bkgt > 0
  sum_bkgt = jnp.where(has_bkgt, sum_bkgt, 1)
  out_btkgh = jnp.einsum(
    'bkgts,bskh->btkgh',
    p_bkgts / sum_bkgt[..., None],
    v_bskh,
    precision=precision,
  )
  lse_bkgt = jnp.where(has_bkgt, max_bkgt + jnp.log(sum_bkgt), -jnp.inf)
  state = AttentionState(
    out_btkgh.reshape(b, t, n, -1),
    jnp.moveaxis(lse_bkgt, 3, 1).reshape(b, t, n),
  )
  return _with_extras(state, sink_n, state_in)


def _with_extras(state, sink_n, state_in) -> AttentionState:
  parts = [state]
  if state_in is not None:
    parts.append(
      AttentionState(state_in.out.astype(state.out.dtype), state_in.lse)
    )
  if sink_n is not None:
    # A sink is a key with logit z and value zero.
    lse_btn = jnp.broadcast_to(sink_n.astype(state.lse.dtype), state.lse.shape)
    parts.append(AttentionState(jnp.zeros_like(state.out), lse_btn))
  return merge(parts)

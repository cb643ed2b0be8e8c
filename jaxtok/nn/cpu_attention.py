# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention for a CPU: row by row of the batch, in blocks of queries.

What costs time on a CPU is memory that does not fit the cache: every large
temporary array is fresh memory from the operating system. Here the scores of
one row and one block of queries live at a time; the loop over rows is
`jax.lax.map`, so the memory is reused. Keys that no query of a block can see
are left out statically (`Mask.span`: half of the work of a causal mask). The
backward pass recomputes the weights from the log-sum-exp, as in Dao et al.
2022, arXiv:2205.14135; matmuls are written so that the left operand is not
transposed, which is twice as fast in XLA for CPU.

Axes: b rows, t queries, s keys, n = k g query heads in k groups, h width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtok_kernels import AttentionState
from jaxtyping import Array, Float

from jaxtok.nn import masks

_BLOCK = 64  # Queries; at most 8 blocks, which are unrolled.


class _Options(NamedTuple):
  """Statics of a call: scale, soft cap, and (queries, keys) of each block."""

  scale: float
  soft_cap: float
  blocks: tuple[tuple[slice, slice], ...]


def blocks(
  mask: masks.Mask, layout: masks.Layout
) -> tuple[tuple[slice, slice], ...]:
  """Blocks of queries and the keys that they can see; static."""
  t = layout.num_queries
  size = max(_BLOCK, -(-t // 8))
  parts = []
  for start in range(0, t, size):
    stop = min(start + size, t)
    low, high = mask.span(layout, start, stop)
    parts.append((slice(start, stop), slice(low, max(high, low + 1))))
  return tuple(parts)


def attention(
  q_btnh: Float[Array, 'b t n h'],
  k_bskh: Float[Array, 'b s k h'],
  v_bskh: Float[Array, 'b s k hv'],
  *,
  mask: masks.Mask,
  layout: masks.Layout,
  bias: Float[Array, '#b #n t s'] | None,
  scale: float,
  soft_cap: float,
  sink_n: Float[Array, 'n'] | None,
) -> AttentionState:
  """See `nn.attention.attention`."""
  options = _Options(scale, soft_cap, blocks(mask, layout))
  visible_bts = masks.visible(mask, layout)
  return _attend(options, q_btnh, k_bskh, v_bskh, visible_bts, bias, sink_n)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options, q_btnh, k_bskh, v_bskh, visible_bts, bias_bnts, sink_n):
  per_row, shared = _split(q_btnh.shape[0], visible=visible_bts, bias=bias_bnts)

  def row(x):
    q_tnh, k_skh, v_skh, extra = x
    return _row_forward(
      options, q_tnh, k_skh, v_skh, **(shared | extra), sink_n=sink_n
    )

  return AttentionState(*jax.lax.map(row, (q_btnh, k_bskh, v_bskh, per_row)))


def _attend_fwd(options, q_btnh, k_bskh, v_bskh, visible_bts, bias, sink_n):
  arrays = (q_btnh, k_bskh, v_bskh, visible_bts, bias, sink_n)
  state = _attend(options, *arrays)
  return state, (*arrays, state)


def _attend_bwd(options, residuals, cotangent):
  q_btnh, k_bskh, v_bskh, visible_bts, bias, sink_n, state = residuals
  delta_btn = (state.out * cotangent.out).sum(axis=-1) - cotangent.lse
  # A query without keys has weights exp(-inf - inf) = 0.
  lse_btn = jnp.where(jnp.isneginf(state.lse), jnp.inf, state.lse)
  per_row, shared = _split(q_btnh.shape[0], visible=visible_bts, bias=bias)

  arrays = (q_btnh, k_bskh, v_bskh, cotangent.out, lse_btn, delta_btn)

  has_bias = bias is not None

  def row(carry, x):
    i, arrays, extra = x
    *grads, drow_nts = _row_backward(options, *arrays, **(shared | extra))
    if has_bias:
      carry = carry.at[i if 'bias' in per_row else 0].add(drow_nts)
    return carry, tuple(grads)

  dbias, grads = jax.lax.scan(
    row,
    jnp.zeros_like(bias) if has_bias else (),
    (jnp.arange(len(q_btnh)), arrays, per_row),
  )
  dq_btnh, dk_bskh, dv_bskh = grads
  dbias = dbias if has_bias else None
  dsink_n = None
  if sink_n is not None:
    weight_btn = jnp.exp(sink_n.astype(jnp.float32) - lse_btn)
    dsink_n = -(weight_btn * delta_btn).sum(axis=(0, 1)).astype(sink_n.dtype)
  return dq_btnh, dk_bskh, dv_bskh, None, dbias, dsink_n


_attend.defvjp(_attend_fwd, _attend_bwd)


def _split(b: int, **arrays: Array | None) -> tuple[dict, dict]:
  """What differs between rows, and what they share (without the row axis)."""
  per_row = {k: x for k, x in arrays.items() if x is not None and len(x) == b}
  shared = {
    k: None if x is None else x[0]
    for k, x in arrays.items()
    if k not in per_row
  }
  return per_row, shared


def _row_forward(options, q_tnh, k_skh, v_skh, visible, bias, sink_n):
  """Output [t, n, h] and log-sum-exp [t, n] of one row, float32."""
  k = k_skh.shape[1]
  q_kgth = _heads_first(q_tnh, k) * options.scale
  k_ksh, v_ksh = (_heads_first(x, k)[:, 0] for x in (k_skh, v_skh))
  sink_kg11 = -jnp.inf
  if sink_n is not None:
    sink_kg11 = sink_n.astype(jnp.float32).reshape(k, -1, 1, 1)
  outs, lses = [], []
  for block in options.blocks:
    score_kgts, _ = _scores(options, block, q_kgth, k_ksh, visible, bias)
    top_kgt1 = jnp.maximum(score_kgts.max(axis=-1, keepdims=True), sink_kg11)
    top_kgt1 = jnp.where(jnp.isfinite(top_kgt1), top_kgt1, 0.0)
    weight_kgts = jnp.exp(score_kgts - top_kgt1)
    total_kgt1 = weight_kgts.sum(axis=-1, keepdims=True)
    if sink_n is not None:
      total_kgt1 += jnp.exp(sink_kg11 - top_kgt1)
    out_kgth = _product(weight_kgts, v_ksh[:, block[1]])
    outs.append(out_kgth / jnp.where(total_kgt1 == 0, 1.0, total_kgt1))
    lses.append(top_kgt1 + jnp.log(total_kgt1))
  lse_tn1 = _heads_last(jnp.concatenate(lses, axis=2))
  return _heads_last(jnp.concatenate(outs, axis=2)), lse_tn1[..., 0]


def _row_backward(
  options, q_tnh, k_skh, v_skh, dout_tnh, lse_tn, delta_tn, visible, bias
):
  """Gradients of one row for q, k, v and (if there is one) bias."""
  k, dtype = k_skh.shape[1], q_tnh.dtype
  q_kgth = _heads_first(q_tnh, k) * options.scale
  dout_kgth = _heads_first(dout_tnh, k)
  k_ksh, v_ksh = (_heads_first(x, k)[:, 0] for x in (k_skh, v_skh))
  lse_kgt1, delta_kgt1 = (
    _heads_first(x[..., None], k) for x in (lse_tn, delta_tn)
  )
  # The barrier keeps XLA from turning these transposes into transposed
  # operands of the matmuls.
  q_kght, dout_kght = jax.lax.optimization_barrier(
    (q_kgth.swapaxes(2, 3), dout_kgth.swapaxes(2, 3))
  )
  dqs, dks, dvs, dbiases = [], [], [], []
  for block in options.blocks:
    queries, keys = block
    score_kgts, capped = _scores(options, block, q_kgth, k_ksh, visible, bias)
    weight_kgts = jnp.exp(score_kgts - lse_kgt1[:, :, queries])
    dweight_kgts = _product(
      dout_kgth[:, :, queries], v_ksh[:, keys].swapaxes(1, 2)
    )
    dscore_kgts = weight_kgts * (dweight_kgts - delta_kgt1[:, :, queries])
    if bias is not None:
      dbiases.append(_like_bias(dscore_kgts, block, bias))
    if options.soft_cap:
      dscore_kgts *= 1 - jnp.square(capped / options.soft_cap)
    dqs.append(_product(dscore_kgts, k_ksh[:, keys]))
    late = lambda x_kght, y_kgts, keys=keys, queries=queries: _place(
      jnp.einsum('kght,kgts->khs', x_kght[..., queries], y_kgts),
      keys,
      k_ksh.shape[1],
    )
    dks.append(late(q_kght, dscore_kgts))
    dvs.append(late(dout_kght, weight_kgts))
  dq_tnh = _heads_last(jnp.concatenate(dqs, axis=2)) * options.scale
  dk_skh, dv_skh = (sum(x).transpose(2, 0, 1) for x in (dks, dvs))
  grads = (x.astype(dtype) for x in (dq_tnh, dk_skh, dv_skh))
  return (*grads, sum(dbiases) if dbiases else None)


def _scores(options, block, q_kgth, k_ksh, visible_ts, bias_nts):
  """Scores [k, g, t, s] of a block, -inf where hidden; and as capped."""
  queries, keys = block
  score_kgts = _product(q_kgth[:, :, queries], k_ksh[:, keys].swapaxes(1, 2))
  if options.soft_cap:
    score_kgts = options.soft_cap * jnp.tanh(score_kgts / options.soft_cap)
  total_kgts = score_kgts
  if bias_nts is not None:
    k, g = q_kgth.shape[:2] if len(bias_nts) > 1 else (1, 1)
    part_nts = bias_nts[:, queries, keys].astype(jnp.float32)
    total_kgts += part_nts.reshape(k, g, *part_nts.shape[1:])
  seen_ts = visible_ts[queries, keys]
  return jnp.where(seen_ts, total_kgts, -jnp.inf), score_kgts


def _product(x_kgtm: Array, y_kmh: Array) -> Array:
  """Matrix products [k, g, t, h] in float32; groups are stacked on t."""
  k, g, t, m = x_kgtm.shape
  rows_kxm = x_kgtm.reshape(k, g * t, m).astype(jnp.float32)
  out_kxh = jnp.einsum('kxm,kmh->kxh', rows_kxm, y_kmh.astype(jnp.float32))
  return out_kxh.reshape(k, g, t, -1)


def _heads_first(x_tnh: Array, k: int) -> Array:
  """[t, n, h] to [k, g, t, h]."""
  t, n, h = x_tnh.shape
  return x_tnh.reshape(t, k, n // k, h).transpose(1, 2, 0, 3)


def _heads_last(x_kgth: Array) -> Array:
  """[k, g, t, h] to [t, n, h]."""
  k, g, t, h = x_kgth.shape
  return x_kgth.transpose(2, 0, 1, 3).reshape(t, k * g, h)


def _place(x_khs: Array, keys: slice, num_keys: int) -> Array:
  """Pads the last axis with zeros, so that `keys` lie where they belong."""
  edges = (keys.start, num_keys - keys.stop)
  return jnp.pad(x_khs, ((0, 0), (0, 0), edges))


def _like_bias(dscore_kgts: Array, block: Any, bias_nts: Array) -> Array:
  """Puts a block's gradient of the scores into an array like the bias."""
  queries, keys = block
  k, g, t, s = dscore_kgts.shape
  part_nts = dscore_kgts.reshape(k * g, t, s)
  if len(bias_nts) == 1:
    part_nts = part_nts.sum(axis=0, keepdims=True)
  _, num_t, num_s = bias_nts.shape
  edges = (
    (0, 0),
    (queries.start, num_t - queries.stop),
    (keys.start, num_s - keys.stop),
  )
  return jnp.pad(part_nts, edges).astype(bias_nts.dtype)

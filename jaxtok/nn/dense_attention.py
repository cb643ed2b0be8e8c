# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Softmax attention that holds its scores: any mask, best for short rows."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import AttentionState
from jaxtyping import Array, Float

from jaxtok.nn import masks


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
  b, t, n, h = q_btnh.shape
  k = k_bskh.shape[2]
  q_btkgh = (q_btnh * scale).reshape(b, t, k, n // k, h)
  score_bkgts = jnp.einsum(
    'btkgh,bskh->bkgts', q_btkgh, k_bskh, preferred_element_type=jnp.float32
  )
  if soft_cap:
    score_bkgts = soft_cap * jnp.tanh(score_bkgts / soft_cap)
  if bias is not None:
    split = (bias.shape[0], -1, 1) if bias.shape[1] == 1 else (-1, k, n // k)
    score_bkgts += bias.reshape(*split, *bias.shape[2:])
  score_bkgts = jnp.where(
    masks.visible(mask, layout)[:, None, None],
    score_bkgts,
    -jnp.inf,
  )
  top_bkgt1 = score_bkgts.max(axis=-1, keepdims=True)
  if sink_n is not None:
    sink_kg11 = sink_n.astype(jnp.float32).reshape(k, n // k, 1, 1)
    top_bkgt1 = jnp.maximum(top_bkgt1, sink_kg11)
  top_bkgt1 = jax.lax.stop_gradient(
    jnp.where(jnp.isfinite(top_bkgt1), top_bkgt1, 0.0)
  )
  weight_bkgts = jnp.exp(score_bkgts - top_bkgt1)
  total_bkgt1 = weight_bkgts.sum(axis=-1, keepdims=True)
  if sink_n is not None:
    total_bkgt1 += jnp.exp(sink_kg11 - top_bkgt1)
  weight_bkgts = weight_bkgts / jnp.where(total_bkgt1 == 0, 1.0, total_bkgt1)
  out_btkgh = jnp.einsum(
    'bkgts,bskh->btkgh',
    weight_bkgts.astype(v_bskh.dtype),
    v_bskh,
    preferred_element_type=jnp.float32,
  )
  out_btnh = out_btkgh.reshape(b, t, n, v_bskh.shape[3])
  lse_bkgt = (top_bkgt1 + jnp.log(total_bkgt1))[..., 0]
  lse_btn = lse_bkgt.reshape(b, n, t).transpose(0, 2, 1)
  return AttentionState(out_btnh, lse_btn)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores and selections with dense intermediates."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks


def column_sums(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  lse_btn: jax.Array,
  weight_btn: jax.Array,
  mask: masks.MaskSpec,
  *,
  scale: float,
  softcap: float | None,
) -> jax.Array:
  """`sum_i w_i exp(s_ij - lse_i)` per query head, `[b, s, n]`."""
  b, t, n, h = q_btnh.shape
  s, k = k_bskh.shape[1:3]
  to_f32 = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
  q_btkgh = to_f32(q_btnh.reshape(b, t, k, n // k, h))
  scores = scale * jnp.einsum(
    'btkgh,bskh->btkgs', q_btkgh, to_f32(k_bskh), precision='highest'
  )
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  seen = jnp.moveaxis(mask.dense_by_head(t, s), 1, 2)[:, :, :, None]
  lse = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  p = jnp.exp(scores - lse.reshape(b, t, k, n // k, 1))
  p = jnp.where(seen, p, 0) * weight_btn.reshape(b, t, k, n // k, 1)
  return p.sum(1).transpose(0, 3, 1, 2).reshape(b, s, n)


def decode_scores(
  q_bnh: jax.Array,
  k_bskh: jax.Array,
  length_b: jax.Array,
  *,
  scale: float,
  softcap: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Head by head; scores `[b, n, s]` and their log-sum-exp."""
  n, k = q_bnh.shape[1], k_bskh.shape[2]
  to_f32 = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
  keys = jnp.repeat(to_f32(k_bskh), n // k, axis=2)
  scores = scale * jnp.einsum(
    'bnh,bsnh->bns', to_f32(q_bnh), keys, precision='highest'
  )
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  place = jnp.arange(k_bskh.shape[1])
  seen = (place < length_b[:, None])[:, None]
  scores = jnp.where(seen, scores, -jnp.inf)
  return scores, jax.nn.logsumexp(scores, axis=-1)


def soft_vote(scores_bns: jax.Array, region_bs: jax.Array) -> jax.Array:
  """Softmax over the region, summed over heads."""
  p = jax.nn.softmax(scores_bns, axis=-1, where=region_bs[:, None])
  return jnp.where(region_bs, p.sum(1), 0)


def topk(x_rs: jax.Array, k: int, valid_rs: jax.Array | None) -> jax.Array:
  """Top k by sorting; same result as `topk_threshold`."""
  x_rs = jnp.where(jnp.isnan(x_rs), -jnp.inf, x_rs)
  size = x_rs.shape[-1]
  if valid_rs is None:
    valid_rs = jnp.ones(x_rs.shape, bool)
  # Invalid entries sort last, also behind valid -inf.
  order = jnp.lexsort((-x_rs, ~valid_rs), axis=-1)[:, :k]
  taken = jnp.take_along_axis(valid_rs, order, axis=-1)
  ids = jnp.sort(jnp.where(taken, order, size), axis=-1)
  return jnp.where(ids < size, ids, -1).astype(jnp.int32)

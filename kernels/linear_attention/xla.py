# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear attention in chunks: matmuls inside a chunk, a state between chunks.

Inside a chunk the similarity is computed directly, without features; between
chunks the state `[f, e]` carries `sum phi(k) v^T`. The backward pass keeps one
state per group of chunks and recomputes the rest.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtok_kernels.linear_attention import decay as decays
from jaxtok_kernels.linear_attention.features import feature_map, similarity

_GROUP = 8  # Chunks between saved states.
_SUB_CHUNK = 16  # Chunk length with a decay per feature.


def linear_attention(
  q_btnh: jax.Array,
  k_btnh: jax.Array,
  v_btne: jax.Array,
  decay_btnh: jax.Array | None,
  state_bnfe: jax.Array,
  *,
  feature: str,
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """Same result as the reference's recurrence.

  Args:
    q_btnh: Queries.
    k_btnh: Keys.
    v_btne: Values with the normaliser's 1 as last column; 0 for padding.
    decay_btnh: Log-decay, `[b, t, n, 1]` or one per feature, or None.
    state_bnfe: Start state.
    feature: Static; the feature map.
    chunk: Static; tokens per chunk.
  """
  b, t = q_btnh.shape[:2]
  by_feature = decay_btnh is not None and decay_btnh.shape[-1] > 1
  chunk = min(chunk, t, _SUB_CHUNK if by_feature else chunk)
  num = -(-t // chunk)
  group = min(_GROUP, num)
  num = -(-num // group) * group
  xs = [_cut(x, num, chunk, group) for x in (q_btnh, k_btnh, v_btne)]
  if decay_btnh is not None:
    xs.append(_cut(decay_btnh.astype(state_bnfe.dtype), num, chunk, group))
  step = functools.partial(_chunk, feature=feature)
  run = jax.checkpoint(lambda state, xs: jax.lax.scan(step, state, xs))
  state, out = jax.lax.scan(run, state_bnfe, tuple(xs))
  # [groups, group, b, n, chunk, e] -> [b, t, n, e]
  out = out.reshape(num, b, *out.shape[3:]).transpose(1, 0, 3, 2, 4)
  out = out.reshape(b, num * chunk, *out.shape[3:])
  return out[:, :t], state


def _cut(x_btnh: jax.Array, num: int, chunk: int, group: int) -> jax.Array:
  """`[groups, group, b, n, chunk, h]`; zeros pad the end and change nothing."""
  b, t, n, h = x_btnh.shape
  x = jnp.pad(x_btnh, ((0, 0), (0, num * chunk - t), (0, 0), (0, 0)))
  x = x.reshape(b, num, chunk, n, h).transpose(1, 0, 3, 2, 4)
  return x.reshape(num // group, group, b, n, chunk, h)


def _chunk(state_bnfe, xs, *, feature: str):
  """One chunk: its outputs and the state after it."""
  q, k, v, *rest = xs
  dtype = state_bnfe.dtype
  v = v.astype(dtype)
  causal = jnp.tril(jnp.ones((q.shape[2],) * 2, bool))
  phi_q, phi_k = feature_map(q, feature), feature_map(k, feature)
  if not rest:
    a = jnp.where(causal, similarity(q, k, feature), 0)
    out = a @ v + phi_q @ state_bnfe
    return state_bnfe + phi_k.swapaxes(-1, -2) @ v, out
  if rest[0].shape[-1] == 1:
    # exp of the difference: both parts alone could overflow.
    coarse, fine = decays.running_sums(rest[0], axis=2)
    gap = coarse - coarse.swapaxes(-1, -2) + (fine - fine.swapaxes(-1, -2))
    start = coarse + fine
    end = coarse[:, :, -1:] - coarse + (fine[:, :, -1:] - fine)
    weight = jnp.exp(jnp.where(causal, gap, -jnp.inf))
    a = similarity(q, k, feature) * weight
  else:
    total = jnp.cumsum(rest[0], axis=2)
    start, end = total, total[:, :, -1:] - total
    gap = total[:, :, :, None] - total[:, :, None]
    weight = jnp.exp(jnp.where(causal[..., None], gap, -jnp.inf))
    a = jnp.einsum('bntf,bnsf,bntsf->bnts', phi_q, phi_k, weight)
  out = a @ v + (phi_q * jnp.exp(start)) @ state_bnfe
  keep = jnp.exp(start[:, :, -1:]).swapaxes(-1, -2)
  added = (phi_k * jnp.exp(end)).swapaxes(-1, -2) @ v
  return keep * state_bnfe + added, out

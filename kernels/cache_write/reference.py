# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache writes by asking of every slot which token it holds: the meaning.

Dense in slots times tokens, without scatters; differentiable as it stands.
"""

import jax
import jax.numpy as jnp


def write_kv(
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  k_new_btkh: jax.Array,
  v_new_btkh: jax.Array,
  slots_bt: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The caches with the new tokens in their slots; see the public function."""
  return (
    _written(k_bskh, k_new_btkh, slots_bt),
    _written(v_bskh, v_new_btkh, slots_bt),
  )


def write_rows(
  rows_rch: jax.Array,
  k_new_btkh: jax.Array,
  v_new_btkh: jax.Array,
  slots_bt: jax.Array,
) -> jax.Array:
  """The pool as one sequence, its keys in even rows, its values in odd ones."""
  flat = lambda x: x.reshape(1, -1, *x.shape[2:])
  rows, slots = rows_rch[None], slots_bt.reshape(1, -1)
  k = _written(rows[:, :, 0::2], flat(k_new_btkh), slots)
  v = _written(rows[:, :, 1::2], flat(v_new_btkh), slots)
  return jnp.stack([k, v], 3).reshape(rows_rch.shape)


def compact_kv(
  cache_bskh: jax.Array, cache_len_b: jax.Array, accept_bg: jax.Array
) -> jax.Array:
  """The cache with accepted drafts behind its end; layers may come first."""
  s, g = cache_bskh.shape[-3], accept_bg.shape[1]
  slot = jnp.arange(s, dtype=jnp.int32)
  if not s or not g:
    return cache_bskh
  start_b1 = cache_len_b.astype(jnp.int32)[:, None]
  nth_bs = slot - start_b1
  draft_bs = jnp.take_along_axis(accept_bg, jnp.clip(nth_bs, 0, g - 1), axis=1)
  moves_bs = (nth_bs >= 0) & (nth_bs < g) & (draft_bs >= 0)
  source_bs = jnp.where(moves_bs, start_b1 + draft_bs, slot)
  source_bs = jnp.clip(source_bs, 0, s - 1)[..., None, None]
  index = jnp.broadcast_to(source_bs, cache_bskh.shape)
  return jnp.take_along_axis(cache_bskh, index, axis=-3)


def _written(cache_bskh, new_btkh, slots_bt) -> jax.Array:
  s, t = cache_bskh.shape[1], new_btkh.shape[1]
  if not s or not t:
    return cache_bskh
  hit_bst = slots_bt[:, None] == jnp.arange(s)[:, None]
  token_bs = hit_bst.argmax(2)[..., None, None]
  new = jnp.take_along_axis(new_btkh.astype(cache_bskh.dtype), token_bs, axis=1)
  return jnp.where(hit_bst.any(2)[..., None, None], new, cache_bskh)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes to key-value caches.

XLA scatters update a donated cache in place (tested on the compiled program),
so the plain form moves only the new tokens. Axes: b sequences, s slots of a
sequence, r rows of a pool, c = 2 k interleaved key and value heads, g drafts.
"""

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch

_AVAILABLE = ('xla',)


def _choose(kernel: str, implementation: str) -> None:
  dispatch.choose(kernel, implementation, _AVAILABLE, lambda name: None)


def write_kv(
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  k_new_btkh: jax.Array,
  v_new_btkh: jax.Array,
  slots_bt: jax.Array,
  *,
  implementation: str = 'auto',
) -> tuple[jax.Array, jax.Array]:
  """Writes new tokens into per-sequence caches.

  Args:
    k_bskh: Cached keys; donate it to update in place.
    v_bskh: Cached values.
    k_new_btkh: New keys, cast to the cache's type.
    v_new_btkh: New values.
    slots_bt: int32 slot of each token; outside `[0, s)` the token is dropped.
      No two tokens of a sequence may share a slot.
    implementation: Static; 'auto' or 'xla'.

  Returns:
    The updated caches.

  Raises:
    ValueError: If shapes do not fit.
  """
  _choose('write_kv', implementation)
  for name, cache, new in (
    ('k_new_btkh', k_bskh, k_new_btkh),
    ('v_new_btkh', v_bskh, v_new_btkh),
  ):
    want = (*slots_bt.shape, *cache.shape[2:])
    if new.shape != want:
      raise ValueError(f'{name} has shape {new.shape}; it must be {want}.')
  row_b1 = jnp.arange(k_bskh.shape[0])[:, None]
  slots_bt = _dropped(slots_bt, k_bskh.shape[1])
  put = lambda cache, new: cache.at[row_b1, slots_bt].set(
    new.astype(cache.dtype), mode='drop'
  )
  return put(k_bskh, k_new_btkh), put(v_bskh, v_new_btkh)


def write_rows(
  rows_rch: jax.Array,
  k_new_btkh: jax.Array,
  v_new_btkh: jax.Array,
  slots_bt: jax.Array,
  *,
  implementation: str = 'auto',
) -> jax.Array:
  """Writes new tokens into a pool of rows that all sequences share.

  Args:
    rows_rch: `[r, 2 k, h]`; row 2 i holds key head i, row 2 i + 1 its value, so
      that a token is one contiguous piece. Pages `[p, page, 2 k, h]` reshape to
      it for free. Donate it to update in place.
    k_new_btkh: New keys.
    v_new_btkh: New values.
    slots_bt: int32 row of each token; outside `[0, r)` the token is dropped.
    implementation: Static; 'auto' or 'xla'.

  Returns:
    The updated rows.

  Raises:
    ValueError: If shapes do not fit.
  """
  _choose('write_rows', implementation)
  b, t, k, h = k_new_btkh.shape
  if rows_rch.shape[1:] != (2 * k, h) or v_new_btkh.shape != k_new_btkh.shape:
    raise ValueError(
      f'rows_rch {rows_rch.shape}, k_new_btkh {k_new_btkh.shape}, v_new_btkh '
      f'{v_new_btkh.shape} do not fit: rows must be [r, {2 * k}, {h}].'
    )
  new = jnp.stack([k_new_btkh, v_new_btkh], 3).reshape(b, t, 2 * k, h)
  slots_bt = _dropped(slots_bt, rows_rch.shape[0])
  return rows_rch.at[slots_bt].set(new.astype(rows_rch.dtype), mode='drop')


def compact_kv(
  cache_bskh: jax.Array,
  cache_len_b: jax.Array,
  accept_bg: jax.Array,
  *,
  implementation: str = 'auto',
) -> jax.Array:
  """Moves accepted drafts to where the cache ends.

  Drafts lie at slots `cache_len + i`. Accepted ones, in order, become the slots
  `cache_len, cache_len + 1, ...`; everything is read before it is written.

  Args:
    cache_bskh: Keys or values, or `[l, b, s, k, h]` for all layers at once.
    cache_len_b: int32 length without the drafts.
    accept_bg: int32 numbers of the accepted drafts, -1 padded at the end.
    implementation: Static; 'auto' or 'xla'.

  Returns:
    The updated cache; slots behind the accepted drafts keep what they held.

  Raises:
    ValueError: If shapes do not fit.
  """
  _choose('compact_kv', implementation)
  if cache_bskh.ndim == 5:
    move = lambda x: compact_kv(x, cache_len_b, accept_bg)
    return jax.vmap(move)(cache_bskh)
  b, s = cache_bskh.shape[:2]
  if accept_bg.shape[:1] != (b,) or cache_len_b.shape != (b,):
    raise ValueError(
      f'cache_len_b {cache_len_b.shape} and accept_bg {accept_bg.shape} must '
      f'have {b} rows, one per sequence of the cache.'
    )
  start_b1 = cache_len_b.astype(jnp.int32)[:, None]
  row_b1 = jnp.arange(b)[:, None]
  source = jnp.clip(start_b1 + accept_bg, 0, s - 1)
  moved = cache_bskh[row_b1, source]
  target = start_b1 + jnp.arange(accept_bg.shape[1], dtype=jnp.int32)
  target = jnp.where(accept_bg < 0, s, target)
  return cache_bskh.at[row_b1, target].set(moved, mode='drop')


def ring_slots(positions: jax.Array, num_sinks: int, window: int) -> jax.Array:
  """Slots of tokens in a cache of sinks followed by a ring.

  Xiao et al. 2023, arXiv:2309.17453 (StreamingLLM).

  Args:
    positions: int32 positions of the tokens in the stream.
    num_sinks: Static; first tokens that stay.
    window: Static; slots of the ring, which the latest tokens share.
  """
  ring = num_sinks + (positions - num_sinks) % window
  return jnp.where(positions < num_sinks, positions, ring)


def _dropped(slots: jax.Array, size: int) -> jax.Array:
  """Slots with invalid ones moved past the end; negative ones would wrap."""
  return jnp.where(slots < 0, size, slots)

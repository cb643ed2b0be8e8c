# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes to key-value caches.

All forms update a donated cache in place and move only the new tokens (tested
on compiled programs). Axes: b sequences, s slots of a sequence, r rows of a
pool, c = 2 k interleaved key and value heads, g drafts, x pieces.

Everything is a write of rows `[c, h]` to a pool of rows: slots of caches become
row numbers.
"""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch
from jaxtok_kernels.cache_write import reference, xla

_PALLAS = {'tpu': 'tpu', 'triton': 'gpu_triton'}
_AVAILABLE = ('reference', 'xla', *_PALLAS)


def _module(name: str) -> Any:
  """Pallas is slow to import, so only what is used is."""
  if name == 'xla':
    return xla
  return importlib.import_module(f'jaxtok_kernels.cache_write.{_PALLAS[name]}')


def _choose(kernel: str, implementation: str) -> dispatch.Dispatch:
  return dispatch.choose(kernel, implementation, _AVAILABLE, lambda name: None)


def _scatter(found: dispatch.Dispatch, pools, news, rows_m):
  """Writes rows by the chosen implementation."""
  interpret = dispatch.interpret()
  news = tuple(
    x.astype(pool.dtype) for x, pool in zip(news, pools, strict=True)
  )
  call = lambda name, *args: _scatter_rows((name, interpret), *args)
  return dispatch.run(found, call, pools, news, rows_m)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scatter_rows(static, pools, news, rows_m):
  name, interpret = static
  if name == 'xla':
    return xla.scatter(pools, news, rows_m)
  return _module(name).scatter(pools, news, rows_m, interpret=interpret)


def _scatter_rows_fwd(static, pools, news, rows_m):
  return _scatter_rows(static, pools, news, rows_m), rows_m


def _scatter_rows_bwd(_, rows_m, cotangents):
  """What was overwritten does not matter, what was written does."""
  zeros = lambda x: jnp.zeros((rows_m.shape[0], *x.shape[1:]), x.dtype)
  kept = lambda x: xla.put(x, zeros(x), rows_m)
  written = lambda x: jnp.where(
    (rows_m >= 0)[:, None, None], x[jnp.maximum(rows_m, 0)], 0
  )
  return tuple(map(kept, cotangents)), tuple(map(written, cotangents)), None


_scatter_rows.defvjp(_scatter_rows_fwd, _scatter_rows_bwd)


def _flat(cache: jax.Array) -> jax.Array:
  """`[..., c, h]` as a pool of rows, without moving anything."""
  return cache.reshape(-1, *cache.shape[-2:])


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
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The updated caches.

  Raises:
    ValueError: If shapes do not fit.
  """
  if k_bskh.shape[:2] != v_bskh.shape[:2]:
    raise ValueError(
      f'k_bskh {k_bskh.shape} and v_bskh {v_bskh.shape} must have the same '
      'sequences and slots: both are written at slots_bt.'
    )
  if slots_bt.shape[:1] != k_bskh.shape[:1]:
    raise ValueError(
      f'slots_bt has shape {slots_bt.shape}; it must have '
      f'{k_bskh.shape[0]} rows, one per sequence of the cache.'
    )
  for name, cache, new in (
    ('k_new_btkh', k_bskh, k_new_btkh),
    ('v_new_btkh', v_bskh, v_new_btkh),
  ):
    want = (*slots_bt.shape, *cache.shape[2:])
    if new.shape != want:
      raise ValueError(f'{name} has shape {new.shape}; it must be {want}.')
  found = _choose('write_kv', implementation)
  if 'reference' in found.chosen.values():
    return reference.write_kv(k_bskh, v_bskh, k_new_btkh, v_new_btkh, slots_bt)
  b, size = k_bskh.shape[:2]
  row_b1 = size * jnp.arange(b, dtype=jnp.int32)[:, None]
  inside = (slots_bt >= 0) & (slots_bt < size)
  rows = jnp.where(inside, row_b1 + slots_bt.astype(jnp.int32), -1).ravel()
  k, v = _scatter(
    found,
    (_flat(k_bskh), _flat(v_bskh)),
    (_flat(k_new_btkh), _flat(v_new_btkh)),
    rows,
  )
  return k.reshape(k_bskh.shape), v.reshape(v_bskh.shape)


def ring_write(
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  k_new_btkh: jax.Array,
  v_new_btkh: jax.Array,
  positions_bt: jax.Array,
  *,
  num_sinks: int,
  window: int,
  implementation: str = 'auto',
) -> tuple[jax.Array, jax.Array]:
  """Writes new tokens into caches of sinks followed by a ring.

  Xiao et al. 2023, arXiv:2309.17453 (StreamingLLM); slots as in `ring_slots`.
  More tokens than the ring holds may come at once: the latest stay.

  Args:
    k_bskh: Cached keys, `s = num_sinks + window`; donate it to update in place.
    v_bskh: Cached values.
    k_new_btkh: New keys, cast to the cache's type.
    v_new_btkh: New values.
    positions_bt: int32 positions in the stream, consecutive; negative ones are
      dropped (padding).
    num_sinks: Static; first tokens that stay.
    window: Static; slots of the ring.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The updated caches.

  Raises:
    ValueError: If shapes do not fit.
  """
  if k_bskh.shape[1] != num_sinks + window:
    raise ValueError(
      f'k_bskh has {k_bskh.shape[1]} slots; they must be num_sinks + window = '
      f'{num_sinks + window}.'
    )
  slots = ring_slots(positions_bt, num_sinks, window)
  last = positions_bt.max(1, keepdims=True)
  stays = (positions_bt < num_sinks) | (positions_bt > last - window)
  slots = jnp.where(stays & (positions_bt >= 0), slots, -1)
  return write_kv(
    k_bskh,
    v_bskh,
    k_new_btkh,
    v_new_btkh,
    slots,
    implementation=implementation,
  )


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
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The updated rows.

  Raises:
    ValueError: If shapes do not fit.
  """
  b, t, k, h = k_new_btkh.shape
  if rows_rch.shape[1:] != (2 * k, h) or v_new_btkh.shape != k_new_btkh.shape:
    raise ValueError(
      f'rows_rch {rows_rch.shape}, k_new_btkh {k_new_btkh.shape}, v_new_btkh '
      f'{v_new_btkh.shape} do not fit: rows must be [r, {2 * k}, {h}].'
    )
  found = _choose('write_rows', implementation)
  if 'reference' in found.chosen.values():
    return reference.write_rows(rows_rch, k_new_btkh, v_new_btkh, slots_bt)
  new = jnp.stack([k_new_btkh, v_new_btkh], 3).reshape(b * t, 2 * k, h)
  inside = (slots_bt >= 0) & (slots_bt < rows_rch.shape[0])
  slots = jnp.where(inside, slots_bt.astype(jnp.int32), -1).ravel()
  return _scatter(found, (rows_rch,), (new,), slots)[0]


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
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The updated cache; slots behind the accepted drafts keep what they held.

  Raises:
    ValueError: If shapes do not fit.
  """
  shape = cache_bskh.shape
  layers, b, size = (1, *shape[:2]) if len(shape) == 4 else shape[:3]
  if accept_bg.shape[:1] != (b,) or cache_len_b.shape != (b,):
    raise ValueError(
      f'cache_len_b {cache_len_b.shape} and accept_bg {accept_bg.shape} must '
      f'have {b} rows, one per sequence of the cache.'
    )
  found = _choose('compact_kv', implementation)
  if 'reference' in found.chosen.values():
    return reference.compact_kv(cache_bskh, cache_len_b, accept_bg)
  start_b1 = cache_len_b.astype(jnp.int32)[:, None]
  accept_bg = accept_bg.astype(jnp.int32)
  source = jnp.clip(start_b1 + accept_bg, 0, size - 1)
  target = start_b1 + jnp.arange(accept_bg.shape[1], dtype=jnp.int32)
  piece = size * jnp.arange(layers * b, dtype=jnp.int32)[:, None]
  every = lambda x: jnp.tile(x, (layers, 1))
  keep = (accept_bg >= 0) & (target < size)
  operands = (
    _flat(cache_bskh),
    piece + every(source),
    jnp.where(every(keep), piece + every(target), -1),
  )
  interpret = dispatch.interpret()
  call = lambda name, *args: _move_rows((name, interpret), *args)
  return dispatch.run(found, call, *operands).reshape(shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _move_rows(static, pool, source_xg, target_xg):
  name, interpret = static
  if name == 'xla':
    return xla.compact(pool, source_xg, target_xg)
  return _module(name).compact(pool, source_xg, target_xg, interpret=interpret)


def _move_rows_fwd(static, pool, source_xg, target_xg):
  moved = _move_rows(static, pool, source_xg, target_xg)
  return moved, (source_xg, target_xg)


def _move_rows_bwd(_, residuals, cotangent):
  source, target = (x.ravel() for x in residuals)
  moved = jnp.where(
    (target >= 0)[:, None, None], cotangent[jnp.maximum(target, 0)], 0
  )
  kept = xla.put(cotangent, jnp.zeros_like(moved), target)
  return kept.at[source].add(moved), None, None


_move_rows.defvjp(_move_rows_fwd, _move_rows_bwd)


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

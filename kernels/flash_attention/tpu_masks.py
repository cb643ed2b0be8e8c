# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks inside a tile of the TPU kernels; `plan` is the kernel's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels.flash_attention import tile_lists


def seen_rows(plan: Any, refs, row0, key0, part) -> jax.Array:
  """Visibility `[g bq, compute tile]`."""
  bq, size = plan.block_q, plan.block_compute
  if _is_plain(plan):
    seen = _seen_band(plan, row0, key0, (bq, size), 0)
    return jnp.concatenate([seen] * plan.g, axis=0) if plan.g > 1 else seen
  row = row0 + jax.lax.broadcasted_iota(jnp.int32, (bq, 1), 0)
  if plan.band.has_positions:
    pos = refs['pos'][0, :, part]
  else:
    pos = key0 + jax.lax.broadcasted_iota(jnp.int32, (1, size), 1)
  bounds = None
  if plan.band.num_intervals:
    x = refs['bounds'][0]
    bounds = [
      (x[:, 2 * i : 2 * i + 1], x[:, 2 * i + 1 : 2 * i + 2])
      for i in range(plan.band.num_intervals)
    ]
  seen = tile_lists.visible(plan.band, bounds, row, pos)
  return jnp.concatenate([seen] * plan.g, axis=0) if plan.g > 1 else seen


def seen_columns(plan: Any, refs, row0, key0, part) -> jax.Array:
  """Visibility `[compute tile, bq]`."""
  bq, size = plan.block_q, plan.block_compute
  if _is_plain(plan):
    return _seen_band(plan, row0, key0, (size, bq), 1)
  row = row0 + jax.lax.broadcasted_iota(jnp.int32, (1, bq), 1)
  if plan.band.has_positions:
    pos = refs['pos'][0, part, :]
  else:
    pos = key0 + jax.lax.broadcasted_iota(jnp.int32, (size, 1), 0)
  bounds = None
  if plan.band.num_intervals:
    x = refs['bounds'][0]
    bounds = [
      (x[2 * i : 2 * i + 1], x[2 * i + 1 : 2 * i + 2])
      for i in range(plan.band.num_intervals)
    ]
  return tile_lists.visible(plan.band, bounds, row, pos)


def _is_plain(plan: Any) -> bool:
  """Whether the mask is a band of keys in their own order."""
  return not plan.band.num_intervals and not plan.band.has_positions


def _seen_band(plan: Any, row0, key0, shape, row_axis: int) -> jax.Array:
  """Visibility by a band: one comparison per side with a constant matrix."""
  iota = functools.partial(jax.lax.broadcasted_iota, jnp.int32)
  band, key_axis = plan.band, 1 - row_axis
  ahead = iota(shape, key_axis) - iota(shape, row_axis)
  parts = []
  if band.left is not None:
    parts.append(ahead >= row0 - key0 - band.left)
  line = tuple(1 if x == row_axis else n for x, n in enumerate(shape))
  pos = key0 + iota(line, key_axis)
  if band.num_sinks and parts:
    parts = [parts[0] | (pos < band.num_sinks)]
  if band.right is not None:
    parts.append(ahead <= row0 - key0 + band.right)
  if plan.s_pad != plan.s or not parts:
    parts.append(jnp.broadcast_to(pos < plan.s, shape))
  return functools.reduce(jnp.logical_and, parts)

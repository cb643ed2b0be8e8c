# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of tiles that the Pallas kernels walk, and masks inside a tile.

Every mask becomes a bool matrix "tile touched", computed on the device, and
from it a list of key tiles per query tile (forward, dq) or of query tiles per
key tile (dk, dv). Axes: c mask batch (b or 1), u mask heads (k or 1), i and j
query and key tiles.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks


class TileLists(NamedTuple):
  """For each tile of one side, the tiles of the other.

  Attributes:
    codes: int32 `[c, u, outer, inner]`; `2 * tile + is_full`, ascending. Past
      the count the last one is repeated, so that nothing new is fetched.
    count: int32 `[c, u, outer]`.
  """

  codes: jax.Array
  count: jax.Array


@dataclasses.dataclass(frozen=True)
class Band:
  """Static: how a tile computes its mask.

  Attributes:
    left: As in `MaskSpec`; used if `num_intervals` is 0.
    right: As in `MaskSpec`.
    num_sinks: As in `MaskSpec`.
    num_intervals: Intervals per row that come as an array; 0 for bands.
    num_keys: Keys without padding.
    has_positions: Whether keys have explicit positions.
    is_masked: Whether any tile needs a mask.
  """

  left: int | None
  right: int | None
  num_sinks: int
  num_intervals: int
  num_keys: int
  has_positions: bool
  is_masked: bool


def band(mask: masks.MaskSpec, num_keys: int, padded_keys: int) -> Band:
  """The static part of a mask."""
  arrays = (mask.intervals, mask.prefix_len, mask.q_pos)
  explicit = any(x is not None for x in arrays)
  number = 2 if mask.num_sinks else 1
  if mask.intervals is not None:
    number = mask.intervals.shape[2]
  return Band(
    left=mask.left,
    right=mask.right,
    num_sinks=mask.num_sinks,
    num_intervals=number if explicit else 0,
    num_keys=num_keys,
    has_positions=mask.kv_pos is not None,
    is_masked=not mask.is_full or padded_keys != num_keys,
  )


def touched(
  mask: masks.MaskSpec, t: int, s: int, block_q: int, block_kv: int
) -> tuple[jax.Array, jax.Array]:
  """Tiles with visible pairs and tiles without hidden ones, `[c, u, i, j]`."""
  num_q, num_kv = -(-t // block_q), -(-s // block_kv)
  rows = mask.row_intervals(t, s)
  rows = jnp.pad(rows, ((0, 0), (0, num_q * block_q - t), (0, 0), (0, 0)))
  pos = mask.key_positions(s)
  pos = jnp.pad(pos, ((0, 0), (0, num_kv * block_kv - s)), constant_values=-1)
  hit, full = masks.touched_tiles(rows, pos, block_q, block_kv)
  if t % block_q and mask.is_full:
    # Padding rows may see everything: their results are dropped.
    full = full | (pos.reshape(1, num_kv, block_kv).min(-1) >= 0)
  hit, full = hit[:, None], full[:, None]
  if (lists := mask.block_lists) is None:
    return hit, full
  listed, free = lists.dense(num_kv)
  return listed & (hit | free), listed & (full | free)


def tile_lists(hit: jax.Array, full: jax.Array) -> TileLists:
  """Lists along the last axis of `[c, u, outer, inner]` matrices."""
  size = hit.shape[-1]
  order = jnp.argsort(~hit, axis=-1, stable=True).astype(jnp.int32)
  count = hit.sum(-1, dtype=jnp.int32)
  codes = 2 * order + jnp.take_along_axis(full, order, axis=-1)
  place = jnp.minimum(jnp.arange(size), jnp.maximum(count[..., None] - 1, 0))
  return TileLists(jnp.take_along_axis(codes, place, axis=-1), count)


def row_bounds(mask: masks.MaskSpec, t: int, s: int, padded: int) -> jax.Array:
  """int32 `[c, padded, 2 * intervals]`: start, end, start, end, ..."""
  rows = mask.row_intervals(t, s)
  rows = jnp.pad(rows, ((0, 0), (0, padded - t), (0, 0), (0, 0)))
  return rows.reshape(*rows.shape[:2], -1)


def hides_keys(mask: masks.MaskSpec, t: int, s: int) -> bool:
  """Whether there may be keys that no row sees: statically known bands aside.

  Those may hold NaN, which `0 * NaN` would leak, and have to be cleared.
  """
  arrays = (
    mask.intervals,
    mask.prefix_len,
    mask.q_pos,
    mask.kv_pos,
    mask.block_lists,
    mask.tree_bits,
  )
  if any(x is not None for x in arrays):
    return True
  reaches_first = mask.left is None or mask.left >= 0
  reaches_last = mask.right is None or 0 <= mask.right >= s - t
  return not (reaches_first and reaches_last)


def used_keys(mask: masks.MaskSpec, t: int, s: int) -> jax.Array:
  """bool `[c, s]`: keys that some row may see; others may hold NaN.

  Exact for keys in their own order; with explicit positions, padding only.
  """
  if mask.kv_pos is not None:
    return mask.key_positions(s) >= 0
  rows = mask.row_intervals(t, s)
  rows = rows.reshape(rows.shape[0], -1, 2)
  start, end = rows[..., 0], rows[..., 1]
  batch = jnp.arange(rows.shape[0])[:, None]
  step = (end > start).astype(jnp.int32)
  edges = jnp.zeros((rows.shape[0], s + 1), jnp.int32)
  edges = edges.at[batch, start].add(step).at[batch, end].add(-step)
  used = jnp.cumsum(edges, axis=-1)[:, :s] > 0
  if (lists := mask.block_lists) is None:
    return used
  # Listed blocks may be visible beyond the intervals.
  listed, free = lists.dense(-(-s // lists.block_kv))
  shown = jnp.repeat((listed & free).any((1, 2)), lists.block_kv, axis=-1)
  return used | shown[:, :s]


def visible(
  spec: Band,
  bounds: list[tuple[jax.Array, jax.Array]] | None,
  row: jax.Array,
  pos: jax.Array,
) -> jax.Array:
  """Visibility inside a tile; runs inside kernels.

  Args:
    spec: Static part of the mask.
    bounds: Start and end of each interval, shaped like `row`; None for bands.
    row: Row numbers, a column or a row vector.
    pos: Key positions, broadcast against `row`.
  """
  if bounds is None:
    bounds = _band_bounds(spec, row)
  seen = None
  for start, end in bounds:
    hit = (pos >= start) & (pos < end)
    seen = hit if seen is None else seen | hit
  return seen


def _band_bounds(spec: Band, row: jax.Array):
  limit = masks.MAX_POS if spec.has_positions else spec.num_keys
  end = jnp.full_like(row, limit)
  if spec.right is not None:
    end = jnp.minimum(row + (spec.right + 1), limit)
  start = jnp.zeros_like(row)
  if spec.left is not None:
    start = jnp.maximum(row - spec.left, 0)
  if not spec.num_sinks:
    return [(start, end)]
  first = jnp.minimum(end, spec.num_sinks)
  return [(jnp.zeros_like(row), first), (jnp.maximum(start, first), end)]

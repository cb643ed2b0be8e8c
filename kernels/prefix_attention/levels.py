# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared prefixes and how the sequences that use them are tiled.

Juravsky et al. 2024, arXiv:2402.05099 (Hydragen), with any number of groups
per level. Axes: b sequences, m groups (a prefix each), p keys of a prefix.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PrefixLevel:
  """Prefixes, each shared by the sequences of its group.

  Attributes:
    k_mpkh: Keys.
    v_mpkh: Values.
    length_m: int32, valid keys of each prefix.
    group_b: int32, the group of each sequence; -1 if it has no prefix here.
  """

  k_mpkh: jax.Array
  v_mpkh: jax.Array
  length_m: jax.Array
  group_b: jax.Array


class GroupTiles(NamedTuple):
  """Sequences sorted by group and cut into tiles of one group each.

  Attributes:
    rows: int32 `[tiles, block]`, sequence numbers; b where the tile has none.
    group: int32 `[tiles]`, group of each tile.
    count: int32 scalar, tiles in use; the others hold nothing.
  """

  rows: jax.Array
  group: jax.Array
  count: jax.Array


def group_tiles(group_b: jax.Array, num_groups: int, block: int) -> GroupTiles:
  """Cuts the sequences of each group into tiles.

  Args:
    group_b: int32 group of each sequence, -1 for none.
    num_groups: Static; m.
    block: Static; sequences per tile.

  Returns:
    `ceil(b / block) + m` tiles, a static bound that ragged groups reach.
  """
  b = group_b.shape[0]
  group_b = group_b.astype(jnp.int32)
  # Sequences without a group go last.
  order_b = jnp.argsort(
    jnp.where(group_b < 0, num_groups, group_b), stable=True
  ).astype(jnp.int32)
  groups = jnp.arange(num_groups, dtype=jnp.int32)
  size_m = (group_b[:, None] == groups).sum(0, dtype=jnp.int32)
  first_m = jnp.cumsum(size_m) - size_m
  tiles_m = -(-size_m // block)
  last_m = jnp.cumsum(tiles_m)
  num_tiles = -(-b // block) + num_groups
  tile = jnp.arange(num_tiles, dtype=jnp.int32)
  group = jnp.searchsorted(last_m, tile, side='right').astype(jnp.int32)
  group = jnp.minimum(group, num_groups - 1)
  nth = tile - (last_m - tiles_m)[group]
  place = nth[:, None] * block + jnp.arange(block, dtype=jnp.int32)
  valid = (place < size_m[group][:, None]) & (tile < last_m[-1])[:, None]
  place = jnp.clip(first_m[group][:, None] + place, 0, b - 1)
  rows = jnp.where(valid, order_b[place], b)
  return GroupTiles(rows, group, last_m[-1].astype(jnp.int32))

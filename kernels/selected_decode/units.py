# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One description for token lists, block lists and page tables.

All three read *units* of consecutive tokens from a pool: tokens are units of
one, blocks and pages of more. Axes: b sequences, u selected units, z tokens of
a unit, r units of the pool, k key heads.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Units:
  """Which units each sequence reads.

  Attributes:
    ids: int32 `[b, k|1, u]`; units of the pool, all valid numbers.
    count: int32 `[b, k|1]`; the first so many units count.
    first: int32 `[b, k|1, u]`; position of each unit's first token.
    limit: int32 `[b, t]`; query row `i` sees positions below its limit.
    cos: `[u * z, h / 2]` or None; rotation of the gathered keys.
    sin: Likewise.
  """

  ids: jax.Array
  count: jax.Array
  first: jax.Array
  limit: jax.Array
  cos: jax.Array | None = None
  sin: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
  """Keys and values in units.

  Attributes:
    k: `[r, z, k, h]`, or `[r, z, 2 k, h]` with interleaved heads if `v` is
      None: row 2 i is key head i, row 2 i + 1 its value.
    v: `[r, z, k, hv]` or None.
  """

  k: jax.Array
  v: jax.Array | None = None

  @property
  def num_kv_heads(self) -> int:
    return self.k.shape[2] // (2 if self.v is None else 1)

  @property
  def value_dim(self) -> int:
    return (self.k if self.v is None else self.v).shape[3]

  @property
  def unit(self) -> int:
    """Tokens per unit."""
    return self.k.shape[1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tail:
  """Keys outside the pool that the queries see too, e.g. a tree of drafts.

  Attributes:
    k: `[b, z, k, h]`; no NaN where nobody looks.
    v: `[b, z, k, hv]`; likewise.
    bits: uint32 `[b, t, ceil(z / 32)]`; bit j of a row is set iff it sees j.
  """

  k: jax.Array
  v: jax.Array
  bits: jax.Array


def is_empty(q_btnh: jax.Array, pool: Pool, units: Units) -> bool:
  """Whether there is no row or no unit to read: no loop over units can run."""
  sizes = (*q_btnh.shape[:3], units.ids.shape[-1], pool.k.shape[0])
  return 0 in sizes or pool.unit == 0


def fetch(pool: Pool, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Reads units.

  Args:
    pool: The pool.
    ids: int32 `[b, k|1, u]`.

  Returns:
    Keys and values `[b, k, u * z, h]`.
  """
  b, heads, u = ids.shape
  k = pool.num_kv_heads
  if heads == 1:
    # Flat units: of others XLA may copy the whole pool to another layout.
    read = lambda x: x.reshape(x.shape[0], -1)[ids[:, 0]].reshape(
      b, u * pool.unit, *x.shape[2:]
    )
    pools = [pool.k] if pool.v is None else [pool.k, pool.v]
    tiles = [read(x).swapaxes(1, 2) for x in pools]
    if pool.v is None:
      return tiles[0][:, 0::2], tiles[0][:, 1::2]
    return tiles[0], tiles[1]
  token = ids[..., None] * pool.unit + jnp.arange(pool.unit, dtype=ids.dtype)
  token = token.reshape(b, k, u * pool.unit)
  row = jnp.arange(k, dtype=ids.dtype)[None, :, None]
  pick = lambda x, head: x.reshape(-1, x.shape[3])[token * x.shape[2] + head]
  if pool.v is None:
    return pick(pool.k, 2 * row), pick(pool.k, 2 * row + 1)
  return pick(pool.k, row), pick(pool.v, row)


def add(pool: Pool, ids: jax.Array, dk: jax.Array, dv: jax.Array) -> Pool:
  """Adds cotangents `[b, k, u * z, h]` of fetched units to the pool's."""
  b, heads, u = ids.shape
  k, z = pool.num_kv_heads, pool.unit
  ids = jnp.broadcast_to(ids, (b, k, u)) if heads == 1 else ids
  row = jnp.arange(k)[None, :, None]
  unit = lambda x: x.reshape(b, k, u, z, -1)
  if pool.v is None:
    both = pool.k.at[ids, :, 2 * row].add(unit(dk))
    return Pool(both.at[ids, :, 2 * row + 1].add(unit(dv)))
  return Pool(
    pool.k.at[ids, :, row].add(unit(dk)), pool.v.at[ids, :, row].add(unit(dv))
  )


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotary embedding, half-split form, of `[..., s, h]` by `[s, h / 2]`."""
  a, b = jnp.split(x.astype(cos.dtype), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
  return turned.astype(x.dtype)

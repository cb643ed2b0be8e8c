# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The cache of a model with two levels: bytes, and units of several bytes.

Every byte has a slot in the caches of the byte level; the cache of the trunk
has one for each unit, and grows only where a unit is added. Which bytes stand
where is kept too, because where units begin and end is a function of them. So a
nested cache is rolled back like any other: by a number of bytes, whose units
are known.

Axes: b rows, s slots of bytes, t new bytes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

from jaxtok.cache import slots


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NestedCache:
  """Caches of the levels, all pure; see `kv.KVCache`.

  Attributes:
    tokens_bs: Tokens so far.
    segment_ids_bs: Their documents, counted from 1; 0 is padding.
    num_units_bs: Units of the trunk up to and including each slot.
    length_b: Tokens appended so far; more than there is room for after an
      overflow.
    local: Caches of the byte level, one per stack: `kv.KVCache`, `SlotCache`.
      One with n times `max_len` slots has n of them for each token.
    trunk: Cache of the trunk, of units; nested itself if the trunk has levels.
    states: What else a model keeps, by name: arrays [b, slots or units, ...].
      Like keys, they are overwritten behind the end.
  """

  tokens_bs: Any
  segment_ids_bs: Any
  num_units_bs: Any
  length_b: Any
  local: tuple[Any, ...]
  trunk: Any
  states: dict[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def empty(
    cls,
    local: tuple[Any, ...],
    trunk: Any,
    states: dict[str, Any] | None = None,
    max_len: int | None = None,
  ) -> 'NestedCache':
    """A cache without tokens around empty caches of the levels.

    Args:
      local: Caches of the byte level.
      trunk: Cache of the trunk.
      states: See `NestedCache`.
      max_len: Slots of bytes; None means those of `local`.
    """
    shape = (local[0].batch_size, max_len or local[0].max_len)
    zeros = lambda: jnp.zeros(shape, jnp.int32)
    length_b = jnp.zeros(shape[0], jnp.int32)
    shared = (zeros(), zeros(), zeros(), length_b)
    return cls(*shared, local, trunk, states or {})

  @property
  def max_len(self) -> int:
    """Slots of bytes per row."""
    return self.tokens_bs.shape[1]

  @property
  def overflow_b(self) -> Bool[Array, 'b']:
    """Rows that lost tokens or units because there was no room."""
    return (self.length_b > self.max_len) | self.trunk.overflow_b

  def reserve(
    self,
    tokens_bt: Int[Array, 'b t'],
    segment_ids_bt: Int[Array, '#b t'] | None = None,
  ) -> tuple['NestedCache', Int[Array, 'b t']]:
    """Writes tokens down; the caches of the levels do not change yet.

    Returns:
      The cache, and the slot of each new token.

    Raises:
      ValueError: If there are more tokens than slots in an empty cache.
    """
    t = tokens_bt.shape[1]
    if t > self.max_len:
      raise ValueError(
        f'{t} tokens do not fit into a cache of max_len={self.max_len}. Make '
        'it longer: init_cache(batch_size, max_len).'
      )
    slots_bt = self.length_b[:, None] + jnp.arange(t)
    if segment_ids_bt is None:
      segment_ids_bt = jnp.ones_like(slots_bt)
    cache = dataclasses.replace(
      self,
      tokens_bs=slots.put(self.tokens_bs, slots_bt, tokens_bt),
      segment_ids_bs=slots.put(self.segment_ids_bs, slots_bt, segment_ids_bt),
      length_b=self.length_b + t,
    )
    return cache, slots_bt

  def add_units(
    self,
    is_unit_bt: Bool[Array, 'b t'],
    slots_bt: Int[Array, 'b t'],
    trunk: Any,
    num: int = 1,
  ) -> 'NestedCache':
    """Takes over the trunk's cache, and which new tokens have a unit in it.

    Args:
      is_unit_bt: Which tokens added units.
      slots_bt: From `reserve`.
      trunk: The longer cache; slots behind the new units are given up.
      num: How many units each of them added; static.
    """
    before_b = self.trunk.length_b
    num_bt = before_b[:, None] + num * jnp.cumsum(is_unit_bt, axis=1)
    trunk = trunk.truncate(num_bt[:, -1].astype(jnp.int32))
    num_units_bs = slots.put(self.num_units_bs, slots_bt, num_bt)
    return dataclasses.replace(self, num_units_bs=num_units_bs, trunk=trunk)

  def put(
    self, name: str, slots_bt: Int[Array, 'b t'], new_bt: Num[Array, 'b t *d']
  ) -> 'NestedCache':
    """Writes states of tokens (or of units) down; see `states`."""
    states = self.states | {
      name: slots.put(self.states[name], slots_bt, new_bt)
    }
    return dataclasses.replace(self, states=states)

  def truncate(self, length_b: Int[Array, 'b'] | int) -> 'NestedCache':
    """Forgets the tokens of each row from `length_b` on, and their units."""
    length_b = jnp.minimum(self.length_b, length_b)
    last_b1 = jnp.clip(length_b - 1, 0, self.max_len - 1)[:, None]
    units_b = jnp.take_along_axis(self.num_units_bs, last_b1, axis=1)[:, 0]
    units_b = jnp.where(length_b > 0, units_b, 0)
    return dataclasses.replace(
      self,
      length_b=length_b,
      local=tuple(
        cache.truncate(length_b * (cache.max_len // self.max_len))
        for cache in self.local
      ),
      trunk=self.trunk.truncate(units_b),
    )

  def gather(self, rows: Int[Array, 'n']) -> 'NestedCache':
    """The given rows, in the given order; a row may come several times."""
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), self)

  def fork(self, num: int) -> 'NestedCache':
    """`num` copies (static) of each row, next to each other."""
    rows = jnp.arange(self.length_b.shape[0])
    return self.gather(jnp.repeat(rows, num))

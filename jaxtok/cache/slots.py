# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A cache of anything that has one entry per token.

For layers with a recurrence: the state at a token follows from what the tokens
before it gave, so these inputs are kept, not the state. It is computed again in
each call, at the cost of a pass over all slots, and the cache can be rolled
back to any length, as one that holds keys and values.

Axes: b rows, s slots, t new tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlotCache:
  """Arrays [b, s, ...] by name, filled from the left.

  Attributes:
    states: The arrays.
    segment_ids_bs: Document of each slot, counted from 1; 0 is padding.
    length_b: Tokens so far; more than there is room for after an overflow.
  """

  states: dict[str, Any]
  segment_ids_bs: Any
  length_b: Any

  @classmethod
  def empty(cls, states: dict[str, Any]) -> 'SlotCache':
    """A cache without tokens; `states` are arrays of zeros."""
    b, max_len = next(iter(states.values())).shape[:2]
    return cls(
      states, jnp.zeros((b, max_len), jnp.int32), jnp.zeros(b, jnp.int32)
    )

  @property
  def batch_size(self) -> int:
    return self.length_b.shape[0]

  @property
  def max_len(self) -> int:
    """Slots per row."""
    return self.segment_ids_bs.shape[1]

  @property
  def overflow_b(self) -> Bool[Array, 'b']:
    """Rows that lost tokens because the cache was full."""
    return self.length_b > self.max_len

  @property
  def documents_bs(self) -> Int[Array, 'b s']:
    """Document of each slot; 0 also behind the end."""
    is_there_bs = jnp.arange(self.max_len) < self.length_b[:, None]
    return jnp.where(is_there_bs, self.segment_ids_bs, 0)

  def reserve(
    self, segment_ids_bt: Int[Array, 'b t']
  ) -> tuple['SlotCache', Int[Array, 'b t']]:
    """Takes the next t slots of each row, for tokens of these documents.

    Returns:
      The cache with longer rows, and the slot of each new token.

    Raises:
      ValueError: If there are more tokens than slots in an empty cache.
    """
    t = segment_ids_bt.shape[1]
    if t > self.max_len:
      raise ValueError(
        f'{t} tokens do not fit into a cache of max_len={self.max_len}. Make '
        'it longer: init_cache(batch_size, max_len).'
      )
    slots_bt = self.length_b[:, None] + jnp.arange(t)
    cache = dataclasses.replace(
      self,
      segment_ids_bs=put(self.segment_ids_bs, slots_bt, segment_ids_bt),
      length_b=self.length_b + t,
    )
    return cache, slots_bt

  def put(
    self, name: str, slots_bt: Int[Array, 'b t'], new_bt: Num[Array, 'b t *d']
  ) -> 'SlotCache':
    """Writes the entries of tokens at reserved slots."""
    states = self.states | {name: put(self.states[name], slots_bt, new_bt)}
    return dataclasses.replace(self, states=states)

  def truncate(self, length_b: Int[Array, 'b'] | int) -> 'SlotCache':
    """Forgets the tokens of each row from `length_b` on."""
    return dataclasses.replace(
      self, length_b=jnp.minimum(self.length_b, length_b)
    )

  def gather(self, rows: Int[Array, 'n']) -> 'SlotCache':
    """The given rows, in the given order; a row may come several times."""
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), self)

  def fork(self, num: int) -> 'SlotCache':
    """`num` copies (static) of each row, next to each other."""
    return self.gather(jnp.repeat(jnp.arange(self.batch_size), num))


def put(x: Array, slots_bt: Array, new_bt: Array) -> Array:
  """Writes `new` at `slots`; what lies beyond the end is dropped."""
  rows_b1 = jnp.arange(x.shape[0])[:, None]
  return x.at[rows_b1, slots_bt].set(new_bt.astype(x.dtype), mode='drop')

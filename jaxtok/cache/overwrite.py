# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A cache whose slots are written again, for models without a causal mask.

A denoiser may see keys and values behind the tokens of a call, so a call does
not append: it writes a window that begins anywhere, and sees all that was ever
written (a mask may hide some of it):

  cache = Overwrite.of(model.init_cache(b, t))
  output = model(tokens_bt, cache=cache.at(0))           # Fills all slots.
  output = model(tokens_bw, cache=output.cache.at(64))   # Slots 64 to 64 + w.

Axes: b rows, s slots, t new tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxtok.cache import kv


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Overwrite(kv.KVCache):
  """Keys and values of all layers, and where the next call writes.

  Attributes:
    start: First slot of the next call, the same in all rows. Slot i holds
      position i.
  """

  start: Any = 0

  @classmethod
  def of(cls, cache: kv.KVCache) -> 'Overwrite':
    """The same content; the next call begins at slot 0."""
    fields = {f.name: getattr(cache, f.name) for f in dataclasses.fields(cache)}
    return cls(**fields | {'start': jnp.int32(0)})

  def at(self, start: Int[Array, ''] | int) -> 'Overwrite':
    """The same content; the next call begins at slot `start`."""
    return dataclasses.replace(self, start=jnp.int32(start))

  def reserve(
    self,
    positions_bt: Int[Array, '#b t'] | None = None,
    segment_ids_bt: Int[Array, '#b t'] | None = None,
    num_tokens: int = 0,
  ) -> tuple['Overwrite', Int[Array, 'b t']]:
    """The slots from `start` on; see `KVCache.reserve`."""
    placed = dataclasses.replace(
      self, length_b=jnp.full_like(self.length_b, self.start)
    )
    cache, slots_bt = kv.KVCache.reserve(
      placed, positions_bt, segment_ids_bt, num_tokens
    )
    length_b = jnp.maximum(cache.length_b, self.length_b)
    return dataclasses.replace(cache, length_b=length_b), slots_bt

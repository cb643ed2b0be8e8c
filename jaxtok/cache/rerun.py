# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the newest tokens of a nested cache again, with new ones behind.

For models in which a new token may change what was decided at the tokens before
it, such as where words begin: what was stored of these is replaced.

  again = rerun.last(cache, tokens_bt, positions_bt, segment_ids_bt, num=3)
  ...                                # The model, with what `again` holds.
  y_btd, cache = again.finish(y_brd, cache)

Axes: b rows, t new tokens, r computed ones, s slots.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtok.cache import nested, slots


@dataclasses.dataclass(frozen=True)
class Again:
  """What to compute.

  Attributes:
    cache: The cache without the tokens that are computed again.
    tokens_br: These, and the new ones; rows with fewer end with padding.
    positions_br: Their positions.
    segment_ids_br: Their documents; 0 is padding.
    place_bt: Where the new tokens are among them.
    length_b: Tokens of the rows in the end.
  """

  cache: nested.NestedCache
  tokens_br: Any
  positions_br: Any
  segment_ids_br: Any
  place_bt: Any
  length_b: Any

  def finish(
    self, y_brd: Float[Array, 'b r d'], cache: nested.NestedCache
  ) -> tuple[Float[Array, 'b t d'], nested.NestedCache]:
    """States of the new tokens, and the cache without padding."""
    y_btd = jnp.take_along_axis(y_brd, self.place_bt[..., None], axis=1)
    cache = dataclasses.replace(cache, length_b=self.length_b).truncate(
      self.length_b
    )
    return y_btd, cache


def last(
  cache: nested.NestedCache,
  tokens_bt: Int[Array, 'b t'],
  positions_bt: Int[Array, '#b t'] | None,
  segment_ids_bt: Int[Array, '#b t'] | None,
  *,
  num: int,
) -> Again:
  """The newest `num` (static) tokens of each row, as far as it has them.

  Args:
    cache: Its first local cache knows positions: a `kv.KVCache`.
    tokens_bt: New tokens.
    positions_bt: Their positions; None counts on from the row's length.
    segment_ids_bt: Their documents; None means 1.
    num: Tokens to compute again.
  """
  t, s = tokens_bt.shape[1], cache.max_len
  old_b = cache.length_b
  written, slots_bt = cache.reserve(tokens_bt, segment_ids_bt)
  if positions_bt is None:
    positions_bt = slots_bt
  positions_bs = slots.put(cache.local[0].positions_bs, slots_bt, positions_bt)
  start_b = jnp.maximum(old_b - num, 0)
  index_br = start_b[:, None] + jnp.arange(min(num + t, s))
  take = lambda x: jnp.take_along_axis(x, jnp.minimum(index_br, s - 1), axis=1)
  is_there_br = (index_br < written.length_b[:, None]) & (index_br < s)
  return Again(
    cache.truncate(start_b),
    jnp.where(is_there_br, take(written.tokens_bs), 0),
    take(positions_bs),
    jnp.where(is_there_br, take(written.segment_ids_bs), 0),
    jnp.minimum(slots_bt - start_b[:, None], index_br.shape[1] - 1),
    written.length_b,
  )

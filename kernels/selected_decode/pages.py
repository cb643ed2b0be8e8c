# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Paged keys and values: what the kernels over pages take."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtok_kernels.selected_decode.units import Pool, Units


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PagedKV:
  """Keys and values in pages of a pool that all sequences share.

  Attributes:
    pages_pzch: `[p, page, 2 k, h]`; row 2 i of a token is key head i, 2 i + 1
      its value.
    page_table_bu: int32, pages of each sequence in order; entries past its end
      must be valid page numbers (e.g. 0).
  """

  pages_pzch: jax.Array
  page_table_bu: jax.Array

  @property
  def pool(self) -> Pool:
    return Pool(self.pages_pzch)

  def units(self, length_b: jax.Array, num_queries: int) -> Units:
    """All pages of each sequence, in order.

    Args:
      length_b: int32, tokens of each sequence, the newest included.
      num_queries: Static; newest tokens t. Query `i` sees the positions below
        `length - t + 1 + i`.
    """
    page = self.pages_pzch.shape[1]
    length = length_b.astype(jnp.int32)[:, None]
    table = self.page_table_bu.astype(jnp.int32)
    first = jnp.arange(table.shape[1], dtype=jnp.int32) * page
    row = jnp.arange(num_queries, dtype=jnp.int32)
    return Units(
      ids=table[:, None],
      count=-(-length // max(page, 1)),
      first=jnp.broadcast_to(first, table.shape)[:, None],
      limit=length - (num_queries - 1) + row,
    )

  def contiguous(self) -> tuple[jax.Array, jax.Array]:
    """Copies the pages: keys and values `[b, u * page, k, h]`."""
    rows = self.pages_pzch[self.page_table_bu]
    b, u, page = rows.shape[:3]
    rows = rows.reshape(b, u * page, *rows.shape[3:])
    return rows[:, :, 0::2], rows[:, :, 1::2]

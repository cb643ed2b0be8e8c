# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Puts contiguous caches into shuffled pages."""

import jax.numpy as jnp
import numpy as np
from jaxtok_kernels import PagedKV


def in_pages(k_bskh, v_bskh, length_b, page: int, fill=np.nan) -> PagedKV:
  """The first `length` tokens of each sequence; `fill` everywhere else.

  Args:
    k_bskh: Keys.
    v_bskh: Values.
    length_b: Tokens of each sequence.
    page: Tokens per page.
    fill: What unused rows of pages hold.
  """
  b, s, k, h = k_bskh.shape
  u = -(-s // page)
  rows = np.full((b, u * page, 2 * k, h), fill, k_bskh.dtype)
  for i, size in enumerate(np.minimum(length_b, s)):
    rows[i, :size, 0::2] = k_bskh[i, :size]
    rows[i, :size, 1::2] = v_bskh[i, :size]
  table = np.random.default_rng(0).permutation(b * u + 1)[: b * u]
  pages = np.full((b * u + 1, page, 2 * k, h), fill, k_bskh.dtype)
  pages[table] = rows.reshape(b * u, page, 2 * k, h)
  return PagedKV(
    jnp.asarray(pages), jnp.asarray(table.reshape(b, u), jnp.int32)
  )

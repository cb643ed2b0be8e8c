# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tree attention with dense masks."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import reference
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode.units import Pool, Tail, Units
from jaxtok_kernels.state import AttentionState, merge


def tree_attention(
  q_bgnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  cache_len_b: jax.Array,
  valid_bg: jax.Array,
  tail: Tail,
  options: Options,
) -> AttentionState:
  """The cache by length, the drafts by bits; see the public function."""
  attend = lambda k, v, mask: reference.flash_attention(
    q_bgnh, k, v, mask=mask, scale=options.scale, softcap=options.softcap
  )
  context = attend(k_bskh, v_bskh, context_mask(cache_len_b, valid_bg))
  return merge([context, attend(tail.k, tail.v, masks.tree(tail.bits))])


def paged_tree_attention(
  q_bgnh: jax.Array, context: tuple[Pool, Units], tail: Tail, options: Options
) -> AttentionState:
  """Puts the pages of each sequence side by side first."""
  pool, units = context
  b, u = units.ids.shape[0], units.ids.shape[2]
  pages = pool.k[units.ids[:, 0]]
  flat = pages.reshape(b, u * pool.unit, *pages.shape[3:])
  valid_bg = units.limit > 0
  return tree_attention(
    q_bgnh,
    flat[:, :, 0::2],
    flat[:, :, 1::2],
    units.limit.max(1),
    valid_bg,
    tail,
    options,
  )


def context_mask(cache_len_b: jax.Array, valid_bg: jax.Array) -> masks.MaskSpec:
  """Valid drafts see the whole cache, others nothing."""
  end_bg = jnp.where(valid_bg, cache_len_b.astype(jnp.int32)[:, None], 0)
  rows = jnp.stack([jnp.zeros_like(end_bg), end_bg], -1)
  return masks.from_intervals(rows[:, :, None])

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tree attention with dense masks."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import reference
from jaxtok_kernels.state import AttentionState, merge


def tree_attention(
  q_bgnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  cache_len_b: jax.Array,
  k_new_bgkh: jax.Array,
  v_new_bgkh: jax.Array,
  bits: jax.Array,
  valid_bg: jax.Array,
  *,
  scale: float,
  softcap: float | None,
) -> AttentionState:
  """The cache by length, the drafts by bits; see the public function."""
  attend = lambda k, v, mask: reference.flash_attention(
    q_bgnh, k, v, mask=mask, scale=scale, softcap=softcap
  )
  context = attend(k_bskh, v_bskh, context_mask(cache_len_b, valid_bg))
  drafts = attend(k_new_bgkh, v_new_bgkh, masks.tree(bits))
  return merge([context, drafts])


def context_mask(cache_len_b: jax.Array, valid_bg: jax.Array) -> masks.MaskSpec:
  """Valid drafts see the whole cache, others nothing."""
  end_bg = jnp.where(valid_bg, cache_len_b.astype(jnp.int32)[:, None], 0)
  rows = jnp.stack([jnp.zeros_like(end_bg), end_bg], -1)
  return masks.from_intervals(rows[:, :, None])

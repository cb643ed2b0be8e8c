# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention over prefixes and suffix, each sequence with its own copy."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import reference
from jaxtok_kernels.prefix_attention.levels import PrefixLevel
from jaxtok_kernels.selected_decode.pages import PagedKV
from jaxtok_kernels.state import AttentionState, merge


def shared_prefix_attention(
  q_btnh: jax.Array,
  levels: tuple[PrefixLevel, ...],
  suffix: tuple[jax.Array, jax.Array] | PagedKV,
  suffix_len_b: jax.Array,
  *,
  scale: float,
  softcap: float | None = None,
) -> AttentionState:
  """Copies each prefix and page to its sequences, attends densely, merges."""
  if isinstance(suffix, PagedKV):
    suffix = suffix.contiguous()
  b, t = q_btnh.shape[:2]
  attend = lambda k, v, mask: reference.flash_attention(
    q_btnh, k, v, mask=mask, scale=scale, softcap=softcap
  )
  states = [attend(*suffix, masks.lengths(suffix_len_b, t))]
  for level in levels:
    group = jnp.maximum(level.group_b, 0)
    length_b = jnp.where(level.group_b < 0, 0, level.length_m[group])
    end_bt = jnp.broadcast_to(length_b[:, None], (b, t))
    rows = jnp.stack([jnp.zeros_like(end_bt), end_bt], -1)[:, :, None]
    mask = masks.from_intervals(rows)
    states.append(attend(level.k_mpkh[group], level.v_mpkh[group], mask))
  return merge(states)

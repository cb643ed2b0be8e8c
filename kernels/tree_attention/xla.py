# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tree attention in two parts that are merged: the cache and the drafts."""

import jax
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import packing
from jaxtok_kernels.flash_attention.api import flash_attention
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode import xla
from jaxtok_kernels.selected_decode.units import Pool, Tail, Units
from jaxtok_kernels.state import AttentionState, merge
from jaxtok_kernels.tree_attention.reference import context_mask


def tree_attention(
  q_bgnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  cache_len_b: jax.Array,
  valid_bg: jax.Array,
  tail: Tail,
  options: Options,
) -> AttentionState:
  """The query heads of a group are rows of one matmul over the cache."""
  g, n, k = q_bgnh.shape[1], q_bgnh.shape[2], k_bskh.shape[2]
  mask = context_mask(cache_len_b, valid_bg)
  context = _attend(
    packing.pack(q_bgnh, k),
    k_bskh,
    v_bskh,
    packing.pack_mask(mask, n // k),
    options,
  )
  return merge([packing.unpack(context, g), _drafts(q_bgnh, tail, options)])


def paged_tree_attention(
  q_bgnh: jax.Array, context: tuple[Pool, Units], tail: Tail, options: Options
) -> AttentionState:
  """The same over pages."""
  cached = xla.forward(q_bgnh, *context, options)
  return merge([cached, _drafts(q_bgnh, tail, options)])


def _drafts(q_bgnh, tail: Tail, options: Options) -> AttentionState:
  return _attend(q_bgnh, tail.k, tail.v, masks.tree(tail.bits), options)


def _attend(q, k, v, mask, options: Options) -> AttentionState:
  return flash_attention(
    q,
    k,
    v,
    mask=mask,
    scale=options.scale,
    softcap=options.softcap,
    return_state=True,
    implementation='xla',
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention kernels for TPU, GPU and CPU; needs jax and numpy only."""

from jaxtok_kernels import masks
from jaxtok_kernels.cache_write import (
  compact_kv,
  ring_slots,
  ring_write,
  write_kv,
  write_rows,
)
from jaxtok_kernels.dispatch import (
  interpret_mode,
  last_dispatch,
  lowering_platforms,
)
from jaxtok_kernels.flash_attention import flash_attention
from jaxtok_kernels.linear_attention import LinearState, linear_attention
from jaxtok_kernels.masks import BlockLists, MaskSpec
from jaxtok_kernels.prefix_attention import (
  PrefixLevel,
  shared_prefix_attention,
)
from jaxtok_kernels.ring_attention import ring_attention, sharded_order
from jaxtok_kernels.score_topk import (
  block_scores,
  column_sums,
  decode_scores,
  group_max,
  head_mean,
  soft_vote,
  topk_threshold,
)
from jaxtok_kernels.selected_decode import (
  PagedKV,
  block_decode,
  gather_decode,
  paged_decode,
)
from jaxtok_kernels.state import AttentionState, merge
from jaxtok_kernels.tree_attention import (
  ancestor_bits,
  paged_tree_attention,
  tree_attention,
)

__all__ = [
  'AttentionState',
  'BlockLists',
  'LinearState',
  'MaskSpec',
  'PagedKV',
  'PrefixLevel',
  'ancestor_bits',
  'block_decode',
  'block_scores',
  'column_sums',
  'compact_kv',
  'decode_scores',
  'flash_attention',
  'gather_decode',
  'group_max',
  'head_mean',
  'interpret_mode',
  'last_dispatch',
  'linear_attention',
  'lowering_platforms',
  'masks',
  'merge',
  'paged_decode',
  'paged_tree_attention',
  'ring_attention',
  'ring_slots',
  'ring_write',
  'sharded_order',
  'shared_prefix_attention',
  'soft_vote',
  'topk_threshold',
  'tree_attention',
  'write_kv',
  'write_rows',
]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention kernels for TPU, GPU and CPU; needs jax and numpy only."""

from jaxtok_kernels import masks
from jaxtok_kernels.dispatch import (
  interpret_mode,
  last_dispatch,
  lowering_platforms,
)
from jaxtok_kernels.flash_attention import flash_attention
from jaxtok_kernels.masks import BlockLists, MaskSpec
from jaxtok_kernels.prefix_attention import (
  PrefixLevel,
  shared_prefix_attention,
)
from jaxtok_kernels.state import AttentionState, merge

__all__ = [
  'AttentionState',
  'BlockLists',
  'MaskSpec',
  'PrefixLevel',
  'flash_attention',
  'interpret_mode',
  'last_dispatch',
  'lowering_platforms',
  'masks',
  'merge',
  'shared_prefix_attention',
]

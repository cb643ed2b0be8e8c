# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention of a tree of drafts over a cache and over its own ancestors."""

from jaxtok_kernels.tree_attention.api import (
  ancestor_bits,
  paged_tree_attention,
  tree_attention,
)

__all__ = ['ancestor_bits', 'paged_tree_attention', 'tree_attention']

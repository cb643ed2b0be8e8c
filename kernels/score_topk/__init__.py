# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of cached tokens and the selection of the highest."""

from jaxtok_kernels.score_topk.api import (
  block_scores,
  column_sums,
  decode_scores,
  group_max,
  head_mean,
  soft_vote,
  topk_threshold,
)

__all__ = [
  'block_scores',
  'column_sums',
  'decode_scores',
  'group_max',
  'head_mean',
  'soft_vote',
  'topk_threshold',
]

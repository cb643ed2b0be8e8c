# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of tree attention."""

from jaxtok_kernels.hardware import Work


def forward(
  *,
  cache_lens: list[int],
  drafts: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  itemsize: int = 2,
) -> Work:
  """Work of one call.

  Args:
    cache_lens: Cached tokens of each sequence.
    drafts: Nodes of each tree.
    num_heads: Query heads.
    num_kv_heads: Key heads.
    head_dim: Width of a head.
    itemsize: Bytes per element.
  """
  b = len(cache_lens)
  pairs = sum((s + drafts) * drafts for s in cache_lens)
  keys = 2 * num_kv_heads * head_dim * itemsize * (sum(cache_lens) + b * drafts)
  queries = b * drafts * num_heads * (2 * head_dim * itemsize + 4)
  return Work(
    flops=4.0 * num_heads * head_dim * pairs,
    num_bytes=float(keys + queries),
    exps=float(num_heads * pairs),
  )

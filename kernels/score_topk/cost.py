# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of scores and selections."""

from jaxtok_kernels.hardware import Work


def column_sums(
  *,
  pairs: int,
  b: int,
  t: int,
  s: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  itemsize: int = 2,
) -> Work:
  """Work of `column_sums`: one of the two matmuls of attention."""
  rows = b * t * num_heads * (head_dim * itemsize + 8)
  keys = b * s * num_kv_heads * head_dim * itemsize
  return Work(
    flops=2.0 * num_heads * head_dim * pairs,
    num_bytes=float(rows + keys + 4 * b * s * num_kv_heads),
    exps=float(num_heads * pairs),
  )


def topk_threshold(*, rows: int, size: int, k: int) -> Work:
  """Work of `topk_threshold`: one read; the passes stay on chip."""
  return Work(flops=0.0, num_bytes=4.0 * rows * (size + k))

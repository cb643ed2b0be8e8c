# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of scores and selections."""

from typing import Any

from jaxtok_kernels import tuning
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


def decode_scores(
  *,
  b: int,
  s: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  itemsize: int = 2,
) -> Work:
  """Work of `decode_scores`: one read of the keys, one write of the scores."""
  keys = b * s * num_kv_heads * head_dim * itemsize
  return Work(
    flops=2.0 * b * num_heads * head_dim * s,
    num_bytes=float(keys + 4 * b * num_heads * s),
    exps=float(b * num_heads * s),
  )


def soft_vote(*, b: int, s: int, num_heads: int) -> Work:
  """Work of `soft_vote`: the scores once for the sums, once for the votes."""
  scores = b * num_heads * s
  return Work(
    flops=0.0, num_bytes=4.0 * (2 * scores + b * s), exps=2.0 * scores
  )


# Keys, scores per head, or entries at a time; never timed.
TILES = {
  'decode_scores': {'tpu': {'tile': 512}, 'triton': {'tile': 128}},
  'soft_vote': {'tpu': {'tile': 2048}, 'triton': {'tile': 512}},
  'topk_threshold': {'triton': {'tile': 2048}},
}


def tile(kernel: str, implementation: str, dtype: Any, **sizes: int) -> int:
  """Tile size of a call, measured or from `TILES`."""
  default = TILES[kernel][implementation]
  found = tuning.config(kernel, implementation, dtype, sizes, default)
  return found['tile']

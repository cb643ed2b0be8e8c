# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of chunked linear attention."""

from jaxtok_kernels.hardware import Work
from jaxtok_kernels.linear_attention.features import feature_dim


def forward(
  *,
  b: int,
  t: int,
  num_heads: int,
  head_dim: int,
  value_dim: int,
  feature: str = 'taylor2',
  chunk: int = 128,
  itemsize: int = 2,
) -> Work:
  """Work of the forward pass.

  Args:
    b: Sequences.
    t: Tokens per sequence.
    num_heads: Heads.
    head_dim: Width of queries and keys.
    value_dim: Width of values.
    feature: The feature map.
    chunk: Tokens per chunk.
    itemsize: Bytes per element of the operands.
  """
  features = feature_dim(feature, head_dim)
  # Inside a chunk half of the pairs are visible; the state is read and written.
  inside = chunk * (head_dim + value_dim + 1)
  between = 4 * features * (value_dim + 1)
  tokens = b * t * num_heads
  return Work(
    flops=float(tokens * (inside + between)),
    num_bytes=float(tokens * (2 * head_dim + 2 * value_dim) * itemsize),
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of chunked linear attention, and tile sizes."""

from typing import Any

from jaxtok_kernels.hardware import Work
from jaxtok_kernels.linear_attention.features import feature_dim


def tpu_chunks(t: int, by_feature: bool) -> tuple[int, int]:
  """Tokens per chunk and chunks per block of the TPU kernel.

  Args:
    t: Tokens of a sequence.
    by_feature: Whether there is a decay per feature, which is exponentiated
      over a whole chunk and so needs a short one.
  """
  chunk, most = (16, 16) if by_feature else (128, 4)
  if t <= chunk:
    return -(-t // 16) * 16, 1
  number = min(most, -(-t // chunk))
  # Lengths of several blocks are whole tiles of lanes.
  return chunk, number if number == most else -(-t // chunk)


def triton_chunk(by_feature: bool) -> int:
  """Tokens per chunk of the Triton kernels; never timed."""
  return 16 if by_feature else 32


def heads_per_group(n: int, h: int, e: int) -> int:
  """Heads that lie side by side in whole tiles of 128 lanes, else all."""
  for heads in range(1, n):
    if n % heads == 0 and heads * h % 128 == 0 and heads * e % 128 == 0:
      if heads % 8 == 0:
        return heads
  return n


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


def backward(**sizes: Any) -> Work:
  """Work of the backward pass alone, sizes as in `forward`.

  The gradients take twice the products of the forward pass, the recomputation
  once as many; q, k, v are read again and their cotangents written.
  """
  once = forward(**sizes)
  return Work(flops=3 * once.flops, num_bytes=2.5 * once.num_bytes)

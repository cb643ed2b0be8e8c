# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of chunked linear attention, and tile sizes."""

from typing import Any

from jaxtok_kernels.hardware import Work
from jaxtok_kernels.linear_attention.features import feature_dim


def tpu(by_feature: bool) -> dict[str, int]:
  """Tokens per chunk and chunks per block of the TPU kernel.

  A decay per feature is exponentiated over a whole chunk: it needs a short one.
  """
  return (
    {'chunk': 16, 'chunks': 8} if by_feature else {'chunk': 128, 'chunks': 4}
  )


def tpu_vmem(
  config: dict[str, int],
  *,
  heads: int,
  h: int,
  e: int,
  features: int,
  itemsize: int = 2,
) -> int:
  """Bytes of the TPU backward kernel, the larger one."""
  rows, wide = config['chunk'] * config['chunks'], -(-features // 128) * 128
  state = 4 * heads * (-(-(e + 1) // 8) * 8) * wide
  blocks = 2 * rows * heads * (4 * h + 3 * e) * itemsize
  return (config['chunks'] + 1) * state + 6 * state + blocks


def tpu_chunks(t: int, config: dict[str, int]) -> tuple[int, int]:
  """Tokens per chunk and chunks per block for a sequence of length t."""
  chunk, most = config['chunk'], config['chunks']
  if t <= chunk:
    return -(-t // 16) * 16, 1
  number = min(most, -(-t // chunk))
  # Lengths of several blocks are whole tiles of lanes.
  return chunk, number if number == most else -(-t // chunk)


def triton(by_feature: bool) -> dict[str, int]:
  """Tokens per chunk and warps of the Triton kernels.

  Without a decay the fastest on an H200, where 32 take 28 times as long.
  """
  return {'chunk': 16 if by_feature else 128, 'num_warps': 8}


def segments(programs: int, chunks: int, processors: int = 132) -> int:
  """Segments of a sequence that the Triton kernel walks side by side.

  Finding the state before each segment costs half of the work again, so only
  few programs are worth it: then the fewest segments that give each processor
  of the GPU a program, of at least 16 chunks each.

  Args:
    programs: Programs without cutting.
    chunks: Of the sequence; segments divide them.
    processors: Of the GPU; the default is that of an H100 and an H200.
  """
  if 2 * programs >= processors:
    return 1
  fits = [
    x for x in (1, 2, 4, 8, 16, 32) if chunks % x == 0 and chunks >= 16 * x
  ] or [1]
  enough = [x for x in fits if programs * x >= processors]
  return enough[0] if enough else fits[-1]


def heads_per_group(n: int, h: int, e: int) -> int:
  """Heads that lie side by side in whole tiles of 128 lanes, else all."""
  for heads in range(1, n):
    whole = heads * h % 128 == 0 and heads * e % 128 == 0
    if n % heads == 0 and heads % 8 == 0 and whole:
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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of flash attention and its tile sizes."""

import dataclasses
import math

from jaxtok_kernels.hardware import Work


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Static tile sizes: queries and keys per tile."""

  block_q: int
  block_kv: int


def forward(
  *,
  pairs: int,
  b: int,
  t: int,
  s: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  value_dim: int = 0,
  itemsize: int = 2,
) -> Work:
  """Work of the forward pass.

  Args:
    pairs: Visible (query, key) pairs of one head over the batch, from
      `MaskSpec.pairs`.
    b: Batch size.
    t: Queries per sequence.
    s: Keys per sequence.
    num_heads: Query heads.
    num_kv_heads: Key heads.
    head_dim: Width of queries and keys.
    value_dim: Width of values; 0 means `head_dim`.
    itemsize: Bytes per element of the operands.
  """
  value_dim = value_dim or head_dim
  width = head_dim + value_dim
  rows = b * t * num_heads * (width * itemsize + 4)
  keys = b * s * num_kv_heads * width * itemsize
  return Work(
    flops=2.0 * num_heads * width * pairs,
    num_bytes=float(rows + keys),
    exps=float(num_heads * pairs),
  )


def backward(*, num_matmuls: int = 5, **sizes) -> Work:
  """Work of the backward pass.

  Args:
    num_matmuls: Matmuls over the pairs: 5 if dq, dk and dv come from one
      kernel, 7 if split.
    **sizes: As for `forward`.
  """
  once = forward(**sizes)
  # Reads q, k, v, out, dout and writes dq, dk, dv: about twice the forward.
  return Work(once.flops * num_matmuls / 2, once.num_bytes * 2, once.exps)


# Elements of one CPU score tile (all heads): 4 MiB in float32, so that the
# passes over it hit the cache.
_CPU_TILE = 2**20


def xla_tiles(t: int, s: int) -> Tiles:
  """Tiles of the blockwise XLA form, balanced so that padding is small."""
  block_q = _balanced(t, 256)
  # With few queries a tile is cheap, so it may take more keys.
  return Tiles(block_q, _balanced(s, 256 if block_q >= 128 else 1024))


def xla_batch(b: int, num_heads: int, tiles: Tiles, devices: int) -> int:
  """Batch elements per step of the XLA form on CPU; divides `b`."""
  tile = num_heads * tiles.block_q * tiles.block_kv
  most = max(1, _CPU_TILE // tile) * devices
  return max(c for c in range(1, b + 1) if b % c == 0 and c <= most)


def _balanced(size: int, most: int) -> int:
  """Tile size <= `most` that splits `size` evenly, up to a multiple of 8."""
  if size <= most:
    return max(size, 1)
  num = math.ceil(size / most)
  return math.ceil(math.ceil(size / num) / 8) * 8

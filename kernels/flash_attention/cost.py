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


@dataclasses.dataclass(frozen=True)
class TpuTiles(Tiles):
  """Static tile sizes of the TPU kernels.

  Attributes:
    block_compute: Keys per step inside a tile; divides `block_kv`.
  """

  block_compute: int = 0


def tpu_tiles(t: int, s: int, head_dim: int, group: int) -> TpuTiles:
  """Tiles of the TPU forward kernel: 512 rows (query heads times queries)."""
  return _tpu_tiles(t, s, 512 if head_dim <= 128 else 256, 1024, group)


def tpu_backward_tiles(t: int, s: int, head_dim: int, group: int) -> TpuTiles:
  """Tiles of the TPU backward kernels, which unroll over heads of a group."""
  return _tpu_tiles(t, s, 512 if head_dim <= 128 else 256, 512, group)


def _tpu_tiles(t: int, s: int, rows: int, keys: int, group: int) -> TpuTiles:
  block_q = _multiple(min(t, max(rows // group, 128)), 128 if t > 128 else 16)
  block_kv = _multiple(min(s, keys), 128)
  compute = 512 if block_kv % 512 == 0 else 128
  return TpuTiles(block_q, block_kv, compute)


@dataclasses.dataclass(frozen=True)
class TritonTiles(Tiles):
  """Static tile sizes of the Triton kernels, and their launch."""

  num_warps: int = 4
  num_stages: int = 2


def triton_tiles(t: int, head_dim: int, itemsize: int) -> TritonTiles:
  """Tiles of the Triton forward kernel; in bfloat16 the fastest on an H200."""
  if t <= 32:
    return TritonTiles(16 if t <= 16 else 32, 64 // max(1, itemsize // 2), 4, 2)
  if itemsize > 2:
    return TritonTiles(64, 32, 8 if head_dim > 128 else 4, 2)
  if head_dim > 128:
    return TritonTiles(128, 64, 8, 2)
  return (
    TritonTiles(128, 128, 4, 3)
    if head_dim <= 64
    else TritonTiles(128, 64, 4, 2)
  )


def triton_backward_tiles(head_dim: int, itemsize: int) -> TritonTiles:
  """Tiles of the Triton backward kernels; the fastest on an H200 up to 128."""
  if head_dim > 128 or itemsize > 2:
    return TritonTiles(32, 32, 8 if head_dim > 128 else 4, 1)
  return TritonTiles(128 if head_dim <= 64 else 64, 64, 4, 2)


@dataclasses.dataclass(frozen=True)
class MosaicTiles:
  """Static tile sizes of the Mosaic GPU kernel: 64 query rows per warpgroup."""

  block_kv: int
  num_stages: int


def mosaic_tiles(head_dim: int) -> MosaicTiles:
  """Tiles that fit 227 KiB of shared memory; the fastest on an H200."""
  if head_dim > 128:
    return MosaicTiles(64, 2)
  return MosaicTiles(128, 3 if head_dim <= 64 else 2)


def _multiple(size: int, of: int) -> int:
  return -(-size // of) * of


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

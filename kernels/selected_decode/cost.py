# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of decoding over selected tokens, and tile sizes."""

from jaxtok_kernels.hardware import Work


def units_per_step(num_units: int, unit: int, tokens: int = 512) -> int:
  """Units that the XLA form gathers at once."""
  return max(1, min(num_units, tokens // unit))


# Tokens that the TPU kernel fetches at once: lanes of one score tile.
TPU = {'tokens': 128}


def tpu_vmem(
  config: dict[str, int], *, k: int, h: int, rows: int, itemsize: int = 2
) -> int:
  """Bytes of the TPU kernel's buffers, accumulators and blocks."""
  pool = 2 * config['tokens'] * 2 * k * h * itemsize
  blocks = 2 * k * rows * (h * (itemsize + 4) + 4 * 128)
  return pool + blocks + k * rows * 4 * (h + 2 * 128)


def row_tile(num_rows: int, least: int, most: int = 256) -> int:
  """Query rows (t g) per program: a power of two."""
  return min(most, max(least, 1 << (num_rows - 1).bit_length()))


def triton(itemsize: int, num_rows: int) -> dict[str, int]:
  """Tokens that the Triton kernel gathers at once, and warps.

  For up to 32 rows in bfloat16 the fastest on an H200 for pages and blocks (for
  token lists the differences were below the noise); others never timed.
  """
  return {
    'block': 32 if itemsize > 2 else 64,
    'num_warps': 2 if num_rows <= 32 else 8,
    'least': 512,
  }


def splits(tokens: int, programs: int, least: int) -> int:
  """Parts of each list: enough for two programs per SM of an H200.

  Args:
    tokens: Tokens of a list.
    programs: Programs without splitting.
    least: Tokens that a part should have.
  """
  wanted = -(-264 // programs)
  return max(1, min(wanted, tokens // least, 16))


def forward(
  *,
  tokens_read: int,
  b: int,
  t: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  list_entries: int = 0,
  itemsize: int = 2,
) -> Work:
  """Work of one call.

  Args:
    tokens_read: Selected tokens, summed over the batch.
    b: Sequences.
    t: Queries per sequence.
    num_heads: Query heads.
    num_kv_heads: Key heads.
    head_dim: Width of a head.
    list_entries: Entries of the selection lists, 4 bytes each.
    itemsize: Bytes per element of the cache.
  """
  pairs = t * tokens_read
  queries = b * t * num_heads * (2 * head_dim * itemsize + 4)
  keys = 2 * num_kv_heads * head_dim * itemsize * tokens_read
  return Work(
    flops=4.0 * num_heads * head_dim * pairs,
    num_bytes=float(keys + queries + 4 * list_entries),
    exps=float(num_heads * pairs),
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of decoding over selected tokens, and tile sizes."""

from jaxtok_kernels.hardware import Work


def units_per_step(num_units: int, unit: int, tokens: int = 512) -> int:
  """Units that the XLA form gathers at once."""
  return max(1, min(num_units, tokens // unit))


def tpu_units_per_step(unit: int, tokens: int = 128) -> int:
  """Units that the TPU kernel fetches at once: lanes of one score tile."""
  return max(1, tokens // unit)


def row_tile(num_rows: int, least: int, most: int = 256) -> int:
  """Query rows (t g) per program: a power of two."""
  return min(most, max(least, 1 << (num_rows - 1).bit_length()))


def triton_block(itemsize: int) -> int:
  """Tokens that the Triton kernel gathers at once; never timed."""
  return 32 if itemsize > 2 else 64


def splits(tokens: int, programs: int, least: int = 512) -> int:
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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of cache writes, and tile sizes."""

from jaxtok_kernels.hardware import Work


def tokens_per_step() -> int:
  """New tokens in VMEM at once on TPU."""
  return 128


def triton_columns() -> int:
  """Elements that a Triton program copies; never timed."""
  return 1024


def write(
  *, tokens: int, num_kv_heads: int, head_dim: int, itemsize: int = 2
) -> Work:
  """Work of a write in place, keys and values: new tokens read and written."""
  return Work(0.0, float(4 * tokens * num_kv_heads * head_dim * itemsize))

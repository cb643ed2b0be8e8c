# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bytes that ring attention sends, and the strategy with the fewest."""

import math

from jaxtok_kernels.hardware import CHIPS

STRATEGIES = ('kv', 'kv_bidir', 'token')


def step_bytes(
  strategy: str,
  *,
  b: int,
  t: int,
  s: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  value_dim: int = 0,
  itemsize: int = 2,
) -> int:
  """Bytes of keys, values, queries and states sent per step and direction.

  Positions and row intervals (a few int32 per token) are not counted.

  Args:
    strategy: One of `STRATEGIES`.
    b: Batch size.
    t: Queries per device.
    s: Keys per device.
    num_heads: Query heads.
    num_kv_heads: Key heads.
    head_dim: Width of queries and keys.
    value_dim: Width of values; 0 means `head_dim`.
    itemsize: Bytes per element of q, k and v. States travel in float32.
  """
  value_dim = value_dim or head_dim
  if strategy == 'token':
    state = 4 * (value_dim + 1)
    return b * t * num_heads * (head_dim * itemsize + state)
  kv = b * s * num_kv_heads * (head_dim + value_dim) * itemsize
  return kv // 2 if strategy == 'kv_bidir' else kv


def cheapest(**sizes) -> str:
  """The strategy that sends the fewest bytes per direction."""
  return min(STRATEGIES, key=lambda x: step_bytes(x, **sizes))


def least_local_tokens(
  chip: str, *, num_heads: int, num_kv_heads: int, itemsize: int = 2
) -> int:
  """Tokens per device from which 'kv' hides its communication.

  For a full mask at peak FLOP/s over one link; a causal mask in a balanced
  layout needs twice as many, 'kv_bidir' half.

  Args:
    chip: A key of `hardware.CHIPS`.
    num_heads: Query heads.
    num_kv_heads: Key heads.
    itemsize: Bytes per element.
  """
  rates = CHIPS[chip]
  ratio = num_kv_heads * itemsize / (2 * num_heads)
  return math.ceil(rates.flops * ratio / rates.link)

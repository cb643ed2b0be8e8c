# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Query heads of a group as rows, for calls with few queries.

Decoding has one or a few queries per sequence. As rows of one matmul the g
query heads of a key head fill its tile, and keys are read once per group.
"""

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.state import AttentionState


def pack(q_btnh: jax.Array, num_kv_heads: int) -> jax.Array:
  """`[b, t, n, h]` to `[b, t * g, k, h]`."""
  b, t, n, h = q_btnh.shape
  x = q_btnh.reshape(b, t, num_kv_heads, n // num_kv_heads, h)
  return x.swapaxes(2, 3).reshape(b, -1, num_kv_heads, h)


def pack_state(
  state: AttentionState | None, num_kv_heads: int
) -> AttentionState | None:
  """State of packed queries; `unpack` undoes it."""
  if state is None:
    return None
  lse = pack(state.lse[..., None], num_kv_heads)[..., 0]
  return AttentionState(pack(state.out, num_kv_heads), lse)


def unpack(state: AttentionState, t: int) -> AttentionState:
  """State of packed queries back to `[b, t, n, h]`."""
  b, rows, k, h = state.out.shape
  out = state.out.reshape(b, t, rows // t, k, h).swapaxes(2, 3)
  lse = state.lse.reshape(b, t, rows // t, k).swapaxes(2, 3)
  return AttentionState(out.reshape(b, t, -1, h), lse.reshape(b, t, -1))


def pack_mask(mask: masks.MaskSpec, group: int) -> masks.MaskSpec:
  """Repeats the intervals of each row for the heads of its group."""
  return masks.from_intervals(jnp.repeat(mask.intervals, group, axis=1))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ring attention without a ring: every device gathers all keys."""

import jax
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import reference
from jaxtok_kernels.state import AttentionState


def ring_attention(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  rows_bti2: jax.Array,
  pos_bs: jax.Array,
  sink_n: jax.Array | None,
  *,
  axis_name: str,
  scale: float,
  softcap: float | None,
) -> AttentionState:
  """Dense attention of the local queries over the gathered keys.

  Args:
    q_btnh: Local queries.
    k_bskh: Local keys.
    v_bskh: Local values.
    rows_bti2: Key positions that each local row sees.
    pos_bs: Positions of the local keys.
    sink_n: Logit per head, or None.
    axis_name: Static; mesh axis of the devices.
    scale: Factor on `q.k`.
    softcap: Static; bound on the scores, None for none.
  """
  gather = lambda x: jax.lax.all_gather(x, axis_name, axis=1, tiled=True)
  mask = masks.MaskSpec(intervals=rows_bti2, kv_pos=gather(pos_bs))
  return reference.flash_attention(
    q_btnh,
    gather(k_bskh),
    gather(v_bskh),
    mask=mask,
    scale=scale,
    softcap=softcap,
    sink_n=sink_n,
  )

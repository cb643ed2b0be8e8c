# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention kernels on several devices.

XLA cannot split a kernel over devices by itself, so each device is told its
part: rows of the batch over the mesh axes of 'batch', heads over those of
'heads' (see `jaxtok.partition`).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import jaxtok_kernels
from jax.sharding import PartitionSpec
from jaxtok_kernels import AttentionState
from jaxtyping import Array, Float

from jaxtok import partition


def attention(
  q_btnh: Float[Array, 'b t n h'],
  k_bskh: Float[Array, 'b s k h'],
  v_bskh: Float[Array, 'b s k hv'],
  *,
  mask: jaxtok_kernels.MaskSpec,
  bias: Float[Array, '#b #n t s'] | None,
  sink_n: Float[Array, 'n'] | None,
  **options: Any,
) -> Float[Array, 'b t n hv'] | AttentionState:
  """`jaxtok_kernels.flash_attention`, split over the devices of the mesh.

  An axis that does not divide by its devices is not split: each device then
  computes all of it. Fewer key heads than devices are repeated if they divide
  them. Positions are not split (see `jaxtok_kernels.ring_attention` for that).

  Args:
    q_btnh: Queries.
    k_bskh: Keys.
    v_bskh: Values.
    mask: Which keys each query sees.
    bias: Added to the scores.
    sink_n: A logit per head in the denominator.
    **options: Static options of `jaxtok_kernels.flash_attention`.
  """
  sizes = partition.auto_axes()
  call = functools.partial(_call, options)
  if math.prod(sizes.values()) == 1:
    return call(q_btnh, k_bskh, v_bskh, mask, bias, sink_n)
  batch, heads = partition.activation_spec(('batch', 'heads'), sizes)
  if len(q_btnh) % partition.num_devices(batch, sizes):
    batch = None
  num_heads = partition.num_devices(heads, sizes)
  if q_btnh.shape[2] % num_heads:
    heads = None
  elif k_bskh.shape[2] % num_heads:
    if num_heads % k_bskh.shape[2]:
      heads = None
    else:
      repeats = num_heads // k_bskh.shape[2]
      k_bskh, v_bskh = (jnp.repeat(x, repeats, 2) for x in (k_bskh, v_bskh))
  rows = PartitionSpec(batch, None, heads)
  # Arrays of a mask begin with the batch (or 1) and have no axis of heads.
  mask_specs = jax.tree.map(
    lambda x: PartitionSpec(batch if len(x) > 1 else None), mask
  )
  bias_spec = None
  if bias is not None:
    split = zip(bias.shape, (batch, heads), strict=False)
    bias_spec = PartitionSpec(*(axis if n > 1 else None for n, axis in split))
  sink_spec = None if sink_n is None else PartitionSpec(heads)
  is_state = options['return_state']
  return jax.shard_map(
    call,
    in_specs=(rows, rows, rows, mask_specs, bias_spec, sink_spec),
    out_specs=AttentionState(rows, rows) if is_state else rows,
    axis_names=set(sizes),
    check_vma=False,
  )(q_btnh, k_bskh, v_bskh, mask, bias, sink_n)


def _call(options, q_btnh, k_bskh, v_bskh, mask, bias, sink_n):
  return jaxtok_kernels.flash_attention(
    q_btnh, k_bskh, v_bskh, mask=mask, bias=bias, sink=sink_n, **options
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Threshold of the k largest entries for TPU (Pallas Mosaic).

Grid (row blocks); a block of eight rows stays in VMEM for the 32 counting
passes, so that the scores are read once. The compaction is left to XLA.
Bytes: 4 per entry. VMEM: eight rows twice.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_ROWS, _LANES = 8, 128
_LARGEST = 2**18  # Entries per row: 8 MiB per block, double buffered.


def unsupported(x_rs: jax.Array) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  if x_rs.shape[-1] > _LARGEST:
    return f'x_rs with rows of {x_rs.shape[-1]} > {_LARGEST} is not supported'
  return None


def thresholds(
  bits_rs: jax.Array, k: int, *, interpret: Any = False
) -> jax.Array:
  """The k-th largest of each row, `[r, 1]`.

  Args:
    bits_rs: uint32; 0 stands for "not valid".
    k: Static; 0 is returned for rows with fewer valid entries.
    interpret: As for `pallas_call`.
  """
  r, s = bits_rs.shape
  pads = ((0, -r % _ROWS), (0, -s % _LANES))
  # The order of uint32 as int32, whose comparisons the vector unit has.
  signed = jax.lax.bitcast_convert_type(
    jnp.pad(bits_rs, pads) ^ jnp.uint32(1 << 31), jnp.int32
  )
  size = signed.shape[1]
  out = pl.pallas_call(
    functools.partial(_kernel, k),
    grid=(signed.shape[0] // _ROWS,),
    in_specs=[pl.BlockSpec((_ROWS, size), lambda i: (i, 0))],
    out_specs=pl.BlockSpec((_ROWS, _LANES), lambda i: (i, 0)),
    out_shape=jax.ShapeDtypeStruct((signed.shape[0], _LANES), jnp.int32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel',), vmem_limit_bytes=_vmem(size)
    ),
    interpret=interpret,
    name='topk_threshold',
  )(signed)
  found = jax.lax.bitcast_convert_type(out[:r, :1], jnp.uint32)
  return found ^ jnp.uint32(1 << 31)


def _vmem(size: int) -> int:
  """Two buffered blocks and room for the passes' temporaries."""
  return max(16 * 2**20, 4 * _ROWS * size * 4)


def _kernel(k: int, bits, out):
  x = bits[...]

  def raise_bit(i, threshold):
    # Bit 31 flips the sign in this order, the others add up.
    bit = jnp.left_shift(jnp.int32(1), 31 - i)
    trial = jnp.where(i == 0, threshold ^ bit, threshold | bit)
    count = jnp.where(x >= trial, 1.0, 0.0).sum(axis=1, keepdims=True)
    return jnp.where(count >= k, trial, threshold)

  start = jnp.full((_ROWS, 1), jnp.iinfo(jnp.int32).min, jnp.int32)
  found = jax.lax.fori_loop(0, 32, raise_bit, start)
  out[...] = jnp.broadcast_to(found, out.shape)

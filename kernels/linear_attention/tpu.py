# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chunked linear attention forward for TPU (Pallas Mosaic).

Grid (b, n, chunks); the last axis carries the state in VMEM. A chunk computes
its inner part from dot products of width h and the part of earlier tokens from
the state.
  VMEM: state [features, e] f32, features padded to 128 lanes; q, k [chunk, h],
  v, out [chunk, e]; the two feature matrices.
Bytes: q, k, v, out once. FLOPs per token: chunk (h + e) + 4 features e, and
8 h features for the feature maps. Heads of 16 use an eighth of the lanes.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels.linear_attention import features, products

_LANES = 128


def unsupported(q: jax.Array, decay: jax.Array | None) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  if q.dtype not in (jnp.float32, jnp.bfloat16):
    return f'q_btnh of type {q.dtype} is not supported'
  if decay is not None and decay.shape[-1] > 1:
    return 'decay per feature is not supported'
  return None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings of a call."""

  feature: str
  head_dim: int
  chunk: int
  has_decay: bool


def linear_attention(
  q_btnh: jax.Array,
  k_btnh: jax.Array,
  v_btne: jax.Array,
  decay_btnh: jax.Array | None,
  state_bnfe: jax.Array,
  *,
  feature: str,
  chunk: int,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Same arguments and result as the xla form."""
  b, t, n, h = q_btnh.shape
  size, e = state_bnfe.shape[2:]
  wide = -(-size // _LANES) * _LANES
  chunk = min(chunk, -(-t // 16) * 16)
  number = -(-t // chunk)
  plan = _Plan(feature, h, chunk, decay_btnh is not None)
  rows = lambda x: jnp.pad(
    x.swapaxes(1, 2), ((0, 0), (0, 0), (0, number * chunk - t), (0, 0))
  )
  # Zeros pad q and k after the ones are added: padding has no features.
  operands = [
    rows(products.inputs(q_btnh, feature)),
    rows(products.inputs(k_btnh, feature)),
    rows(v_btne.astype(jnp.float32)),
    *(jnp.asarray(x) for x in products.matrices(feature, h, h + 1, wide)),
    jnp.pad(state_bnfe, ((0, 0), (0, 0), (0, wide - size), (0, 0))),
  ]
  per_chunk = lambda x: pl.BlockSpec(
    (1, 1, chunk, x), lambda b, n, i: (b, n, i, 0)
  )
  matrix = pl.BlockSpec((h + 1, wide), lambda *_: (0, 0))
  state = pl.BlockSpec((1, 1, wide, e), lambda b, n, i: (b, n, 0, 0))
  specs = [
    per_chunk(h + 1),
    per_chunk(h + 1),
    per_chunk(e),
    matrix,
    matrix,
    state,
  ]
  if plan.has_decay:
    decay = rows(decay_btnh.astype(jnp.float32))[..., 0]
    total = jnp.cumsum(decay.reshape(b, n, number, chunk), -1)
    total = total.reshape(b, n, number * chunk)
    operands += [total[..., None], total[:, :, None]]
    specs += [
      per_chunk(1),
      pl.BlockSpec((1, 1, 1, chunk), lambda b, n, i: (b, n, 0, i)),
    ]
  out, last = pl.pallas_call(
    functools.partial(_kernel, plan),
    grid=(b, n, number),
    in_specs=specs,
    out_specs=[per_chunk(e), state],
    out_shape=[
      jax.ShapeDtypeStruct((b, n, number * chunk, e), jnp.float32),
      jax.ShapeDtypeStruct((b, n, wide, e), jnp.float32),
    ],
    scratch_shapes=[pltpu.VMEM((wide, e), jnp.float32)],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    interpret=interpret,
    name='linear_attention',
  )(*operands)
  return out[:, :, :t].swapaxes(1, 2), last[
    :, :, : features.feature_dim(feature, h)
  ]


def _kernel(plan: _Plan, q, k, v, left, right, start, *refs):
  decay, (out, last, state) = refs[:-3], refs[-3:]
  i = pl.program_id(2)

  @pl.when(i == 0)
  def _():
    state[...] = start[0, 0]

  q, k, v = q[0, 0], k[0, 0], v[0, 0]
  phi_q, phi_k = (_features(x, left[...], right[...]) for x in (q, k))
  scores = _dot(q, k, (((1,), (1,)), ((), ())))
  a = products.similarity(scores, plan.feature, plan.head_dim)
  row = jax.lax.broadcasted_iota(jnp.int32, a.shape, 0)
  column = jax.lax.broadcasted_iota(jnp.int32, a.shape, 1)
  causal = row >= column
  if not plan.has_decay:
    a = jnp.where(causal, a, 0.0)
    keep = 1.0
  else:
    total, total_row = decay[0][0, 0], decay[1][0, 0]
    gap = jnp.where(causal, total - total_row, -jnp.inf)
    a = a * jnp.exp(gap)
    end = total[plan.chunk - 1 :]
    phi_q, phi_k = phi_q * jnp.exp(total), phi_k * jnp.exp(end - total)
    keep = jnp.exp(end)
  old = state[...]
  out[0, 0] = _dot(a, v) + _dot(phi_q, old)
  state[...] = keep * old + _dot(phi_k, v, (((0,), (0,)), ((), ())))

  @pl.when(i == pl.num_programs(2) - 1)
  def _():
    last[0, 0] = state[...]


def _features(x, left, right):
  x = x.astype(jnp.float32)
  return _dot(x, left) * _dot(x, right)


def _dot(a, b, dims=(((1,), (0,)), ((), ()))):
  return jax.lax.dot_general(
    a,
    b,
    dims,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )

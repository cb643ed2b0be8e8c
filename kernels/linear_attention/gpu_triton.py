# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chunked linear attention forward for NVIDIA GPUs (Pallas Triton).

Grid (value blocks, n, b); a program walks the chunks of its sequence and keeps
its columns of the state, [features, 32] f32, in registers. Sizes are padded to
powers of two. It needs b n (value blocks) programs of the order of the number
of SMs.
Bytes: v and out once; q and k once per value block. FLOPs per token: chunk (h +
e) + 4 features e, and 8 h features per value block for the feature maps.

Never timed: no GPU was at hand. docs/kernels.md says what was verified how.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtok_kernels.linear_attention import features, products

_CHUNK = 32
_VALUES = 32


def unsupported(q: jax.Array, decay: jax.Array | None) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  if q.dtype not in (jnp.float32, jnp.bfloat16):
    return f'q_btnh of type {q.dtype} is not supported'
  if decay is not None and decay.shape[-1] > 1:
    return 'decay per feature is not supported'
  if q.shape[-1] > 31:
    return f'q_btnh of width {q.shape[-1]} > 31 is not supported'
  return None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings of a call."""

  feature: str
  head_dim: int
  number: int
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
  """Same arguments and result as the xla form; the chunk is the kernel's."""
  del chunk
  b, t, n, h = q_btnh.shape
  size, e = state_bnfe.shape[2:]
  power = lambda x: max(16, 1 << (x - 1).bit_length())
  wide, wide_h = power(size), power(h + 1)
  wide_e = -(-e // _VALUES) * _VALUES
  number = -(-t // _CHUNK)
  plan = _Plan(feature, h, number, decay_btnh is not None)
  rows = lambda x, width: jnp.pad(
    x,
    ((0, 0), (0, number * _CHUNK - t), (0, 0), (0, width - x.shape[-1])),
  )
  operands = [
    rows(products.inputs(q_btnh, feature), wide_h),
    rows(products.inputs(k_btnh, feature), wide_h),
    rows(v_btne.astype(jnp.float32), wide_e),
    *(jnp.asarray(x) for x in products.matrices(feature, h, wide_h, wide)),
    jnp.pad(state_bnfe, ((0, 0), (0, 0), (0, wide - size), (0, wide_e - e))),
  ]
  length = number * _CHUNK
  tokens = pl.BlockSpec(
    (None, length, None, wide_h), lambda i, n, b: (b, 0, n, 0)
  )
  values = pl.BlockSpec(
    (None, length, None, _VALUES), lambda i, n, b: (b, 0, n, i)
  )
  matrix = pl.BlockSpec((wide_h, wide), lambda *_: (0, 0))
  state = pl.BlockSpec(
    (None, None, wide, _VALUES), lambda i, n, b: (b, n, 0, i)
  )
  specs = [tokens, tokens, values, matrix, matrix, state]
  if plan.has_decay:
    decay = rows(decay_btnh.astype(jnp.float32), 1)[..., 0].swapaxes(1, 2)
    total = jnp.cumsum(decay.reshape(b, n, number, _CHUNK), -1)
    operands.append(total.reshape(b, n, length))
    specs.append(pl.BlockSpec((None, None, length), lambda i, n, b: (b, n, 0)))
  out, last = pl.pallas_call(
    functools.partial(_kernel, plan),
    grid=(wide_e // _VALUES, n, b),
    in_specs=specs,
    out_specs=[values, state],
    out_shape=[
      jax.ShapeDtypeStruct((b, length, n, wide_e), jnp.float32),
      jax.ShapeDtypeStruct((b, n, wide, wide_e), jnp.float32),
    ],
    compiler_params=plt.CompilerParams(num_warps=8, num_stages=1),
    interpret=interpret,
    name='linear_attention',
  )(*operands)
  size = features.feature_dim(feature, h)
  return out[:, :t, :, :e], last[:, :, :size, :e]


def _kernel(plan: _Plan, q, k, v, left, right, start, *refs):
  decay, (out, last) = refs[:-2], refs[-2:]
  left, right = left[...], right[...]
  row = jnp.arange(_CHUNK)
  causal = row[:, None] >= row[None, :]

  def body(i, state):
    part = pl.ds(i * _CHUNK, _CHUNK)
    q_c, k_c, v_c = q[part, :], k[part, :], v[part, :]
    phi_q, phi_k = (_features(x, left, right) for x in (q_c, k_c))
    a = products.similarity(_dot(q_c, k_c.T), plan.feature, plan.head_dim)
    keep = 1.0
    if not plan.has_decay:
      a = jnp.where(causal, a, 0.0)
    else:
      total = decay[0][part]
      end = decay[0][i * _CHUNK + (_CHUNK - 1)]
      gap = total[:, None] - total[None, :]
      a = a * jnp.exp(jnp.where(causal, gap, -jnp.inf))
      phi_q = phi_q * jnp.exp(total)[:, None]
      phi_k = phi_k * jnp.exp(end - total)[:, None]
      keep = jnp.exp(end)
    out[part, :] = _dot(a, v_c) + _dot(phi_q, state)
    return keep * state + _dot(phi_k.T, v_c)

  last[...] = jax.lax.fori_loop(0, plan.number, body, start[...])


def _features(x, left, right):
  x = x.astype(jnp.float32)
  return _dot(x, left) * _dot(x, right)


def _dot(a, b):
  return jax.lax.dot(
    a,
    b,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )

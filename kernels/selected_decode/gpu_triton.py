# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding over selected tokens for NVIDIA GPUs (Pallas Triton), split-K.

Grid (splits, k, b). A program gathers the rows of its part of the list, 2 h
bytes per token and head in bf16, for all query heads of its key head; the
parts are merged by their log-sum-exps. Units of several tokens are expanded to
token numbers before the call, 4 bytes per token.
Bytes: the selected tokens once. FLOPs: 4 h per pair.

Never timed: no GPU was at hand. docs/kernels.md says what was verified how.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode import cost, rows
from jaxtok_kernels.selected_decode.units import Pool, Units
from jaxtok_kernels.state import AttentionState, merge

_LOG2E = math.log2(math.e)


def unsupported(q: jax.Array, pool: Pool, units: Units) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  for width in (pool.k.shape[3], pool.value_dim):
    if width & (width - 1) or width < 16:
      return f'heads of width {width} (no power of two) are not supported'
  return rows.unsupported(q, pool, units)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings: `splits` parts of `size` tokens, `block` at a time."""

  splits: int
  size: int
  block: int
  scale: float
  softcap: float | None
  precision: Any


def forward(
  q_btnh: jax.Array,
  pool: Pool,
  units: Units,
  options: Options,
  *,
  interpret: Any = False,
) -> AttentionState:
  """State of the queries over the selected units."""
  b, t, n, h = q_btnh.shape
  k, hv = pool.num_kv_heads, pool.value_dim
  wanted = t * n // k
  q_bkrh = rows.queries(q_btnh, k, max(16, 1 << (wanted - 1).bit_length()))
  num_rows = q_bkrh.shape[2]
  tokens = units.ids.shape[-1] * pool.unit
  block = cost.triton_block(q_btnh.dtype.itemsize)
  splits = cost.splits(tokens, b * k)
  size = -(-tokens // (splits * block)) * block
  plan = _Plan(
    splits=splits,
    size=size,
    block=block,
    scale=options.scale,
    softcap=options.softcap,
    precision=(
      jax.lax.Precision.HIGHEST if q_btnh.dtype == jnp.float32 else None
    ),
  )
  pos = rows.positions(units, pool.unit, units.ids.shape[-1])
  more = ((0, 0), (0, 0), (0, splits * size - tokens))
  operands = [
    q_bkrh,
    jnp.pad(_token_numbers(units, pool.unit), more),
    jnp.pad(pos, more, constant_values=jnp.iinfo(jnp.int32).max),
    units.count * pool.unit,
    rows.limits(units, n // k, num_rows),
    *_tokens(pool),
  ]
  one_list = units.ids.shape[1] == 1
  head = lambda i: 0 if one_list else i
  part = pl.BlockSpec((None, None, size), lambda x, i, b: (b, head(i), x))
  stride = 2 if pool.v is None else 1
  keys = lambda width, offset: pl.BlockSpec(
    (operands[-1].shape[0], None, width),
    lambda x, i, b: (0, stride * i + offset, 0),
  )
  out, lse = pl.pallas_call(
    functools.partial(_kernel, plan),
    grid=(splits, k, b),
    in_specs=[
      pl.BlockSpec((None, None, num_rows, h), lambda x, i, b: (b, i, 0, 0)),
      part,
      part,
      pl.BlockSpec((None, None), lambda x, i, b: (b, head(i))),
      pl.BlockSpec((None, num_rows), lambda x, i, b: (b, 0)),
      keys(h, 0),
      keys(hv, stride - 1),
    ],
    out_specs=[
      pl.BlockSpec(
        (None, None, None, num_rows, hv), lambda x, i, b: (x, b, i, 0, 0)
      ),
      pl.BlockSpec((None, None, None, num_rows), lambda x, i, b: (x, b, i, 0)),
    ],
    out_shape=[
      jax.ShapeDtypeStruct((splits, b, k, num_rows, hv), jnp.float32),
      jax.ShapeDtypeStruct((splits, b, k, num_rows), jnp.float32),
    ],
    compiler_params=plt.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name='selected_decode',
  )(*operands)
  parts = [rows.state(out[x], lse[x], t, n // k) for x in range(splits)]
  return merge(parts)


def _token_numbers(units: Units, unit: int) -> jax.Array:
  """int32 `[b, k|1, u * unit]`; valid also past the count."""
  first = jnp.maximum(units.ids, 0)[..., None] * unit
  numbers = first + jnp.arange(unit, dtype=jnp.int32)
  return numbers.reshape(*units.ids.shape[:2], -1)


def _tokens(pool: Pool) -> tuple[jax.Array, jax.Array]:
  """The pool by tokens; an interleaved one is given twice."""
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  k = flat(pool.k)
  return (k, k) if pool.v is None else (k, flat(pool.v))


def _kernel(plan: _Plan, q, ids, pos, count, limit, k, v, out, lse):
  q, limit = q[...], limit[...]
  start = pl.program_id(0) * plan.size
  number = jnp.clip(count[...] - start, 0, plan.size)
  dot = functools.partial(
    jax.lax.dot, precision=plan.precision, preferred_element_type=jnp.float32
  )

  def body(i, carry):
    top, total, acc = carry
    part = pl.ds(i * plan.block, plan.block)
    tokens, seen = ids[part], pos[part][None, :] < limit[:, None]
    s = dot(q, k[tokens, :].T)
    if plan.softcap is None:
      s = s * (plan.scale * _LOG2E)
    else:
      unit = jnp.tanh(s * (plan.scale / plan.softcap))
      s = unit * (plan.softcap * _LOG2E)
    s = jnp.where(seen, s, -jnp.inf)
    new = jnp.maximum(top, s.max(axis=1))
    base = jnp.where(new == -jnp.inf, 0.0, new)
    p, keep = jnp.exp2(s - base[:, None]), jnp.exp2(top - base)
    # Slots that no row sees may hold NaN, which 0 * NaN would leak.
    used = pos[part] < limit.max()
    values = jnp.where(used[:, None], v[tokens, :], 0)
    acc = acc * keep[:, None] + dot(p.astype(values.dtype), values)
    return new, total * keep + p.sum(axis=1), acc

  num_rows = q.shape[0]
  carry = (
    jnp.full((num_rows,), -jnp.inf, jnp.float32),
    jnp.zeros((num_rows,), jnp.float32),
    jnp.zeros((num_rows, v.shape[-1]), jnp.float32),
  )
  steps = jax.lax.div(number + (plan.block - 1), plan.block)
  top, total, acc = jax.lax.fori_loop(0, steps, body, carry)
  has = total > 0
  total = jnp.where(has, total, 1.0)
  out[...] = acc / total[:, None]
  base = jnp.where(has, top, 0.0)
  lse[...] = jnp.where(has, (base + jnp.log2(total)) / _LOG2E, -jnp.inf)

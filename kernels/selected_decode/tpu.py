# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding over selected units for TPU: one DMA per unit, double buffered.

Grid (b,). The pool stays in HBM; ids and counts are in SMEM. Step i waits for
its units, having started those of step i + 1, and does the online softmax of
every key head on them. A token of all heads is one contiguous piece.
  VMEM: two buffers [tokens per step, 2 k, h], acc [k, rows, h] f32, running max
  and sum [k, rows, 128] f32.
Bytes: the selected tokens once. FLOPs: 4 h per pair. Expected limit for single
tokens: the rate at which DMAs are issued.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode import cost, rows
from jaxtok_kernels.selected_decode.units import Pool, Units
from jaxtok_kernels.state import AttentionState

_LANES = 128
_LOG2E = math.log2(math.e)


def unsupported(q: jax.Array, pool: Pool, units: Units) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  if units.ids.shape[1] > 1:
    return 'lists that differ between key heads are not supported'
  if pool.value_dim != pool.k.shape[3]:
    return 'values of another width than the keys are not supported'
  return rows.unsupported(q, pool, units)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings: `step` units of `unit` tokens at a time."""

  k: int
  rows: int
  unit: int
  step: int
  scale: float
  softcap: float | None
  interleaved: bool
  precision: Any

  @property
  def tokens(self) -> int:
    return self.step * self.unit


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
  k, unit = pool.num_kv_heads, pool.unit
  q_bkrh = rows.queries(q_btnh, k, 16)
  num_rows = q_bkrh.shape[2]
  step = cost.tpu_units_per_step(unit)
  size = -(-units.ids.shape[-1] // step) * step
  plan = _Plan(
    k=k,
    rows=num_rows,
    unit=unit,
    step=step,
    scale=options.scale,
    softcap=options.softcap,
    interleaved=pool.v is None,
    precision=(
      jax.lax.Precision.HIGHEST if q_btnh.dtype == jnp.float32 else None
    ),
  )
  ids = jnp.maximum(units.ids[:, 0], 0)
  ids = jnp.pad(ids, ((0, 0), (0, size - ids.shape[1])))
  pools = [pool.k] if pool.v is None else [pool.k, pool.v]
  buffers = [pltpu.VMEM((2, plan.tokens, *x.shape[2:]), x.dtype) for x in pools]
  per_row = lambda x: pl.BlockSpec(
    (1, k, num_rows, x), lambda b, *_: (b, 0, 0, 0)
  )
  out, lse = pl.pallas_call(
    functools.partial(_kernel, plan, len(pools)),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(b,),
      in_specs=[
        per_row(h),
        pl.BlockSpec((1, 1, size * unit), lambda b, *_: (b, 0, 0)),
        pl.BlockSpec((1, num_rows, 1), lambda b, *_: (b, 0, 0)),
        *(pl.BlockSpec(memory_space=pl.ANY) for _ in pools),
      ],
      out_specs=[per_row(h), per_row(_LANES)],
      scratch_shapes=[
        *buffers,
        pltpu.SemaphoreType.DMA((len(pools), 2)),
        pltpu.VMEM((k, num_rows, _LANES), jnp.float32),
        pltpu.VMEM((k, num_rows, _LANES), jnp.float32),
        pltpu.VMEM((k, num_rows, h), jnp.float32),
      ],
    ),
    out_shape=[
      jax.ShapeDtypeStruct((b, k, num_rows, h), jnp.float32),
      jax.ShapeDtypeStruct((b, k, num_rows, _LANES), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('arbitrary',)),
    interpret=interpret,
    name='selected_decode',
  )(
    ids,
    jnp.minimum(units.count[:, 0], units.ids.shape[-1]),
    q_bkrh,
    rows.positions(units, unit, size),
    rows.limits(units, n // k, num_rows)[..., None],
    *pools,
  )
  return rows.state(out, lse[..., 0], t, n // k)


def _wait(copy) -> None:
  """A function of its own, so that a test can leave it out."""
  copy.wait()


def _kernel(plan: _Plan, num_pools, ids, count, q, pos, limit, *refs):
  pools, refs = refs[:num_pools], refs[num_pools:]
  out, lse, *refs = refs
  buffers, (sem, m, l, acc) = refs[:num_pools], refs[num_pools:]
  b = pl.program_id(0)
  # An empty list still runs one step, on positions that nobody sees.
  steps = jnp.maximum((count[b] + plan.step - 1) // plan.step, 1)

  def copies(i, slot):
    for x, (pool, buffer) in enumerate(zip(pools, buffers, strict=True)):
      for u in range(plan.step):
        yield pltpu.make_async_copy(
          pool.at[ids[b, i * plan.step + u]],
          buffer.at[slot, pl.ds(u * plan.unit, plan.unit)],
          sem.at[x, slot],
        )

  def start(i, slot):
    for copy in copies(i, slot):
      copy.start()

  m[...] = jnp.full_like(m, -jnp.inf)
  l[...] = jnp.zeros_like(l)
  acc[...] = jnp.zeros_like(acc)
  start(0, 0)

  @pl.loop(0, steps)
  def _(i):
    slot = jax.lax.rem(i, 2)

    @pl.when(i + 1 < steps)
    def _():
      start(i + 1, 1 - slot)

    for copy in copies(i, slot):
      _wait(copy)
    part = pl.ds(pl.multiple_of(i * plan.tokens, plan.tokens), plan.tokens)
    seen = pos[0, :, part] < limit[0]
    # Slots that no row sees may hold NaN, which 0 * NaN would leak.
    highest = jnp.max(limit[0], axis=0, keepdims=True)
    used = jnp.broadcast_to(pos[0, :, part] < highest, (_LANES, plan.tokens))
    used = jnp.where(used, 1.0, 0.0).T[:, :1] > 0
    for head in range(plan.k):
      keys, values = _head(plan, buffers, slot, head)
      values = jnp.where(used, values, jnp.zeros_like(values))
      _update(plan, q[0, head], keys, values, seen, m, l, acc, head)

  _finish(m, l, acc, out, lse)


def _head(plan: _Plan, buffers, slot, head):
  if plan.interleaved:
    return buffers[0][slot, :, 2 * head, :], buffers[0][
      slot, :, 2 * head + 1, :
    ]
  return buffers[0][slot, :, head, :], buffers[1][slot, :, head, :]


def _update(plan: _Plan, q, keys, values, seen, m, l, acc, head):
  dot = functools.partial(
    jax.lax.dot_general,
    precision=plan.precision,
    preferred_element_type=jnp.float32,
  )
  s = dot(q, keys, (((1,), (1,)), ((), ())))
  if plan.softcap is None:
    s = s * (plan.scale * _LOG2E)
  else:
    unit = jnp.tanh(s * (plan.scale / plan.softcap))
    s = unit * (plan.softcap * _LOG2E)
  s = jnp.where(seen, s, -jnp.inf)
  old = m[head]
  new = jnp.maximum(old, s.max(axis=1, keepdims=True))
  base = jnp.where(new == -jnp.inf, 0.0, new)
  keep = jnp.exp2(old - base)
  p = jnp.exp2(s - base[:, :1])
  m[head] = new
  l[head] = keep * l[head] + p.sum(axis=1, keepdims=True)
  pv = dot(p.astype(values.dtype), values, (((1,), (0,)), ((), ())))
  acc[head] = keep[:, :1] * acc[head] + pv


def _finish(m, l, acc, out, lse):
  total = l[...]
  has = total > 0
  total = jnp.where(has, total, 1.0)
  out[0] = acc[...] / total[..., :1]
  top = jnp.where(has, m[...], 0.0)
  lse[0] = jnp.where(has, (top + jnp.log2(total)) / _LOG2E, -jnp.inf)

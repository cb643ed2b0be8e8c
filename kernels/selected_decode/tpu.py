# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding over selected units for TPU: one DMA per unit, double buffered.

Grid (b, row tiles). The pool stays in HBM; the ids of this and the next step
are in SMEM. While a tile of keys is computed the next one is fetched, across
the end of a sequence too. A token of all heads is one contiguous piece; eight
consecutive tokens are one DMA. Lists that differ between heads are joined.
  VMEM: two buffers [tokens per step, 2 k, h], acc [k, rows, h] f32, running max
  and sum [k, rows, 128] f32, twice the blocks of q, out and lse; of an
  incoming state too.
Bytes: the selected tokens once per row tile. FLOPs: 4 h per pair. Expected
limit for single tokens: the rate at which DMAs are issued.

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
from jaxtok_kernels import tuning
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode import cost, rows
from jaxtok_kernels.selected_decode.units import Pool, Tail, Units
from jaxtok_kernels.state import AttentionState

_LANES = 128
_RUN = 8  # Tokens that one DMA moves if they are consecutive.
_LOG2E = math.log2(math.e)
_NT = (((1,), (1,)), ((), ()))  # a @ b.T
_NN = (((1,), (0,)), ((), ()))  # a @ b


def unsupported(q: jax.Array, pool: Pool, units: Units) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  if pool.value_dim != pool.k.shape[3]:
    return 'values of another width than the keys are not supported'
  if _LANES % pool.unit and pool.unit % _LANES:
    return (
      f'units of {pool.unit} tokens are not supported: they must divide '
      f'{_LANES} or be a multiple of it'
    )
  if units.cos is not None and units.ids.shape[1] > 1:
    return 'rope with lists that differ between key heads is not supported'
  return rows.unsupported(q, pool, units)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings: `step` units of `unit` tokens at a time."""

  k: int
  h: int
  rows: int
  row_tiles: int
  unit: int
  step: int
  size: int
  scale: float
  softcap: float | None
  interleaved: bool
  rope: bool
  tail: int
  has_state: bool
  precision: Any

  @property
  def tokens(self) -> int:
    return self.step * self.unit

  @property
  def run(self) -> int:
    """Units per DMA at most."""
    return _RUN if self.unit == 1 and self.step % _RUN == 0 else 1

  def vmem(self, itemsize: int) -> int:
    """Bytes that the kernel needs, with a quarter on top for temporaries."""
    sizes = dict(k=self.k, h=self.h, rows=self.rows, itemsize=itemsize)
    known = cost.tpu_vmem({'tokens': self.tokens}, **sizes)
    tail = 4 * self.k * self.tail * self.h * itemsize
    # Positions of all heads, and the tables of the rotation, double buffered.
    lists = 8 * self.size * self.unit * max(8, self.k)
    tables = 16 * self.size * self.unit * _LANES if self.rope else 0
    state = 8 * self.k * self.rows * (self.h + _LANES) * self.has_state
    return max(16 * 2**20, 5 * (known + tail + lists + tables + state) // 4)


def forward(
  q_btnh: jax.Array,
  pool: Pool,
  units: Units,
  options: Options,
  *,
  tail: Tail | None = None,
  state_in: AttentionState | None = None,
  interpret: Any = False,
) -> AttentionState:
  """State of the queries over `state_in`, the selected units and the tail."""
  _, t, n, h = q_btnh.shape
  k, unit = pool.num_kv_heads, pool.unit
  if units.ids.shape[1] > 1:
    units = rows.union(units)
  tile = cost.row_tile(t * n // k, least=16)
  q_bkrh = rows.queries(q_btnh, k, tile)
  sizes = dict(k=k, h=h, unit=unit, rows=tile)
  tokens = tuning.config(
    'selected_decode', 'tpu', q_btnh.dtype, sizes, cost.TPU
  )['tokens']
  step = max(1, tokens // unit)
  size = -(-units.ids.shape[-1] // step) * step
  plan = _Plan(
    k=k,
    h=h,
    rows=tile,
    row_tiles=q_bkrh.shape[2] // tile,
    unit=unit,
    step=step,
    size=size,
    scale=options.scale,
    softcap=options.softcap,
    interleaved=pool.v is None,
    rope=units.cos is not None,
    tail=0 if tail is None else -(-tail.k.shape[1] // _LANES) * _LANES,
    has_state=state_in is not None,
    precision=(
      jax.lax.Precision.HIGHEST if q_btnh.dtype == jnp.float32 else None
    ),
  )
  operands, specs = _operands(plan, q_bkrh, units, size, n // k)
  if tail is not None:
    found = rows.tail_operands(tail, n // k, q_bkrh.shape[2], _LANES)
    operands += found
    whole = pl.BlockSpec((1, k, plan.tail, h), lambda b, *_: (b, 0, 0, 0))
    bits = pl.BlockSpec(
      (1, tile, found[2].shape[2]), lambda b, r, *_: (b, r, 0)
    )
    specs += [whole, whole, bits]
  if state_in is not None:
    # Of a single tile only the rows in use: padding them would be a copy.
    multiple = tile if plan.row_tiles > 1 else 1
    out_in, lse_in = rows.state_operands(state_in, k, multiple)
    operands += [out_in, lse_in[..., None]]
    size = out_in.shape[2] // plan.row_tiles
    specs += [_per_row(plan, h, size), _per_row(plan, 1, size)]
  pools = [pool.k] if pool.v is None else [pool.k, pool.v]
  out, lse = _call(plan, q_bkrh, units, operands, specs, pools, interpret)
  return rows.state(out, lse[..., 0], t, n // k)


def _operands(plan: _Plan, q_bkrh, units: Units, size: int, group: int):
  """Lists of this and the next step, queries, positions, limits, rotation."""
  b, num_rows = q_bkrh.shape[0], q_bkrh.shape[2]
  ids = jnp.pad(units.ids, ((0, 0), (0, 0), (0, size - units.ids.shape[2])))
  ids = _mark_runs(plan, ids)
  pos = rows.positions(units, plan.unit, size)
  ahead = lambda b_, r: jnp.minimum(
    b_ + jnp.where(r + 1 < plan.row_tiles, 0, 1), b - 1
  )
  in_smem = lambda index: pl.BlockSpec(
    (1, 1, size), lambda b, r, *_: (index(b, r), 0, 0), memory_space=pltpu.SMEM
  )
  operands = [
    ids,
    ids,
    q_bkrh,
    pos,
    rows.limits(units, group, num_rows)[..., None],
  ]
  specs = [
    in_smem(lambda b, r: b),
    in_smem(ahead),
    _per_row(plan, plan.h),
    pl.BlockSpec((1, *pos.shape[1:]), lambda b, *_: (b, 0, 0)),
    pl.BlockSpec((1, plan.rows, 1), lambda b, r, *_: (b, r, 0)),
  ]
  if plan.rope:
    more = ((0, size * plan.unit - units.cos.shape[0]), (0, 0))
    table = pl.BlockSpec((size * plan.unit, plan.h // 2), lambda b, *_: (0, 0))
    operands += [jnp.pad(units.cos, more), jnp.pad(units.sin, more)]
    specs += [table, table]
  return operands, specs


def _mark_runs(plan: _Plan, ids: jax.Array) -> jax.Array:
  """Complements the first id of every group that is one run of the pool."""
  if plan.run == 1:
    return ids
  groups = ids.reshape(*ids.shape[:2], -1, plan.run)
  step = groups[..., 1:] - groups[..., :-1]
  first = groups[..., 0]
  first = jnp.where((step == 1).all(-1), ~first, first)
  return groups.at[..., 0].set(first).reshape(ids.shape)


def _per_row(plan: _Plan, width: int, size: int = 0) -> pl.BlockSpec:
  return pl.BlockSpec(
    (1, plan.k, size or plan.rows, width), lambda b, r, *_: (b, 0, r, 0)
  )


def _call(plan: _Plan, q_bkrh, units, operands, specs, pools, interpret):
  b, k, num_rows, h = q_bkrh.shape
  stats = pltpu.VMEM((k, plan.rows, _LANES), jnp.float32)
  buffers = [pltpu.VMEM((2, plan.tokens, *x.shape[2:]), x.dtype) for x in pools]
  return pl.pallas_call(
    functools.partial(_kernel, plan, len(pools)),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(b, plan.row_tiles),
      in_specs=[*specs, *(pl.BlockSpec(memory_space=pl.ANY) for _ in pools)],
      out_specs=[_per_row(plan, h), _per_row(plan, _LANES)],
      scratch_shapes=[
        *buffers,
        pltpu.SemaphoreType.DMA((len(pools), 2)),
        pltpu.SMEM((1,), jnp.int32),
        stats,
        stats,
        pltpu.VMEM((k, plan.rows, h), jnp.float32),
      ],
    ),
    out_shape=[
      jax.ShapeDtypeStruct((b, k, num_rows, h), jnp.float32),
      jax.ShapeDtypeStruct((b, k, num_rows, _LANES), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('arbitrary', 'arbitrary'),
      vmem_limit_bytes=plan.vmem(q_bkrh.dtype.itemsize),
    ),
    interpret=interpret,
    name='selected_decode',
  )(
    jnp.minimum(units.count[:, 0], units.ids.shape[-1]),
    *operands,
    *pools,
  )


def _wait(copy) -> None:
  """A function of its own, so that a test can leave it out."""
  copy.wait()


def _start(plan: _Plan, pools, buffers, sem, unit_at, slot) -> None:
  """Starts the copies of a step into a buffer; `unit_at(j)` is its j-th id."""

  def copy(unit, place, size):
    for x, (pool, buffer) in enumerate(zip(pools, buffers, strict=True)):
      target = buffer.at[slot, pl.ds(place * plan.unit, size * plan.unit)]
      source = pool.at[unit] if size == 1 else pool.at[pl.ds(unit, size), 0]
      pltpu.make_async_copy(source, target, sem.at[x, slot]).start()

  @pl.loop(0, plan.step // plan.run)
  def _(group):
    place = group * plan.run
    first = unit_at(place)
    if plan.run == 1:
      copy(first, place, 1)
      return

    @pl.when(first < 0)
    def _():
      copy(~first, place, plan.run)

    @pl.when(first >= 0)
    def _():
      copy(first, place, 1)
      for more in range(1, plan.run):
        copy(unit_at(place + more), place + more, 1)


def _kernel(plan: _Plan, num_pools, count, ids, ids_next, q, pos, limit, *refs):
  table, refs = (refs[:2], refs[2:]) if plan.rope else (None, refs)
  tail, refs = (refs[:3], refs[3:]) if plan.tail else (None, refs)
  state, refs = (refs[:2], refs[2:]) if plan.has_state else (None, refs)
  pools, (out, lse, *refs) = refs[:num_pools], refs[num_pools:]
  buffers, (sem, parity, m, l, acc) = refs[:num_pools], refs[num_pools:]
  b, r = pl.program_id(0), pl.program_id(1)
  is_first = (b == 0) & (r == 0)
  is_last = (b == pl.num_programs(0) - 1) & (r == plan.row_tiles - 1)
  # An empty list still runs one step, on positions that nobody sees.
  steps = jnp.maximum(
    jax.lax.div(count[b] + (plan.step - 1), jnp.int32(plan.step)), 1
  )
  start = functools.partial(_start, plan, pools, buffers, sem)
  _begin(state, m, l, acc)

  @pl.when(is_first)
  def _():
    parity[0] = 0
    start(lambda j: ids[0, 0, j], 0)

  offset = parity[0]

  @pl.loop(0, steps)
  def _(i):
    slot = jax.lax.rem(offset + i, 2)

    more = i + 1 < steps

    @pl.when(more | ~is_last)
    def _():
      base = jnp.where(more, (i + 1) * plan.step, 0)
      start(
        lambda j: jnp.where(more, ids[0, 0, base + j], ids_next[0, 0, j]),
        1 - slot,
      )

    # One wait for the bytes of all copies into the buffer.
    for x, buffer in enumerate(buffers):
      whole = buffer.at[slot]
      _wait(pltpu.make_async_copy(whole, whole, sem.at[x, slot]))
    part = pl.ds(pl.multiple_of(i * plan.tokens, plan.tokens), plan.tokens)
    for head in range(plan.k):
      keys, values = _head(plan, buffers, slot, head)
      # Slots that no row sees may hold NaN, which 0 * NaN would leak.
      at = pos[0, pl.ds(head if pos.shape[1] > 1 else 0, 1), part]
      used = at < jnp.max(limit[0], axis=0, keepdims=True)
      used = jnp.where(jnp.broadcast_to(used, (_LANES, plan.tokens)), 1.0, 0.0)
      values = jnp.where(used.T[:, :1] > 0, values, jnp.zeros_like(values))
      if plan.rope:
        keys = _rotate(keys, table[0][part], table[1][part])
      _update(plan, q[0, head], keys, values, at < limit[0], m, l, acc, head)

  parity[0] = jax.lax.rem(offset + steps, 2)
  if plan.tail:
    _visit_tail(plan, q, *tail, m, l, acc)
  _finish(m, l, acc, out, lse)


def _begin(state, m, l, acc) -> None:
  """Nothing seen yet, or in the rows in use what the incoming state saw."""
  m[...] = jnp.full_like(m, -jnp.inf)
  l[...] = jnp.zeros_like(l)
  acc[...] = jnp.zeros_like(acc)
  if state is None:
    return
  out_in, lse_in = state
  k, size = out_in.shape[1:3]
  top = jnp.broadcast_to(lse_in[0] * _LOG2E, (k, size, _LANES))
  m[:, :size] = top
  l[:, :size] = jnp.where(top > -jnp.inf, 1.0, 0.0)
  acc[:, :size] = out_in[0]


def _visit_tail(plan: _Plan, q, keys, values, bits, m, l, acc) -> None:
  """The last step: keys that are seen by bits."""
  for start in range(0, plan.tail, _LANES):
    words = [bits[0, :, start // 32 + x][:, None] for x in range(_LANES // 32)]
    word = jnp.concatenate(
      [jnp.broadcast_to(x, (plan.rows, 32)) for x in words], axis=1
    )
    lane = jax.lax.broadcasted_iota(jnp.int32, word.shape, 1)
    seen = (jax.lax.shift_right_logical(word, lane & 31) & 1) > 0
    part = pl.ds(start, _LANES)
    for head in range(plan.k):
      args = q[0, head], keys[0, head, part], values[0, head, part]
      _update(plan, *args, seen, m, l, acc, head)


def _head(plan: _Plan, buffers, slot, head):
  if plan.interleaved:
    return (
      buffers[0][slot, :, 2 * head, :],
      buffers[0][slot, :, 2 * head + 1, :],
    )
  return buffers[0][slot, :, head, :], buffers[1][slot, :, head, :]


def _rotate(keys, cos, sin):
  half = keys.shape[1] // 2
  a, b = (x.astype(jnp.float32) for x in (keys[:, :half], keys[:, half:]))
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)
  return turned.astype(keys.dtype)


def _update(plan: _Plan, q, keys, values, seen, m, l, acc, head):
  dot = functools.partial(
    jax.lax.dot_general,
    precision=plan.precision,
    preferred_element_type=jnp.float32,
  )
  s = dot(q, keys, _NT)
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
  pv = dot(p.astype(values.dtype), values, _NN)
  acc[head] = keep[:, :1] * acc[head] + pv


def _finish(m, l, acc, out, lse):
  total = l[...]
  has = total > 0
  total = jnp.where(has, total, 1.0)
  out[0] = acc[...] / total[..., :1]
  top = jnp.where(has, m[...], 0.0)
  lse[0] = jnp.where(has, (top + jnp.log2(total)) / _LOG2E, -jnp.inf)

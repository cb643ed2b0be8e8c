# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention forward for Hopper (Pallas Mosaic GPU), warp-specialised.

Grid (n, t tiles, b), longest causal tiles first. Three warpgroups per CTA: two
compute 64 query rows each (232 registers), one copies (40 registers). The
copying one streams key and value tiles by TMA through a ring of
`num_stages` slots in shared memory; barriers `full` and `free` per slot. Each
compute warpgroup issues q k^T, does the softmax in registers and accumulates
p v with wgmma; a barrier between the two makes one do its softmax while the
other uses the tensor cores.
  SMEM: q and out 2 x 64 x h, k and v `num_stages` x bkv x h each, 16-bit: 160
  KiB at h = 128, bkv = 128, two stages.
Bytes: q and out once, k and v once per 128 query rows, from L2. FLOPs: 4 h per
visible pair. exp2 with log2(e) folded into the scale.

docs/kernels.md says what was verified how, and the times on an H200.
"""

import dataclasses
import functools
import importlib.util
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtok_kernels import _compat, dispatch, masks, tuning
from jaxtok_kernels.flash_attention import cost, tile_lists
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.state import AttentionState

_LOG2E = math.log2(math.e)
_ROWS = 64  # Query rows of a warpgroup: the height of one wgmma.
_TRANSFORMS = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))


def unsupported(q, k, v, mask, bias, state_in) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  if importlib.util.find_spec('absl') is None:
    return 'absl-py is not installed, which Pallas Mosaic GPU needs'
  capability = dispatch.compute_capability()
  if capability and not capability.startswith('9.'):
    return (
      'it is written for GPUs of compute capability 9 (Hopper), and this one '
      f'has {capability}'
    )
  if q.dtype not in (jnp.bfloat16, jnp.float16):
    return f'q_btnh of type {q.dtype} is not supported'
  if q.shape[-1] not in (64, 128, 256) or v.shape[-1] != q.shape[-1]:
    return (
      f'q_btnh of width {q.shape[-1]} with values of width {v.shape[-1]} is '
      'not supported: both must be 64, 128 or 256'
    )
  for name, value in (('bias', bias), ('state_in', state_in)):
    if value is not None:
      return f'{name} is not supported'
  for name in ('kv_pos', 'block_lists', 'tree_bits'):
    if getattr(mask, name) is not None:
      return f'mask.{name} is not supported'
  del k
  return None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings of a call."""

  t: int
  s: int
  group: int
  head_dim: int
  block_kv: int
  num_stages: int
  scale: float
  softcap: float | None
  band: tile_lists.Band
  mask_batch: int
  has_sink: bool
  dtype: Any
  out_dtype: Any
  interpret: Any

  @property
  def num_q(self) -> int:
    """Tiles of two warpgroups."""
    return -(-self.t // (2 * _ROWS))

  @property
  def num_kv(self) -> int:
    return -(-self.s // self.block_kv)

  @property
  def t_pad(self) -> int:
    return 2 * _ROWS * self.num_q


def forward(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  sink_n: jax.Array | None,
  state_in: None,
  options: Options,
  *,
  kv_batch: jax.Array | None = None,
  interpret: Any = None,
) -> AttentionState:
  """Attention over the visible keys and sinks.

  With `kv_batch`, an int32 `[b]`, element i of the queries reads element
  `kv_batch[i]` of the keys, which must hold no NaN; the mask is the queries'.
  """
  del state_in  # See `unsupported`.
  b, t, n, h = q_btnh.shape
  s = k_bskh.shape[1]
  found = tuning.config(
    'flash_attention',
    'mosaic_gpu',
    q_btnh.dtype,
    {'t': t, 'h': h},
    dataclasses.asdict(cost.mosaic_tiles(h)),
  )
  tiles = cost.MosaicTiles(**found)
  plan = _Plan(
    t=t,
    s=s,
    group=n // k_bskh.shape[2],
    head_dim=h,
    block_kv=tiles.block_kv,
    num_stages=tiles.num_stages,
    scale=options.scale,
    softcap=options.softcap,
    band=tile_lists.band(mask, s, s + -s % tiles.block_kv),
    mask_batch=mask.batch,
    has_sink=sink_n is not None,
    dtype=q_btnh.dtype,
    out_dtype=jnp.dtype(options.out_dtype or jnp.float32),
    interpret=interpret or None,
  )
  operands = _operands(plan, q_btnh, k_bskh, v_bskh, mask, sink_n, kv_batch)
  names = tuple(operands)
  outs = [
    jax.ShapeDtypeStruct((b, plan.t_pad, n, h), plan.out_dtype),
    jax.ShapeDtypeStruct((b, n, plan.t_pad), jnp.float32),
  ]
  out, lse_bnt = _compat.mgpu_kernel(
    functools.partial(_kernel, plan, names),
    outs,
    _scratch(plan),
    grid=(n, plan.num_q, b),
    grid_names=('head', 'tile', 'batch'),
    num_threads=3,
    thread_name='wg',
    compiler_params=_compat.mgpu_params(approx_math=True),
    interpret=plan.interpret,
  )(*operands.values())
  return AttentionState(out[:, :t], lse_bnt[..., :t].swapaxes(1, 2))


def _operands(plan: _Plan, q, k, v, mask, sink_n, kv_batch):
  """Padded to whole tiles; values that nobody sees become 0.

  Keys that nobody sees may be NaN: their scores are masked.
  """
  if kv_batch is None and tile_lists.hides_keys(mask, plan.t, plan.s):
    used = tile_lists.used_keys(mask, plan.t, plan.s)[..., None, None]
    v = jnp.where(used, v, 0)
  pad = lambda x, size: jnp.pad(
    x, ((0, 0), (0, size - x.shape[1]), (0, 0), (0, 0))
  )
  found = {
    'q': pad(q, plan.t_pad),
    'k': pad(k, plan.num_kv * plan.block_kv),
    'v': pad(v, plan.num_kv * plan.block_kv),
    'ranges': _ranges(mask, plan),
  }
  if plan.band.num_intervals:
    bounds = tile_lists.row_bounds(mask, plan.t, plan.s, plan.t_pad)
    found['bounds'] = bounds.swapaxes(1, 2)
  if kv_batch is not None:
    found['kv_batch'] = kv_batch
  if sink_n is not None:
    found['sink'] = sink_n.astype(jnp.float32)
  return found


def _ranges(mask, plan: _Plan) -> jax.Array:
  """int32 `[c, t tiles, 4]`: first, first full, end of full, end.

  Key tiles outside `[first, end)` are not touched; those in the full range need
  no mask. A tile between two touched ones counts as touched.
  """
  hit, full = tile_lists.touched(mask, plan.t, plan.s, 2 * _ROWS, plan.block_kv)
  hit, full = hit[:, 0], full[:, 0]
  size = hit.shape[-1]
  tile = jnp.arange(size, dtype=jnp.int32)
  first = jnp.where(hit, tile, size).min(-1)
  end = jnp.where(hit, tile + 1, 0).max(-1)
  full = full & (tile >= first[..., None]) & (tile < end[..., None])
  start = jnp.where(full, tile, size).min(-1)
  # The full range is the run that starts at the first full tile.
  broken = (tile >= start[..., None]) & ~full
  stop = jnp.where(broken, tile, size).min(-1)
  none = start >= size
  start, stop = jnp.where(none, end, start), jnp.where(none, end, stop)
  return jnp.stack([first, start, jnp.minimum(stop, end), end], -1)


def _scratch(plan: _Plan) -> dict[str, Any]:
  h, dtype = plan.head_dim, plan.dtype
  # The interpreter knows no layouts.
  transforms = () if plan.interpret else _TRANSFORMS
  tile = lambda *shape: plgpu.SMEM(shape, dtype, transforms=transforms)
  slots = plan.num_stages
  barrier = plgpu.Barrier
  return {
    'q_s': tile(2, _ROWS, h),
    'k_s': tile(slots, plan.block_kv, h),
    'v_s': tile(slots, plan.block_kv, h),
    'lse_s': plgpu.SMEM((2, _ROWS), jnp.float32),
    'q_full': barrier(num_barriers=2),
    'k_full': barrier(num_barriers=slots),
    'v_full': barrier(num_barriers=slots),
    'k_free': barrier(num_arrivals=2, num_barriers=slots),
    'v_free': barrier(num_arrivals=2, num_barriers=slots),
    'turn': barrier(num_arrivals=2),
  }


def _kernel(plan: _Plan, names, *refs, **scratch):
  refs = dict(zip((*names, 'out', 'lse'), refs, strict=True)) | scratch
  head, batch = jax.lax.axis_index('head'), jax.lax.axis_index('batch')
  tile = plan.num_q - 1 - jax.lax.axis_index('tile')
  row = batch if plan.mask_batch > 1 else 0
  ranges = [refs['ranges'][row, tile, x] for x in range(4)]
  wg = jax.lax.axis_index('wg')

  @pl.when(wg < 2)
  def _():
    if not plan.interpret:
      plgpu.set_max_registers(232, action='increase')
    _compute(plan, refs, wg, batch, head, tile, row, ranges)

  @pl.when(wg == 2)
  def _():
    if not plan.interpret:
      plgpu.set_max_registers(40, action='decrease')
    _copy(plan, refs, batch, head, ranges)


def _copy(plan: _Plan, refs, batch, head, ranges):
  """Streams key and value tiles, then waits until all slots are free."""
  first, end = ranges[0], ranges[3]
  number = jnp.maximum(end - first, 0)
  slots = plan.num_stages
  kv_head = jax.lax.div(head, jnp.int32(plan.group))
  if 'kv_batch' in refs:
    batch = refs['kv_batch'][batch]

  loop = functools.partial(
    _compat.mgpu_loop, carry=(), most=plan.num_kv, interpret=plan.interpret
  )

  def fetch(step, carry):
    slot = jax.lax.rem(step, jnp.int32(slots))
    keys = pl.ds((first + step) * plan.block_kv, plan.block_kv)
    for name in ('k', 'v'):

      @pl.when(step >= slots)
      def _(name=name):
        plgpu.barrier_wait(refs[f'{name}_free'].at[slot])

      _compat.mgpu_copy_in(
        (refs[name], (batch, keys, kv_head)),
        (refs[f'{name}_s'], (slot,)),
        refs[f'{name}_full'].at[slot],
        interpret=plan.interpret,
      )

    return carry

  def drain(step, carry):
    slot = jax.lax.rem(step, jnp.int32(slots))
    plgpu.barrier_wait(refs['k_free'].at[slot])
    plgpu.barrier_wait(refs['v_free'].at[slot])
    return carry

  loop(0, number, fetch)
  loop(jnp.maximum(number - slots, 0), number, drain)


def _take_turn(refs):
  plgpu.barrier_arrive(refs['turn'])
  plgpu.barrier_wait(refs['turn'])


def _compute(plan: _Plan, refs, wg, batch, head, tile, mask_row, ranges):
  row0 = tile * (2 * _ROWS) + wg * _ROWS
  rows = pl.ds(row0, _ROWS)
  _compat.mgpu_copy_in(
    (refs['q'], (batch, rows, head)),
    (refs['q_s'], (wg,)),
    refs['q_full'].at[wg],
    interpret=plan.interpret,
  )
  plgpu.barrier_wait(refs['q_full'].at[wg])
  cast = functools.partial(_compat.layout_cast, interpret=plan.interpret)
  column, matrix = plgpu.Layout.WGMMA.reduce(1), plgpu.Layout.WGMMA
  carry = (
    cast(jnp.full((_ROWS,), -jnp.inf, jnp.float32), column),
    cast(jnp.zeros((_ROWS,), jnp.float32), column),
    cast(jnp.zeros((_ROWS, plan.head_dim), jnp.float32), matrix),
  )
  bounds = _load_bounds(plan, refs, mask_row, rows)
  first, full, partial, end = ranges
  step = functools.partial(_step, plan, refs, wg, row0, bounds, first)
  # One warpgroup starts half a step later, so that they alternate.
  pl.when(wg == 1)(lambda: _take_turn(refs))
  masked = functools.partial(step, True)
  loop = functools.partial(
    _compat.mgpu_loop, most=plan.num_kv, interpret=plan.interpret
  )
  if plan.band.is_masked:
    carry = loop(first, full, masked, carry)
  carry = loop(full, partial, functools.partial(step, False), carry)
  if plan.band.is_masked:
    carry = loop(partial, end, masked, carry)
  pl.when(wg == 0)(lambda: _take_turn(refs))
  _finish(plan, refs, wg, batch, head, rows, carry)


def _load_bounds(plan: _Plan, refs, mask_row, rows):
  """Start and end of each interval as row vectors; None for bands."""
  if not plan.band.num_intervals:
    return None
  column = plgpu.Layout.WGMMA.reduce(1)
  load = lambda x: _compat.mgpu_load(
    (refs['bounds'], (mask_row, x, rows)), column, interpret=plan.interpret
  )
  return [
    (load(2 * x), load(2 * x + 1)) for x in range(plan.band.num_intervals)
  ]


def _step(plan, refs, wg, row0, bounds, first, masked, tile, carry):
  """One key tile."""
  top, total, acc = carry
  slot = jax.lax.rem(tile - first, jnp.int32(plan.num_stages))
  shape = (_ROWS, plan.block_kv)
  plgpu.barrier_wait(refs['k_full'].at[slot])

  s = _compat.wgmma_nt(
    (refs['q_s'], wg),
    (refs['k_s'], slot),
    shape,
    meanwhile=lambda: _take_turn(refs),
    interpret=plan.interpret,
  )
  plgpu.barrier_arrive(refs['k_free'].at[slot])
  s = _capped(plan, s)
  if masked:
    s = jnp.where(_seen(plan, bounds, row0, tile, shape), s, -jnp.inf)
  spread = lambda x, like: jax.lax.broadcast_in_dim(x, like, [0])
  new = jnp.maximum(top, s.max(axis=1))
  base = jnp.where(new == -jnp.inf, 0.0, new) if masked else new
  keep = jnp.exp2(top - base)
  p = jnp.exp2(s - spread(base, shape))
  total = total * keep + p.sum(axis=1)
  acc = acc * spread(keep, acc.shape)
  p = p.astype(plan.dtype)
  if not plan.interpret:
    acc, total, new, p = jax.lax.optimization_barrier((acc, total, new, p))
  plgpu.barrier_arrive(refs['turn'])
  plgpu.barrier_wait(refs['v_full'].at[slot])
  plgpu.barrier_wait(refs['turn'])
  acc = _compat.wgmma_add(acc, p, (refs['v_s'], slot), interpret=plan.interpret)
  plgpu.barrier_arrive(refs['v_free'].at[slot])
  return new, total, acc


def _capped(plan: _Plan, s: jax.Array) -> jax.Array:
  """Scores in base 2."""
  if plan.softcap is None:
    return s * (plan.scale * _LOG2E)
  unit = jnp.tanh(s * (plan.scale / plan.softcap))
  return unit * (plan.softcap * _LOG2E)


def _seen(plan: _Plan, bounds, row0, tile, shape) -> jax.Array:
  iota = functools.partial(_compat.mgpu_iota, interpret=plan.interpret)
  pos = iota(shape, 1) + tile * plan.block_kv
  if bounds is None:
    return tile_lists.visible(plan.band, None, iota(shape, 0) + row0, pos)
  spread = lambda x: jax.lax.broadcast_in_dim(x, shape, [0])
  spread_bounds = [(spread(a), spread(b)) for a, b in bounds]
  return tile_lists.visible(plan.band, spread_bounds, None, pos)


def _finish(plan: _Plan, refs, wg, batch, head, rows, carry):
  top, total, acc = carry
  base = jnp.where(top == -jnp.inf, 0.0, top)
  spread = lambda x: jax.lax.broadcast_in_dim(x, acc.shape, [0])
  if plan.has_sink:
    sink = refs['sink'][head] * _LOG2E
    higher = jnp.where(top == -jnp.inf, sink, jnp.maximum(top, sink))
    keep = jnp.exp2(top - higher)
    total = keep * total + jnp.exp2(sink - higher)
    acc, base = acc * spread(keep), higher
  has = total > 0
  total = jnp.where(has, total, 1.0)
  acc = acc / spread(total)
  lse = (base + jnp.log(total) * _LOG2E) / _LOG2E
  refs['lse_s'][wg] = jnp.where(has, lse, -jnp.inf)
  out = (refs['out'], (batch, rows, head))
  copy_out = functools.partial(_compat.mgpu_copy_out, interpret=plan.interpret)
  if plan.out_dtype == plan.dtype:
    refs['q_s'][wg] = acc.astype(plan.dtype)
    copy_out((refs['q_s'], wg), out)
  else:
    refs['out'][batch, rows, head] = acc
  copy_out((refs['lse_s'], wg), (refs['lse'], (batch, head, rows)))
  if not plan.interpret:
    plgpu.wait_smem_to_gmem(0)

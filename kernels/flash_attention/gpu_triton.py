# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention for NVIDIA GPUs (Pallas Triton), forward and backward.

Forward: grid (t tiles, n, b); a program holds its query tile, running max, sum
and accumulator in registers and walks its key tiles: first those that need no
mask, then the partial ones.
Backward: dk, dv with grid (s tiles, k, b), which walks the query tiles of all
query heads of the group; dq with grid (t tiles, n, b). 7 matmuls,
deterministic.
Bytes: q and out once; k and v once per query tile, from L2. FLOPs: 4 h per
visible pair forward, 14 h backward. exp2 with log2(e) folded into the scale.

docs/kernels.md says what was verified how, and the times on an H200.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtok_kernels import masks, tuning
from jaxtok_kernels.flash_attention import cost, tile_lists
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.state import AttentionState

_LOG2E = math.log2(math.e)


def unsupported(
  q_btnh, k_bskh, v_bskh, mask: masks.MaskSpec, bias, state_in
) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  del state_in
  if bias is not None and mask.block_lists is not None:
    return 'bias cannot be combined with mask.block_lists'
  if mask.tree_bits is not None:
    return 'mask.tree_bits is not supported'
  if q_btnh.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
    return f'q_btnh of type {q_btnh.dtype} is not supported'
  if max(q_btnh.shape[-1], v_bskh.shape[-1]) > 256:
    return f'q_btnh of width {q_btnh.shape[-1]} > 256 is not supported'
  if (lists := mask.block_lists) is None:
    return None
  if mask.kv_pos is not None:
    # A full block with padding keys is neither without a mask nor by intervals.
    return 'mask.kv_pos cannot be combined with mask.block_lists'
  if k_bskh.shape[1] % lists.block_kv or q_btnh.shape[1] % lists.block_q:
    return (
      'mask.block_lists needs lengths that are multiples of its blocks '
      f'({lists.block_q}, {lists.block_kv})'
    )
  for size in (lists.block_q, lists.block_kv):
    if size & (size - 1) or not 16 <= size <= 128:
      return (
        f'mask.block_lists has blocks of {lists.block_q} x {lists.block_kv}; '
        'they must be powers of two from 16 to 128'
      )
  return None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings of a call."""

  b: int
  t: int
  s: int
  n: int
  k: int
  tiles: cost.TritonTiles
  scale: float
  softcap: float | None
  band: tile_lists.Band
  mask_batch: int
  mask_heads: int
  has_sink: bool
  has_state: bool
  out_dtype: Any
  precision: Any
  interpret: Any

  @property
  def group(self) -> int:
    return self.n // self.k

  @property
  def block_q(self) -> int:
    return self.tiles.block_q

  @property
  def block_kv(self) -> int:
    return self.tiles.block_kv

  @property
  def num_q(self) -> int:
    return -(-self.t // self.block_q)

  @property
  def num_kv(self) -> int:
    return -(-self.s // self.block_kv)


def _plan(q, k, mask, options: Options, interpret, tiles, **flags) -> _Plan:
  b, t, n, _ = q.shape
  s, heads = k.shape[1:3]
  if (lists := mask.block_lists) is not None:
    tiles = dataclasses.replace(
      tiles, block_q=lists.block_q, block_kv=lists.block_kv
    )
  padded = -(-s // tiles.block_kv) * tiles.block_kv
  return _Plan(
    b=b,
    t=t,
    s=s,
    n=n,
    k=heads,
    tiles=tiles,
    scale=options.scale,
    softcap=options.softcap,
    band=tile_lists.band(mask, s, padded),
    mask_batch=mask.batch,
    mask_heads=1 if lists is None else lists.ids.shape[1],
    out_dtype=options.out_dtype or jnp.float32,
    precision=(jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None),
    interpret=interpret,
    **flags,
  )


def _width(h: int) -> int:
  """Head widths must be powers of two of at least 16."""
  return max(16, 1 << (h - 1).bit_length())


def _padded(x: jax.Array, size: int, block: int) -> jax.Array:
  """Pads the length to whole tiles and the head to a power of two."""
  pads = [(0, 0)] * x.ndim
  pads[1] = (0, -size % block)
  if x.ndim == 4:
    pads[3] = (0, _width(x.shape[3]) - x.shape[3])
  return jnp.pad(x, pads) if any(p != (0, 0) for p in pads) else x


def _keys(x_bskh, mask: masks.MaskSpec | None, plan: _Plan) -> jax.Array:
  """Padded; what nobody sees becomes 0, it may be NaN.

  The forward pass needs it for values only, which 0 * NaN would leak: scores of
  hidden keys are masked.
  """
  if mask is not None and tile_lists.hides_keys(mask, plan.t, plan.s):
    used = tile_lists.used_keys(mask, plan.t, plan.s)
    x_bskh = jnp.where(used[..., None, None], x_bskh, 0)
  return _padded(x_bskh, plan.s, plan.block_kv)


def _lists(mask, plan: _Plan, *, by_key: bool = False):
  """Tiles to visit, full ones first: ids, numbers of full and of all tiles."""
  hit, full = tile_lists.touched(
    mask, plan.t, plan.s, plan.block_q, plan.block_kv
  )
  shape = (plan.mask_batch, plan.mask_heads, *hit.shape[2:])
  hit, full = jnp.broadcast_to(hit, shape), jnp.broadcast_to(full, shape)
  if by_key:
    hit, full = hit.swapaxes(2, 3), full.swapaxes(2, 3)
  full = hit & full
  order = jnp.argsort(~hit * 2 + ~full, axis=-1, stable=True)
  number = lambda x: x.sum(-1, dtype=jnp.int32)
  return order.astype(jnp.int32), jnp.stack([number(full), number(hit)], -1)


def _mask_operands(mask, plan: _Plan):
  found = {}
  if plan.band.num_intervals:
    bounds = tile_lists.row_bounds(
      mask, plan.t, plan.s, plan.num_q * plan.block_q
    )
    found['bounds'] = bounds.swapaxes(1, 2)
  if plan.band.has_positions:
    pos = mask.key_positions(plan.s)
    pad = ((0, 0), (0, plan.num_kv * plan.block_kv - plan.s))
    found['pos'] = jnp.pad(pos, pad, constant_values=-1)
  return found


def _call(kernel, plan: _Plan, name, grid, operands, specs, outs):
  out_specs, out_shape = zip(*outs, strict=True)
  names = tuple(operands)
  return pl.pallas_call(
    functools.partial(kernel, plan, names),
    grid=grid,
    in_specs=[specs[x] for x in names],
    out_specs=list(out_specs),
    out_shape=list(out_shape),
    compiler_params=plt.CompilerParams(
      num_warps=plan.tiles.num_warps, num_stages=plan.tiles.num_stages
    ),
    interpret=plan.interpret,
    name=name,
  )(*operands.values())


def _mask_specs(operands, plan: _Plan, num_outer: int):
  """Specs of lists, bounds and positions; grid is (outer tile, head, b)."""

  def at(name, *place):
    shared_batch = name in operands and operands[name].shape[0] == 1
    return lambda i, h, b: (0 if shared_batch else b, *(f(i, h) for f in place))

  zero, tile = lambda i, h: 0, lambda i, h: i
  ratio = num_outer  # Grid heads per key head.
  head = lambda i, h: h // ratio if plan.mask_heads > 1 else 0
  found = {}
  for name in ('ids', 'counts'):
    size = operands[name].shape[-1]
    found[name] = pl.BlockSpec(
      (None, None, None, size), at(name, head, tile, zero)
    )
  if 'bounds' in operands:
    shape = operands['bounds'].shape
    found['bounds'] = pl.BlockSpec((None, *shape[1:]), at('bounds', zero, zero))
  if 'pos' in operands:
    size = operands['pos'].shape[1]
    found['pos'] = pl.BlockSpec((None, size), at('pos', zero))
  return found


def forward(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  sink_n: jax.Array | None,
  state_in: AttentionState | None,
  options: Options,
  *,
  bias: jax.Array | None = None,
  kv_batch: jax.Array | None = None,
  interpret: Any = False,
) -> AttentionState:
  """Attention over the visible keys, sinks and the incoming state.

  With `kv_batch`, an int32 `[b]`, element i of the queries reads element
  `kv_batch[i]` of the keys, which must hold no NaN; the mask is the queries'.
  """
  h, hv = q_btnh.shape[-1], v_bskh.shape[-1]
  plan = _plan(
    q_btnh,
    k_bskh,
    mask,
    options,
    interpret,
    options.tiles or _tiles(q_btnh, max(h, hv)),
    has_sink=sink_n is not None,
    has_state=state_in is not None,
  )
  t_pad = plan.num_q * plan.block_q
  ids, counts = _lists(mask, plan)
  own_mask = mask if kv_batch is None else None
  operands = {
    'q': _padded(q_btnh, plan.t, plan.block_q),
    'k': _padded(k_bskh, plan.s, plan.block_kv),
    'v': _keys(v_bskh, own_mask, plan),
    'ids': ids,
    'counts': counts,
    **_mask_operands(mask, plan),
    **_extras(bias, kv_batch, sink_n, state_in, plan),
  }
  specs = _forward_specs(operands, plan)
  wide_v = operands['v'].shape[-1]
  out, lse_bnt = _call(
    _forward_kernel,
    plan,
    'flash_attention_forward',
    (plan.num_q, plan.n, plan.b),
    operands,
    specs,
    [
      (
        specs['out_in'],
        jax.ShapeDtypeStruct((plan.b, t_pad, plan.n, wide_v), plan.out_dtype),
      ),
      (
        specs['lse_in'],
        jax.ShapeDtypeStruct((plan.b, plan.n, t_pad), jnp.float32),
      ),
    ],
  )
  return AttentionState(
    out[:, : plan.t, :, :hv], lse_bnt[..., : plan.t].swapaxes(1, 2)
  )


def _tiles(q_btnh: jax.Array, width: int) -> cost.TritonTiles:
  t, itemsize = q_btnh.shape[1], q_btnh.dtype.itemsize
  tiles = cost.triton_tiles(t, width, itemsize)
  if t <= tiles.block_q:
    return tiles
  sizes, default = {'t': t, 'h': width}, dataclasses.asdict(tiles)
  found = tuning.config(
    'flash_attention', 'triton', q_btnh.dtype, sizes, default
  )
  return cost.TritonTiles(**found)


def _backward_tiles(q_btnh: jax.Array, width: int) -> cost.TritonTiles:
  tiles = cost.triton_backward_tiles(width, q_btnh.dtype.itemsize)
  sizes = {'t': q_btnh.shape[1], 'h': width}
  found = tuning.config(
    'flash_attention_backward',
    'triton',
    q_btnh.dtype,
    sizes,
    dataclasses.asdict(tiles),
  )
  return cost.TritonTiles(**found)


def _bias(bias: jax.Array, plan: _Plan) -> jax.Array:
  """`[b|1, n|1, t padded, s padded]`."""
  pads = (0, -plan.t % plan.block_q), (0, -plan.s % plan.block_kv)
  return jnp.pad(bias, ((0, 0), (0, 0), *pads))


def _extras(bias, kv_batch, sink_n, state_in, plan: _Plan):
  found = {}
  if bias is not None:
    found['bias'] = _bias(bias, plan)
  if kv_batch is not None:
    found['kv_batch'] = kv_batch
  if sink_n is not None:
    found['sink'] = sink_n.astype(jnp.float32)
  if state_in is not None:
    out = state_in.out.astype(jnp.float32)
    found['out_in'] = _padded(out, plan.t, plan.block_q)
    pads = ((0, 0), (0, -plan.t % plan.block_q), (0, 0))
    lse_btn = jnp.pad(state_in.lse, pads, constant_values=-jnp.inf)
    found['lse_in'] = lse_btn.swapaxes(1, 2)
  return found


def _forward_specs(operands, plan: _Plan):
  """Block specs; the grid is (query tile, head, batch element)."""
  bq = plan.block_q
  wide, wide_v = operands['q'].shape[-1], operands['v'].shape[-1]
  rows = lambda x: pl.BlockSpec(
    (None, bq, None, x), lambda i, h, b: (b, i, h, 0)
  )

  def keys(x):
    elements, length = operands['k'].shape[:2]
    head = lambda h: h // plan.group
    if 'kv_batch' not in operands:
      block = (None, length, None, x)
      return pl.BlockSpec(block, lambda i, h, b: (b, 0, head(h), 0))
    block = (elements, length, None, x)
    return pl.BlockSpec(block, lambda i, h, b: (0, 0, head(h), 0))

  found = {
    'q': rows(wide),
    'k': keys(wide),
    'v': keys(wide_v),
    'kv_batch': pl.BlockSpec((None,), lambda i, h, b: (b,)),
    'sink': pl.BlockSpec((None,), lambda i, h, b: (h,)),
    'out_in': rows(wide_v),
    'lse_in': pl.BlockSpec((None, None, bq), lambda i, h, b: (b, h, i)),
    **_mask_specs(operands, plan, plan.group),
  }
  if 'bias' in operands:
    c, n, _, s = operands['bias'].shape
    at = lambda size, place: place if size > 1 else 0
    found['bias'] = pl.BlockSpec(
      (None, None, bq, s), lambda i, h, b: (at(c, b), at(n, h), i, 0)
    )
  return found


def _forward_kernel(plan: _Plan, names, *refs):
  refs = dict(zip((*names, 'out', 'lse'), refs, strict=True))
  q = refs['q'][...]
  row = pl.program_id(0) * plan.block_q + jnp.arange(plan.block_q)
  bounds = _load_bounds(plan, refs, pl.program_id(0))
  element = (refs['kv_batch'][...],) if 'kv_batch' in refs else ()

  def step(masked, j, carry):
    top, total, acc = carry
    tile = refs['ids'][j]
    keys = pl.ds(tile * plan.block_kv, plan.block_kv)
    s, _ = _capped(plan, _dot(plan, q, refs['k'][*element, keys, :].T))
    if 'bias' in refs:
      s = s + refs['bias'][:, keys].astype(jnp.float32) * _LOG2E
    if masked:
      pos = _positions(plan, refs, tile)
      seen = tile_lists.visible(plan.band, bounds, row[:, None], pos[None, :])
      s = jnp.where(seen, s, -jnp.inf)
    new = jnp.maximum(top, s.max(axis=1))
    base = jnp.where(new == -jnp.inf, 0.0, new)
    p = jnp.exp2(s - base[:, None])
    keep = jnp.exp2(top - base)
    v = refs['v'][*element, keys, :]
    acc = acc * keep[:, None] + _dot(plan, p.astype(v.dtype), v)
    return new, total * keep + p.sum(axis=1), acc

  carry = _walk(plan, refs, step, _start(plan, refs))
  _finish(plan, refs, *carry)


def _walk(plan: _Plan, refs, step, carry):
  """Runs `step(masked, j, carry)` over the full, then the partial tiles."""
  num_full, count = refs['counts'][0], refs['counts'][1]
  carry = jax.lax.fori_loop(0, num_full, functools.partial(step, False), carry)
  if not plan.band.is_masked:
    return carry
  return jax.lax.fori_loop(
    num_full, count, functools.partial(step, True), carry
  )


def _load_bounds(plan: _Plan, refs, tile):
  """Start and end columns `[bq, 1]` of each interval; None for bands."""
  if not plan.band.num_intervals:
    return None
  part = pl.ds(tile * plan.block_q, plan.block_q)
  load = lambda x: refs['bounds'][x, part][:, None]
  return [
    (load(2 * x), load(2 * x + 1)) for x in range(plan.band.num_intervals)
  ]


def _positions(plan: _Plan, refs, tile) -> jax.Array:
  start = tile * plan.block_kv
  if plan.band.has_positions:
    return refs['pos'][pl.ds(start, plan.block_kv)]
  return start + jnp.arange(plan.block_kv)


def _dot(plan: _Plan, a: jax.Array, b: jax.Array) -> jax.Array:
  return jax.lax.dot(
    a, b, precision=plan.precision, preferred_element_type=jnp.float32
  )


def _capped(plan: _Plan, s: jax.Array):
  """Scores in base 2 and the slope of the soft cap (None without one)."""
  if plan.softcap is None:
    return s * (plan.scale * _LOG2E), None
  unit = jnp.tanh(s * (plan.scale / plan.softcap))
  return unit * (plan.softcap * _LOG2E), 1 - unit * unit


def _start(plan: _Plan, refs):
  bq, wide = plan.block_q, refs['v'].shape[-1]
  if not plan.has_state:
    return (
      jnp.full((bq,), -jnp.inf, jnp.float32),
      jnp.zeros((bq,), jnp.float32),
      jnp.zeros((bq, wide), jnp.float32),
    )
  top = refs['lse_in'][...] * _LOG2E
  return top, jnp.where(top > -jnp.inf, 1.0, 0.0), refs['out_in'][...]


def _finish(plan: _Plan, refs, top, total, acc):
  base = jnp.where(top == -jnp.inf, 0.0, top)
  if plan.has_sink:
    sink = jnp.full_like(top, refs['sink'][...] * _LOG2E)
    higher = jnp.where(top == -jnp.inf, sink, jnp.maximum(top, sink))
    keep = jnp.exp2(top - higher)
    total = keep * total + jnp.exp2(sink - higher)
    acc, base = acc * keep[:, None], higher
  has = total > 0
  total = jnp.where(has, total, 1.0)
  out = acc / total[:, None]
  refs['out'][...] = out.astype(refs['out'].dtype)
  lse = (base + jnp.log2(total)) / _LOG2E
  refs['lse'][...] = jnp.where(has, lse, -jnp.inf)


def backward(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  lse_btn: jax.Array,
  dout_btnh: jax.Array,
  delta_btn: jax.Array,
  options: Options,
  *,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Cotangents of q, k and v; `delta` as in the xla form."""
  h, hv = q_btnh.shape[-1], v_bskh.shape[-1]
  tiles = _backward_tiles(q_btnh, max(h, hv))
  plan = _plan(
    q_btnh,
    k_bskh,
    mask,
    options,
    interpret,
    options.tiles or tiles,
    has_sink=False,
    has_state=False,
  )
  pad_rows = lambda x, fill: jnp.pad(
    x,
    ((0, 0), (0, plan.num_q * plan.block_q - plan.t), (0, 0)),
    constant_values=fill,
  ).swapaxes(1, 2)
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  operands = {
    'q': _padded(q_btnh, plan.t, plan.block_q),
    'dout': _padded(dout_btnh.astype(q_btnh.dtype), plan.t, plan.block_q),
    'k': _keys(k_bskh, mask, plan),
    'v': _keys(v_bskh, mask, plan),
    'lse': pad_rows(lse_btn * _LOG2E, jnp.inf),
    'delta': pad_rows(delta_btn, 0.0),
    **_mask_operands(mask, plan),
  }
  dq = _backward_queries(operands, mask, plan)
  dk, dv = _backward_keys(operands, mask, plan)
  return (
    dq[:, : plan.t, :, :h].astype(q_btnh.dtype),
    dk[:, : plan.s, :, :h].astype(k_bskh.dtype),
    dv[:, : plan.s, :, :hv].astype(v_bskh.dtype),
  )


def _with_lists(operands, mask, plan: _Plan, *, by_key: bool):
  ids, counts = _lists(mask, plan, by_key=by_key)
  return operands | {'ids': ids, 'counts': counts}


def _backward_queries(operands, mask, plan: _Plan) -> jax.Array:
  operands = _with_lists(operands, mask, plan, by_key=False)
  bq = plan.block_q
  rows = lambda x: pl.BlockSpec(
    (None, bq, None, operands[x].shape[-1]), lambda i, h, b: (b, i, h, 0)
  )
  keys = lambda x: pl.BlockSpec(
    (None, operands[x].shape[1], None, operands[x].shape[-1]),
    lambda i, h, b: (b, 0, h // plan.group, 0),
  )
  stats = pl.BlockSpec((None, None, bq), lambda i, h, b: (b, h, i))
  specs = {
    'q': rows('q'),
    'dout': rows('dout'),
    'k': keys('k'),
    'v': keys('v'),
    'lse': stats,
    'delta': stats,
    **_mask_specs(operands, plan, plan.group),
  }
  shape = operands['q'].shape
  (dq,) = _call(
    _backward_queries_kernel,
    plan,
    'flash_attention_dq',
    (plan.num_q, plan.n, plan.b),
    operands,
    specs,
    [(rows('q'), jax.ShapeDtypeStruct(shape, jnp.float32))],
  )
  return dq


def _backward_queries_kernel(plan: _Plan, names, *refs):
  refs = dict(zip((*names, 'dq'), refs, strict=True))
  q, dout = refs['q'][...], refs['dout'][...]
  lse, delta = refs['lse'][...], refs['delta'][...]
  row = pl.program_id(0) * plan.block_q + jnp.arange(plan.block_q)
  bounds = _load_bounds(plan, refs, pl.program_id(0))

  def step(masked, j, dq):
    tile = refs['ids'][j]
    keys = pl.ds(tile * plan.block_kv, plan.block_kv)
    k, v = refs['k'][keys, :], refs['v'][keys, :]
    seen = None
    if masked:
      pos = _positions(plan, refs, tile)
      seen = tile_lists.visible(plan.band, bounds, row[:, None], pos[None, :])
    _, ds = _cotangents(plan, q, k, v, dout, lse, delta, seen)
    return dq + _dot(plan, ds.astype(k.dtype), k)

  start = jnp.zeros(refs['dq'].shape, jnp.float32)
  refs['dq'][...] = plan.scale * _walk(plan, refs, step, start)


def _cotangents(plan: _Plan, q, k, v, dout, lse, delta, seen):
  """p and ds `[bq, bkv]`, float32."""
  s, slope = _capped(plan, _dot(plan, q, k.T))
  if seen is not None:
    s = jnp.where(seen, s, -jnp.inf)
  p = jnp.exp2(s - lse[:, None])
  ds = p * (_dot(plan, dout, v.T) - delta[:, None])
  return p, ds if slope is None else ds * slope


def _backward_keys(operands, mask, plan: _Plan):
  operands = _with_lists(operands, mask, plan, by_key=True)
  bkv, g = plan.block_kv, plan.group
  keys = lambda x: pl.BlockSpec(
    (None, bkv, None, operands[x].shape[-1]), lambda i, h, b: (b, i, h, 0)
  )
  # The g query heads of key head h are the h-th block of g heads.
  rows = lambda x: pl.BlockSpec(
    (None, operands[x].shape[1], g, operands[x].shape[-1]),
    lambda i, h, b: (b, 0, h, 0),
  )
  stats = pl.BlockSpec(
    (None, g, operands['lse'].shape[-1]), lambda i, h, b: (b, h, 0)
  )
  specs = {
    'q': rows('q'),
    'dout': rows('dout'),
    'k': keys('k'),
    'v': keys('v'),
    'lse': stats,
    'delta': stats,
    **_mask_specs(operands, plan, 1),
  }
  shape = lambda x: jax.ShapeDtypeStruct(operands[x].shape, jnp.float32)
  return _call(
    _backward_keys_kernel,
    plan,
    'flash_attention_dkv',
    (plan.num_kv, plan.k, plan.b),
    operands,
    specs,
    [(keys('k'), shape('k')), (keys('v'), shape('v'))],
  )


def _backward_keys_kernel(plan: _Plan, names, *refs):
  refs = dict(zip((*names, 'dk', 'dv'), refs, strict=True))
  k, v = refs['k'][...], refs['v'][...]
  pos = _positions(plan, refs, pl.program_id(0))

  def head(x, carry):
    def step(masked, j, carry):
      dk, dv = carry
      tile = refs['ids'][j]
      part = pl.ds(tile * plan.block_q, plan.block_q)
      q, dout = refs['q'][part, x, :], refs['dout'][part, x, :]
      lse, delta = refs['lse'][x, part], refs['delta'][x, part]
      seen = None
      if masked:
        row = tile * plan.block_q + jnp.arange(plan.block_q)
        bounds = _load_bounds(plan, refs, tile)
        seen = tile_lists.visible(plan.band, bounds, row[:, None], pos[None, :])
      p, ds = _cotangents(plan, q, k, v, dout, lse, delta, seen)
      dv = dv + _dot(plan, p.astype(dout.dtype).T, dout)
      return dk + _dot(plan, ds.astype(q.dtype).T, q), dv

    return _walk(plan, refs, step, carry)

  start = tuple(jnp.zeros(refs[x].shape, jnp.float32) for x in ('dk', 'dv'))
  dk, dv = jax.lax.fori_loop(0, plan.group, head, start)
  refs['dk'][...] = plan.scale * dk
  refs['dv'][...] = dv


def column_sums(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  mask: masks.MaskSpec,
  lse_btn: jax.Array,
  weight_btn: jax.Array,
  options: Options,
  *,
  interpret: Any = False,
) -> jax.Array:
  """Attention mass that each key receives, `[b, s, n]`; see the xla form.

  Grid (s tiles, n, b); one matmul per pair.
  """
  h = q_btnh.shape[-1]
  tiles = cost.triton_backward_tiles(h, q_btnh.dtype.itemsize)
  plan = _plan(
    q_btnh,
    k_bskh,
    mask,
    options,
    interpret,
    options.tiles or tiles,
    has_sink=False,
    has_state=False,
  )
  more = ((0, 0), (0, plan.num_q * plan.block_q - plan.t), (0, 0))
  rows = lambda x, fill: jnp.pad(x, more, constant_values=fill).swapaxes(1, 2)
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  operands = {
    'q': _padded(q_btnh, plan.t, plan.block_q),
    'k': _keys(k_bskh, mask, plan),
    'lse': rows(lse_btn * _LOG2E, jnp.inf),
    'weight': rows(weight_btn.astype(jnp.float32), 0.0),
    **_mask_operands(mask, plan),
  }
  operands = _with_lists(operands, mask, plan, by_key=True)
  t_pad, wide = operands['q'].shape[1], operands['q'].shape[-1]
  stats = pl.BlockSpec((None, None, t_pad), lambda i, h, b: (b, h, 0))
  out = pl.BlockSpec((None, None, plan.block_kv), lambda i, h, b: (b, h, i))
  specs = {
    'q': pl.BlockSpec((None, t_pad, None, wide), lambda i, h, b: (b, 0, h, 0)),
    'k': pl.BlockSpec(
      (None, plan.block_kv, None, wide),
      lambda i, h, b: (b, i, h // plan.group, 0),
    ),
    'lse': stats,
    'weight': stats,
    **_mask_specs(operands, plan, plan.group),
  }
  shape = (plan.b, plan.n, operands['k'].shape[1])
  (sums_bns,) = _call(
    _column_sums_kernel,
    plan,
    'flash_attention_column_sums',
    (plan.num_kv, plan.n, plan.b),
    operands,
    specs,
    [(out, jax.ShapeDtypeStruct(shape, jnp.float32))],
  )
  return sums_bns[..., : plan.s].swapaxes(1, 2)


def _column_sums_kernel(plan: _Plan, names, *refs):
  refs = dict(zip((*names, 'out'), refs, strict=True))
  k = refs['k'][...]
  pos = _positions(plan, refs, pl.program_id(0))

  def step(masked, j, sums):
    tile = refs['ids'][j]
    part = pl.ds(tile * plan.block_q, plan.block_q)
    s, _ = _capped(plan, _dot(plan, refs['q'][part, :], k.T))
    if masked:
      row = tile * plan.block_q + jnp.arange(plan.block_q)
      bounds = _load_bounds(plan, refs, tile)
      seen = tile_lists.visible(plan.band, bounds, row[:, None], pos[None, :])
      s = jnp.where(seen, s, -jnp.inf)
    p = jnp.exp2(s - refs['lse'][part][:, None])
    return sums + (p * refs['weight'][part][:, None]).sum(axis=0)

  start = jnp.zeros((plan.block_kv,), jnp.float32)
  refs['out'][...] = _walk(plan, refs, step, start)

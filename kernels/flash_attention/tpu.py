# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention for TPU (Pallas Mosaic), forward and backward.

Forward: grid (b, k, t tiles, s tiles); the last axis walks the list of key
tiles that the query tile touches (scalar prefetch: codes and counts in SMEM),
steps past its count fetch and compute nothing. The g query heads of a key head
are rows of one matmul, so that keys are read once per group.
  VMEM per step: q [g bq, h], k and v [bkv, h] (double buffered), acc [g bq, h]
  f32, running max and lane-wise partial sums [g bq, 128] f32.
Backward: two kernels, 7 matmuls, deterministic. dk, dv walk the query tiles of
a key tile, dq the key tiles of a query tile; both compute the transposed
scores [bkv, bq], so that lse and delta are row vectors.
Bytes: q, out once; k, v once per query tile. FLOPs: 4 h per visible pair
forward, 14 h backward. exp2 with log2(e) folded into the scale.

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
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import cost, tile_lists, tpu_masks
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.state import AttentionState

_LANES = 128
_LOG2E = math.log2(math.e)
_NT = (((1,), (1,)), ((), ()))  # a @ b.T
_NN = (((1,), (0,)), ((), ()))  # a @ b
_TN = (((0,), (0,)), ((), ()))  # a.T @ b


def unsupported(
  q_btnh, k_bskh, v_bskh, mask: masks.MaskSpec, bias, state_in
) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  del v_bskh, state_in
  if bias is not None and mask.block_lists is not None:
    return 'bias cannot be combined with mask.block_lists'
  if mask.tree_bits is not None:
    return 'mask.tree_bits is not supported'
  if q_btnh.dtype not in (jnp.float32, jnp.bfloat16):
    return f'q_btnh of type {q_btnh.dtype} is not supported'
  if (lists := mask.block_lists) is None:
    return None
  if k_bskh.shape[1] % lists.block_kv or q_btnh.shape[1] % lists.block_q:
    return (
      'mask.block_lists needs lengths that are multiples of its blocks '
      f'({lists.block_q}, {lists.block_kv})'
    )
  # The log-sum-exp has a row per lane, so that tiles of rows are 128 wide.
  lanes = 16 if lists.block_q == q_btnh.shape[1] else _LANES
  if lists.block_q % lanes or lists.block_kv % _LANES:
    return (
      f'mask.block_lists has blocks of {lists.block_q} x {lists.block_kv}; '
      'they must be multiples of 128 x 128, or of 16 x 128 if one block holds '
      'all rows'
    )
  return None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings of a call."""

  b: int
  t: int
  s: int
  k: int
  g: int
  block_q: int
  block_kv: int
  block_compute: int
  scale: float
  softcap: float | None
  band: tile_lists.Band
  mask_batch: int
  mask_heads: int
  has_lists: bool
  has_sink: bool
  has_state: bool
  has_lse: bool
  out_dtype: Any
  precision: Any
  interpret: Any

  @property
  def num_q(self) -> int:
    return -(-self.t // self.block_q)

  @property
  def num_kv(self) -> int:
    return -(-self.s // self.block_kv)

  @property
  def t_pad(self) -> int:
    return self.num_q * self.block_q

  @property
  def s_pad(self) -> int:
    return self.num_kv * self.block_kv

  @property
  def has_one_body(self) -> bool:
    """Whether all tiles share one code.

    A band costs two vector operations per score, which hide behind the matrix
    unit; a second body without them would double the program. Listed blocks
    may be visible beyond the band.
    """
    return not self.band.num_intervals and not self.has_lists

  def list_index(self, b, h, outer, inner, num_outer: int, num_inner: int):
    """Place of an entry in flattened codes; counts have `num_inner = 1`."""
    b = b if self.mask_batch > 1 else 0
    h = h if self.mask_heads > 1 else 0
    return ((b * self.mask_heads + h) * num_outer + outer) * num_inner + inner


def _plan(q, k, mask, options: Options, interpret, **flags) -> _Plan:
  b, t, n, h = q.shape
  s, heads = k.shape[1:3]
  tiles = options.tiles or cost.tpu_tiles(t, s, h, n // heads)
  if (lists := mask.block_lists) is not None:
    tiles = cost.TpuTiles(
      lists.block_q, lists.block_kv, min(lists.block_kv, tiles.block_compute)
    )
  s_pad = -(-s // tiles.block_kv) * tiles.block_kv
  precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
  return _Plan(
    b=b,
    t=t,
    s=s,
    k=heads,
    g=n // heads,
    block_q=tiles.block_q,
    block_kv=tiles.block_kv,
    block_compute=tiles.block_compute,
    scale=options.scale,
    softcap=options.softcap,
    band=tile_lists.band(mask, s, s_pad),
    mask_batch=mask.batch,
    mask_heads=1 if lists is None else lists.ids.shape[1],
    has_lists=lists is not None,
    has_lse=options.has_lse,
    out_dtype=options.out_dtype or jnp.float32,
    precision=precision,
    interpret=interpret,
    **flags,
  )


def _backward_plan(q, k, mask, options: Options, interpret) -> _Plan:
  if options.tiles is None:
    (t, n, h), (s, heads) = q.shape[1:], k.shape[1:3]
    tiles = cost.tpu_backward_tiles(t, s, h, n // heads)
    options = dataclasses.replace(options, tiles=tiles)
  flags = dict(has_sink=False, has_state=False)
  return _plan(q, k, mask, options, interpret, **flags)


def _queries(x_btnh: jax.Array, plan: _Plan) -> jax.Array:
  """`[b, k, g, t padded, h]`."""
  b, t, _, h = x_btnh.shape
  x = x_btnh.reshape(b, t, plan.k, plan.g, h).transpose(0, 2, 3, 1, 4)
  return jnp.pad(x, ((0, 0),) * 3 + ((0, plan.t_pad - t), (0, 0)))


def _rows(x_btn: jax.Array, plan: _Plan, fill: float) -> jax.Array:
  """`[b, k, g, t padded]`."""
  b, t, _ = x_btn.shape
  x = x_btn.reshape(b, t, plan.k, plan.g).transpose(0, 2, 3, 1)
  pad = ((0, 0),) * 3 + ((0, plan.t_pad - t),)
  return jnp.pad(x, pad, constant_values=fill)


def _keys(x_bskh, mask: masks.MaskSpec | None, plan: _Plan) -> jax.Array:
  """`[b, k, s padded, h]`; keys that nobody sees become 0, they may be NaN."""
  if mask is not None and tile_lists.hides_keys(mask, plan.t, plan.s):
    used = tile_lists.used_keys(mask, plan.t, plan.s)
    x_bskh = jnp.where(used[..., None, None], x_bskh, 0)
  x = x_bskh.transpose(0, 2, 1, 3)
  return jnp.pad(x, ((0, 0), (0, 0), (0, plan.s_pad - plan.s), (0, 0)))


def _bias(bias: jax.Array, plan: _Plan) -> jax.Array:
  """`[b|1, k|1, g|1, t padded, s padded]`."""
  c, n, t, s = bias.shape
  pads = ((0, 0), (0, 0), (0, plan.t_pad - t), (0, plan.s_pad - s))
  heads = (plan.k, plan.g) if n > 1 else (1, 1)
  return jnp.pad(bias, pads).reshape(c, *heads, plan.t_pad, plan.s_pad)


def _from_queries(x_bkgth: jax.Array, plan: _Plan) -> jax.Array:
  x = x_bkgth[:, :, :, : plan.t].transpose(0, 3, 1, 2, 4)
  return x.reshape(plan.b, plan.t, plan.k * plan.g, -1)


def _lists(mask, plan: _Plan, *, by_key: bool = False):
  """Flattened codes, counts and the number of steps of the last grid axis."""
  hit, full = tile_lists.touched(
    mask, plan.t, plan.s, plan.block_q, plan.block_kv
  )
  shape = (plan.mask_batch, plan.mask_heads, *hit.shape[2:])
  hit, full = jnp.broadcast_to(hit, shape), jnp.broadcast_to(full, shape)
  if by_key:
    hit, full = hit.swapaxes(2, 3), full.swapaxes(2, 3)
  lists = tile_lists.tile_lists(hit, full)
  return lists.codes.ravel(), lists.count.ravel()


def _mask_operands(mask, plan: _Plan, *, transposed: bool):
  """Row bounds and key positions as operands, `{}` for bands."""
  found = {}
  if plan.band.num_intervals:
    bounds = tile_lists.row_bounds(mask, plan.t, plan.s, plan.t_pad)
    found['bounds'] = bounds.swapaxes(1, 2) if transposed else bounds
  if plan.band.has_positions:
    pos = mask.key_positions(plan.s)
    pad = ((0, 0), (0, plan.s_pad - plan.s))
    pos = jnp.pad(pos, pad, constant_values=-1)
    found['pos'] = pos[:, :, None] if transposed else pos[:, None, :]
  return found


def _call(
  kernel, plan: _Plan, name, grid, operands, specs, lists, outs, scratch
):
  """`pallas_call` with named operands after the two prefetched lists."""
  out_specs, out_shape = zip(*outs, strict=True)
  names = tuple(operands)
  return pl.pallas_call(
    functools.partial(kernel, plan, names),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=grid,
      in_specs=[specs[x] for x in names],
      out_specs=list(out_specs),
      scratch_shapes=scratch,
    ),
    out_shape=list(out_shape),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'parallel', 'arbitrary'),
    ),
    interpret=plan.interpret,
    name=name,
  )(*lists, *(operands[x] for x in names))


def _lanes(x: jax.Array, size: int) -> jax.Array:
  """Lane-replicated `[rows, 128]` as `[rows, size]`."""
  if size <= _LANES:
    return x[:, :size]
  whole, rest = divmod(size, _LANES)
  parts = [x] * whole + ([x[:, :rest]] if rest else [])
  return jnp.concatenate(parts, axis=1)


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
  plan = _plan(
    q_btnh,
    k_bskh,
    mask,
    options,
    interpret,
    has_sink=sink_n is not None,
    has_state=state_in is not None,
  )
  codes, counts = _lists(mask, plan)
  kv_batch_at, own_mask = None, mask
  if kv_batch is not None:
    kv_batch_at, own_mask = counts.shape[0], None
    counts = jnp.concatenate([counts, kv_batch])
  operands = {
    'q': _queries(q_btnh, plan),
    'k': _keys(k_bskh, own_mask, plan),
    'v': _keys(v_bskh, own_mask, plan),
    **_mask_operands(mask, plan, transposed=False),
    **_extras(bias, sink_n, state_in, plan),
  }
  specs = _forward_specs(operands, plan, kv_batch_at)
  hv, g = v_bskh.shape[-1], plan.g
  rows, shape = g * plan.block_q, (plan.b, plan.k, g, plan.t_pad)
  outs = [
    (specs['out_in'], jax.ShapeDtypeStruct((*shape, hv), plan.out_dtype)),
    (specs['lse_in'], jax.ShapeDtypeStruct(shape, jnp.float32)),
  ]
  scratch = [
    pltpu.VMEM((rows, width), jnp.float32) for width in (_LANES, _LANES, hv)
  ]
  out_bkgth, *lse = _call(
    _forward_kernel,
    plan,
    'flash_attention_forward',
    (plan.b, plan.k, plan.num_q, plan.num_kv),
    operands,
    specs,
    (codes, counts),
    outs if plan.has_lse else outs[:1],
    scratch,
  )
  out_btnh = _from_queries(out_bkgth, plan)
  to_btn = lambda x: x[..., : plan.t].transpose(0, 3, 1, 2)
  lse_btn = to_btn(lse[0]).reshape(q_btnh.shape[:3]) if lse else None
  return AttentionState(out_btnh, lse_btn)


def _extras(bias, sink_n, state_in, plan: _Plan) -> dict[str, jax.Array]:
  found = {} if bias is None else {'bias': _bias(bias, plan)}
  if sink_n is not None:
    found['sink'] = sink_n.astype(jnp.float32)
  if state_in is not None:
    found['out_in'] = _queries(state_in.out.astype(jnp.float32), plan)
    found['lse_in'] = _rows(state_in.lse, plan, -jnp.inf)
  return found


def _forward_specs(operands, plan: _Plan, kv_batch_at: int | None):
  """Block specs; `kv_batch_at` is where `kv_batch` starts in the counts."""
  h, hv = operands['q'].shape[-1], operands['v'].shape[-1]
  bq, bkv, g = plan.block_q, plan.block_kv, plan.g

  def tile(b, h, i, j, codes):
    return codes[plan.list_index(b, h, i, j, plan.num_q, plan.num_kv)] >> 1

  def by_key(b, h, i, j, codes, counts):
    element = b if kv_batch_at is None else counts[kv_batch_at + b]
    return element, h, tile(b, h, i, j, codes), 0

  def by_pair(b, h, i, j, codes, _):
    bias = operands['bias']
    head = h if bias.shape[1] > 1 else 0
    return at('bias', b), head, 0, i, tile(b, h, i, j, codes)

  at = lambda name, b: b if operands[name].shape[0] > 1 else 0
  by_row = lambda b, h, i, j, *_: (b, h, 0, i, 0)
  found = {
    'q': pl.BlockSpec((1, 1, g, bq, h), by_row),
    'k': pl.BlockSpec((1, 1, bkv, h), by_key),
    'v': pl.BlockSpec((1, 1, bkv, hv), by_key),
    'bounds': pl.BlockSpec(
      (1, bq, 2 * plan.band.num_intervals),
      lambda b, h, i, j, *_: (at('bounds', b), i, 0),
    ),
    'pos': pl.BlockSpec(
      (1, 1, bkv),
      lambda b, h, i, j, codes, _: (at('pos', b), 0, tile(b, h, i, j, codes)),
    ),
    'sink': pl.BlockSpec(memory_space=pltpu.SMEM),
    'out_in': pl.BlockSpec((1, 1, g, bq, hv), by_row),
    'lse_in': pl.BlockSpec((1, 1, g, bq), lambda b, h, i, j, *_: (b, h, 0, i)),
  }
  if 'bias' in operands:
    heads = operands['bias'].shape[2]
    found['bias'] = pl.BlockSpec((1, 1, heads, bq, bkv), by_pair)
  return found


def _forward_kernel(plan: _Plan, names, codes, counts, *refs):
  outs = ('out', 'lse') if plan.has_lse else ('out',)
  refs = dict(zip((*names, *outs, 'm', 'l', 'acc'), refs, strict=True))
  b, h, i, j = (pl.program_id(x) for x in range(4))
  num = pl.num_programs(3)
  count = counts[plan.list_index(b, h, i, 0, plan.num_q, 1)]
  code = codes[plan.list_index(b, h, i, j, plan.num_q, plan.num_kv)]
  live, full = j < count, code & 1 == 1

  @pl.when(j == 0)
  def _():
    _start(plan, refs)

  row0, key0 = i * plan.block_q, (code >> 1) * plan.block_kv
  attend = functools.partial(_attend, plan, refs, row0, key0)
  if plan.has_one_body:
    pl.when(live)(lambda: attend(masked=plan.band.is_masked))
  else:
    pl.when(live & full)(lambda: attend(masked=False))
    pl.when(live & ~full)(lambda: attend(masked=True))

  @pl.when(j == num - 1)
  def _():
    _finish(plan, refs, h)


def _start(plan: _Plan, refs):
  m, l, acc = refs['m'], refs['l'], refs['acc']
  if not plan.has_state:
    m[...] = jnp.full_like(m, -jnp.inf)
    l[...] = jnp.zeros_like(l)
    acc[...] = jnp.zeros_like(acc)
    return
  first_lane = jax.lax.broadcasted_iota(jnp.int32, l.shape, 1) == 0
  top = _to_column(refs['lse_in'][0, 0] * _LOG2E, plan)
  m[...] = top
  # l holds partial sums per lane: the state's weight 1 goes to one lane.
  l[...] = jnp.where(first_lane & (top > -jnp.inf), 1.0, 0.0)
  acc[...] = refs['out_in'][0, 0].reshape(acc.shape)


def _to_column(x_gt: jax.Array, plan: _Plan) -> jax.Array:
  """Row vectors `[g, bq]` as lane-replicated columns `[g bq, 128]`."""
  columns = [
    jnp.broadcast_to(x_gt[i : i + 1], (_LANES, plan.block_q)).T
    for i in range(plan.g)
  ]
  return jnp.concatenate(columns, axis=0)


def _attend(plan: _Plan, refs, row0, key0, *, masked: bool):
  """One key tile: online softmax over its compute tiles."""
  rows = plan.g * plan.block_q
  q = refs['q'][0, 0].reshape(rows, -1)
  size = plan.block_compute

  def step(c):
    start = pl.multiple_of(c * size, size)
    part = pl.ds(start, size)
    s = _dot(plan, q, refs['k'][0, 0, part, :], _NT)
    s = _capped(plan, s)[0]
    if 'bias' in refs:
      s = s + _bias_tile(plan, refs['bias'], part)
    if masked:
      seen = tpu_masks.seen_rows(plan, refs, row0, key0 + start, part)
      s = jnp.where(seen, s, -jnp.inf)
    _update(plan, refs, s, refs['v'][0, 0, part, :], masked)

  # A loop, not an unrolled one: half the program, and the matrix unit is full.
  num = plan.block_kv // size
  step(0) if num == 1 else pl.loop(0, num)(step)


def _bias_tile(plan: _Plan, ref, part) -> jax.Array:
  """The bias in base 2, `[g bq, compute tile]`."""
  heads = ref.shape[2]
  tiles = [ref[0, 0, x, :, part].astype(jnp.float32) for x in range(heads)]
  tiles *= plan.g // heads
  whole = jnp.concatenate(tiles, axis=0) if plan.g > 1 else tiles[0]
  return whole * _LOG2E


def _capped(plan: _Plan, s: jax.Array):
  """Scores in base 2 and the slope of the soft cap (None without one)."""
  if plan.softcap is None:
    return s * (plan.scale * _LOG2E), None
  unit = jnp.tanh(s * (plan.scale / plan.softcap))
  return unit * (plan.softcap * _LOG2E), 1 - unit * unit


def _update(plan: _Plan, refs, s, v, masked: bool):
  m, l, acc = refs['m'], refs['l'], refs['acc']
  size = s.shape[1]
  old = m[...]
  new = jnp.maximum(old, s.max(axis=1, keepdims=True))
  base = jnp.where(new == -jnp.inf, 0.0, new) if masked else new
  p = jnp.exp2(s - _lanes(base, size))
  keep = jnp.exp2(old - base)
  m[...] = new
  # Sums stay per lane until the end: no reduction over lanes here.
  if size < _LANES:
    l[:, :size] = keep[:, :size] * l[:, :size] + p
  else:
    folded = p[:, :_LANES]
    for x in range(1, size // _LANES):
      folded = folded + p[:, x * _LANES : (x + 1) * _LANES]
    l[...] = keep * l[...] + folded
  pv = _dot(plan, p.astype(v.dtype), v, _NN)
  acc[...] = _lanes(keep, acc.shape[1]) * acc[...] + pv


def _finish(plan: _Plan, refs, head):
  top = refs['m'][...]
  total = jnp.broadcast_to(refs['l'][...].sum(axis=1, keepdims=True), top.shape)
  acc = refs['acc'][...]
  base = jnp.where(top == -jnp.inf, 0.0, top)
  if plan.has_sink:
    sink = [
      jnp.full((plan.block_q, _LANES), refs['sink'][head * plan.g + x])
      for x in range(plan.g)
    ]
    sink = jnp.concatenate(sink, axis=0) * _LOG2E
    higher = jnp.where(top == -jnp.inf, sink, jnp.maximum(top, sink))
    keep = jnp.exp2(top - higher)
    total = keep * total + jnp.exp2(sink - higher)
    acc = _lanes(keep, acc.shape[1]) * acc
    base = higher
  has = total > 0
  total = jnp.where(has, total, 1.0)
  out = acc / _lanes(total, acc.shape[1])
  out_ref = refs['out']
  out_ref[0, 0] = out.reshape(out_ref.shape[2:]).astype(out_ref.dtype)
  if not plan.has_lse:
    return
  lse = jnp.where(has, (base + jnp.log2(total)) / _LOG2E, -jnp.inf)
  bq = plan.block_q
  # Whole [bq, 128] transposes take libtpu a minute to compile for v5e.
  size = _LANES if bq % _LANES == 0 else bq
  for x in range(plan.g):
    for y in range(0, bq, size):
      part = lse[x * bq + y : x * bq + y + size]
      refs['lse'][0, 0, x : x + 1, y : y + size] = part.T[:1]


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
  plan = _backward_plan(q_btnh, k_bskh, mask, options, interpret)
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  operands = {
    'q': _queries(q_btnh, plan),
    'k': _keys(k_bskh, mask, plan),
    'v': _keys(v_bskh, mask, plan),
    'dout': _queries(dout_btnh.astype(q_btnh.dtype), plan),
    'lse': _rows(lse_btn * _LOG2E, plan, jnp.inf),
    'delta': _rows(delta_btn, plan, 0.0),
    **_mask_operands(mask, plan, transposed=True),
  }
  dq_bkgth = _backward_queries(operands, mask, plan)
  dk_bksh, dv_bksh = _backward_keys(operands, mask, plan)
  to_keys = lambda x, y: x[:, :, : plan.s].transpose(0, 2, 1, 3).astype(y.dtype)
  return (
    _from_queries(dq_bkgth, plan).astype(q_btnh.dtype),
    to_keys(dk_bksh, k_bskh),
    to_keys(dv_bksh, v_bskh),
  )


def _backward_specs(operands, plan: _Plan, q_tile, kv_tile):
  """Block specs; `q_tile` and `kv_tile` map grid indices to tile numbers."""
  h, hv = operands['q'].shape[-1], operands['v'].shape[-1]
  bq, bkv, g = plan.block_q, plan.block_kv, plan.g
  mb = lambda x: lambda b: b if operands[x].shape[0] > 1 else 0
  queries = lambda *x: (x[0], x[1], 0, q_tile(*x), 0)
  keys = lambda *x: (x[0], x[1], kv_tile(*x), 0)
  rows = lambda *x: (x[0], x[1], 0, q_tile(*x))
  return {
    'q': pl.BlockSpec((1, 1, g, bq, h), queries),
    'dout': pl.BlockSpec((1, 1, g, bq, hv), queries),
    'k': pl.BlockSpec((1, 1, bkv, h), keys),
    'v': pl.BlockSpec((1, 1, bkv, hv), keys),
    'lse': pl.BlockSpec((1, 1, g, bq), rows),
    'delta': pl.BlockSpec((1, 1, g, bq), rows),
    'bounds': pl.BlockSpec(
      (1, 2 * plan.band.num_intervals, bq),
      lambda *x: (mb('bounds')(x[0]), 0, q_tile(*x)),
    ),
    'pos': pl.BlockSpec(
      (1, bkv, 1), lambda *x: (mb('pos')(x[0]), kv_tile(*x), 0)
    ),
  }


def _backward_queries(operands, mask, plan: _Plan) -> jax.Array:
  steps = plan.num_kv

  def kv_tile(b, h, i, j, codes, _):
    return codes[plan.list_index(b, h, i, j, plan.num_q, steps)] >> 1

  specs = _backward_specs(operands, plan, lambda b, h, i, *_: i, kv_tile)
  q = operands['q']
  (dq,) = _call(
    _backward_queries_kernel,
    plan,
    'flash_attention_dq',
    (plan.b, plan.k, plan.num_q, steps),
    operands,
    specs,
    _lists(mask, plan),
    [(specs['q'], jax.ShapeDtypeStruct(q.shape, jnp.float32))],
    [pltpu.VMEM((plan.g * plan.block_q, q.shape[-1]), jnp.float32)],
  )
  return dq


def _backward_keys(operands, mask, plan: _Plan):
  steps = plan.num_q

  def q_tile(b, h, i, j, codes, _):
    return codes[plan.list_index(b, h, i, j, plan.num_kv, steps)] >> 1

  specs = _backward_specs(operands, plan, q_tile, lambda b, h, i, *_: i)
  shape = lambda x: jax.ShapeDtypeStruct(operands[x].shape, jnp.float32)
  acc = lambda x: pltpu.VMEM(
    (plan.block_kv, operands[x].shape[-1]), jnp.float32
  )
  return _call(
    _backward_keys_kernel,
    plan,
    'flash_attention_dkv',
    (plan.b, plan.k, plan.num_kv, steps),
    operands,
    specs,
    _lists(mask, plan, by_key=True),
    [(specs['k'], shape('k')), (specs['v'], shape('v'))],
    [acc('k'), acc('v')],
  )


def _walk(plan: _Plan, codes, counts, num_outer: int, num_inner: int, work):
  """Runs `work(outer, inner tile, masked)` for the live steps of the grid."""
  b, h, outer, j = (pl.program_id(x) for x in range(4))
  count = counts[plan.list_index(b, h, outer, 0, num_outer, 1)]
  code = codes[plan.list_index(b, h, outer, j, num_outer, num_inner)]
  live, full = j < count, code & 1 == 1
  if plan.has_one_body:
    pl.when(live)(lambda: work(outer, code >> 1, plan.band.is_masked))
    return
  pl.when(live & full)(lambda: work(outer, code >> 1, False))
  pl.when(live & ~full)(lambda: work(outer, code >> 1, True))


def _backward_queries_kernel(plan: _Plan, names, codes, counts, *refs):
  refs = dict(zip((*names, 'dq', 'acc'), refs, strict=True))
  acc, j = refs['acc'], pl.program_id(3)

  @pl.when(j == 0)
  def _():
    acc[...] = jnp.zeros_like(acc)

  def work(i, tile, masked):
    for x, part, _, ds in _cotangents(plan, refs, i, tile, masked):
      rows = pl.ds(x * plan.block_q, plan.block_q)
      k = refs['k'][0, 0, part, :]
      acc[rows, :] += _dot(plan, ds.astype(k.dtype), k, _TN)

  _walk(plan, codes, counts, plan.num_q, plan.num_kv, work)

  @pl.when(j == pl.num_programs(3) - 1)
  def _():
    refs['dq'][0, 0] = (plan.scale * acc[...]).reshape(refs['dq'].shape[2:])


def _backward_keys_kernel(plan: _Plan, names, codes, counts, *refs):
  refs = dict(zip((*names, 'dk', 'dv', 'acc_k', 'acc_v'), refs, strict=True))
  acc_k, acc_v, j = refs['acc_k'], refs['acc_v'], pl.program_id(3)

  @pl.when(j == 0)
  def _():
    acc_k[...] = jnp.zeros_like(acc_k)
    acc_v[...] = jnp.zeros_like(acc_v)

  def work(i, tile, masked):
    for x, part, p, ds in _cotangents(plan, refs, tile, i, masked):
      q, dout = refs['q'][0, 0, x], refs['dout'][0, 0, x]
      acc_v[part, :] += _dot(plan, p.astype(dout.dtype), dout, _NN)
      acc_k[part, :] += _dot(plan, ds.astype(q.dtype), q, _NN)

  _walk(plan, codes, counts, plan.num_kv, plan.num_q, work)

  @pl.when(j == pl.num_programs(3) - 1)
  def _():
    refs['dk'][0, 0] = plan.scale * acc_k[...]
    refs['dv'][0, 0] = acc_v[...]


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

  The grid of the dk, dv kernel without the values: one matmul per pair.
  """
  plan = _backward_plan(q_btnh, k_bskh, mask, options, interpret)
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  keys = _keys(k_bskh, mask, plan)
  operands = {
    'q': _queries(q_btnh, plan),
    'k': keys,
    'lse': _rows(lse_btn * _LOG2E, plan, jnp.inf),
    'weight': _rows(weight_btn.astype(jnp.float32), plan, 0.0),
    **_mask_operands(mask, plan, transposed=True),
  }
  steps = plan.num_q

  def q_tile(b, h, i, j, codes, _):
    return codes[plan.list_index(b, h, i, j, plan.num_kv, steps)] >> 1

  # The specs need an operand `v`; it is not passed to the kernel.
  specs = _backward_specs(
    operands | {'v': keys}, plan, q_tile, lambda b, h, i, *_: i
  )
  specs['weight'] = specs['lse']
  out = pl.BlockSpec(
    (1, 1, plan.g, plan.block_kv), lambda b, h, i, *_: (b, h, 0, i)
  )
  shape = (plan.b, plan.k, plan.g, plan.s_pad)
  (sums_bkgs,) = _call(
    _column_sums_kernel,
    plan,
    'flash_attention_column_sums',
    (plan.b, plan.k, plan.num_kv, steps),
    operands,
    specs,
    _lists(mask, plan, by_key=True),
    [(out, jax.ShapeDtypeStruct(shape, jnp.float32))],
    [pltpu.VMEM((plan.g, plan.block_kv, _LANES), jnp.float32)],
  )
  sums_bskg = sums_bkgs[..., : plan.s].transpose(0, 3, 1, 2)
  return sums_bskg.reshape(plan.b, plan.s, -1)


def _column_sums_kernel(plan: _Plan, names, codes, counts, *refs):
  refs = dict(zip((*names, 'out', 'acc'), refs, strict=True))
  acc, j = refs['acc'], pl.program_id(3)

  @pl.when(j == 0)
  def _():
    acc[...] = jnp.zeros_like(acc)

  def work(i, tile, masked):
    for x, part, p, _ in _probabilities(plan, refs, tile, i, masked):
      p = p * refs['weight'][0, 0, x : x + 1]
      acc[x, part, :] += p.sum(axis=1, keepdims=True)

  _walk(plan, codes, counts, plan.num_kv, plan.num_q, work)

  @pl.when(j == pl.num_programs(3) - 1)
  def _():
    for x in range(plan.g):
      refs['out'][0, 0, x : x + 1] = acc[x].T[:1]


def _dot(plan: _Plan, a, b, dims):
  return jax.lax.dot_general(
    a,
    b,
    dims,
    precision=plan.precision,
    preferred_element_type=jnp.float32,
  )


def _cotangents(plan: _Plan, refs, q_tile, kv_tile, masked: bool):
  """Transposed p and ds `[compute tile, bq]` of each query head and part.

  Yields:
    The head of the group, the slice of keys, p and ds (both float32).
  """
  for x, part, p, slope in _probabilities(plan, refs, q_tile, kv_tile, masked):
    v = refs['v'][0, 0, part, :]
    dp = _dot(plan, v, refs['dout'][0, 0, x], _NT)
    ds = p * (dp - refs['delta'][0, 0, x : x + 1])
    yield x, part, p, ds if slope is None else ds * slope


def _probabilities(plan: _Plan, refs, q_tile, kv_tile, masked: bool):
  """Transposed p `[compute tile, bq]`, and the slope of the soft cap."""
  size, bq = plan.block_compute, plan.block_q
  for c in range(plan.block_kv // size):
    part = pl.ds(c * size, size)
    k, seen = refs['k'][0, 0, part, :], None
    if masked:
      key0 = kv_tile * plan.block_kv + c * size
      seen = tpu_masks.seen_columns(plan, refs, q_tile * bq, key0, part)
    for x in range(plan.g):
      s, slope = _capped(plan, _dot(plan, k, refs['q'][0, 0, x], _NT))
      if masked:
        s = jnp.where(seen, s, -jnp.inf)
      yield x, part, jnp.exp2(s - refs['lse'][0, 0, x : x + 1]), slope

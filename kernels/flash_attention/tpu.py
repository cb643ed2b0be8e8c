# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention for TPU (Pallas Mosaic).

Forward: grid (b, k, t tiles, s tiles); the last axis walks the list of key
tiles that the query tile touches (scalar prefetch: codes and counts in SMEM),
steps past its count fetch and compute nothing. The g query heads of a key head
are rows of one matmul, so that keys are read once per group; more than 16 heads
(2048 rows) are cut into parts, which read them once each.
  VMEM per step: q [g bq, h], k and v [bkv, h] (double buffered), acc [g bq, h]
  f32, running max and lane-wise partial sums [g bq, 128] f32.
Bytes: q, out once; k, v once per query tile. FLOPs: 4 h per visible pair.
exp2 with log2(e) folded into the scale. Backward: `tpu_backward`.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import tpu_backward, tpu_masks, tpu_plan
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.state import AttentionState

backward = tpu_backward.backward
column_sums = tpu_backward.column_sums


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
    return tpu_plan.too_large(q_btnh, k_bskh, mask)
  if mask.kv_pos is not None:
    # A full block with padding keys is neither without a mask nor by intervals.
    return 'mask.kv_pos cannot be combined with mask.block_lists'
  if k_bskh.shape[1] % lists.block_kv or q_btnh.shape[1] % lists.block_q:
    return (
      'mask.block_lists needs lengths that are multiples of its blocks '
      f'({lists.block_q}, {lists.block_kv})'
    )
  # The log-sum-exp has a row per lane, so that tiles of rows are 128 wide.
  lanes = 16 if lists.block_q == q_btnh.shape[1] else tpu_plan.LANES
  if lists.block_q % lanes or lists.block_kv % tpu_plan.LANES:
    return (
      f'mask.block_lists has blocks of {lists.block_q} x {lists.block_kv}; '
      'they must be multiples of 128 x 128, or of 16 x 128 if one block holds '
      'all rows'
    )
  return tpu_plan.too_large(q_btnh, k_bskh, mask)


def _bias(bias: jax.Array, plan: tpu_plan.Plan) -> jax.Array:
  """`[b|1, k|1, g|1, t padded, s padded]`."""
  _, n, t, s = bias.shape
  pads = ((0, 0), (0, 0), (0, plan.t_pad - t), (0, plan.s_pad - s))
  bias = jnp.pad(bias, pads)
  return tpu_plan.by_part(bias, plan, 1) if n > 1 else bias[:, :, None]


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
  plan = tpu_plan.plan_of(
    q_btnh,
    k_bskh,
    mask,
    options,
    interpret,
    has_sink=sink_n is not None,
    has_state=state_in is not None,
  )
  codes, counts = tpu_plan.lists(mask, plan)
  kv_batch_at, own_mask = None, mask
  if kv_batch is not None:
    kv_batch_at, own_mask = counts.shape[0], None
    counts = jnp.concatenate([counts, kv_batch])
  operands = {
    'q': tpu_plan.queries(q_btnh, plan),
    'k': tpu_plan.keys(k_bskh, own_mask, plan),
    'v': tpu_plan.keys(v_bskh, own_mask, plan),
    **tpu_plan.mask_operands(mask, plan, transposed=False),
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
    pltpu.VMEM((rows, width), jnp.float32)
    for width in (tpu_plan.LANES, tpu_plan.LANES, hv)
  ]
  out_bkgth, *lse = tpu_plan.call(
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
  out_btnh = tpu_plan.from_queries(out_bkgth, plan)
  lse_btn = tpu_plan.from_rows(lse[0], plan) if lse else None
  return AttentionState(out_btnh, lse_btn)


def _extras(
  bias, sink_n, state_in, plan: tpu_plan.Plan
) -> dict[str, jax.Array]:
  found = {} if bias is None else {'bias': _bias(bias, plan)}
  if sink_n is not None:
    sink = tpu_plan.by_part(sink_n.astype(jnp.float32), plan, 0)
    found['sink'] = sink.ravel()
  if state_in is not None:
    found['out_in'] = tpu_plan.queries(state_in.out.astype(jnp.float32), plan)
    found['lse_in'] = tpu_plan.rows(state_in.lse, plan, -jnp.inf)
  return found


def _forward_specs(operands, plan: tpu_plan.Plan, kv_batch_at: int | None):
  """Block specs; `kv_batch_at` is where `kv_batch` starts in the counts."""
  h, hv = operands['q'].shape[-1], operands['v'].shape[-1]
  bq, bkv, g = plan.block_q, plan.block_kv, plan.g

  def tile(b, h, i, j, codes):
    return codes[plan.list_index(b, h, i, j, plan.num_q, plan.num_kv)] >> 1

  def by_key(b, h, i, j, codes, counts):
    element = b if kv_batch_at is None else counts[kv_batch_at + b]
    return element, plan.key_head(h), tile(b, h, i, j, codes), 0

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


def _forward_kernel(plan: tpu_plan.Plan, names, codes, counts, *refs):
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


def _start(plan: tpu_plan.Plan, refs):
  m, l, acc = refs['m'], refs['l'], refs['acc']
  if not plan.has_state:
    m[...] = jnp.full_like(m, -jnp.inf)
    l[...] = jnp.zeros_like(l)
    acc[...] = jnp.zeros_like(acc)
    return
  first_lane = jax.lax.broadcasted_iota(jnp.int32, l.shape, 1) == 0
  top = _to_column(refs['lse_in'][0, 0] * tpu_plan.LOG2E, plan)
  m[...] = top
  # l holds partial sums per lane: the state's weight 1 goes to one lane.
  l[...] = jnp.where(first_lane & (top > -jnp.inf), 1.0, 0.0)
  acc[...] = refs['out_in'][0, 0].reshape(acc.shape)


def _to_column(x_gt: jax.Array, plan: tpu_plan.Plan) -> jax.Array:
  """Row vectors `[g, bq]` as lane-replicated columns `[g bq, 128]`."""
  columns = [
    jnp.broadcast_to(x_gt[i : i + 1], (tpu_plan.LANES, plan.block_q)).T
    for i in range(plan.g)
  ]
  return jnp.concatenate(columns, axis=0)


def _attend(plan: tpu_plan.Plan, refs, row0, key0, *, masked: bool):
  """One key tile: online softmax over its compute tiles."""
  rows = plan.g * plan.block_q
  q = refs['q'][0, 0].reshape(rows, -1)
  size = plan.block_compute

  def step(c):
    start = pl.multiple_of(c * size, size)
    part = pl.ds(start, size)
    s = tpu_plan.dot(plan, q, refs['k'][0, 0, part, :], tpu_plan.NT)
    s = tpu_plan.capped(plan, s)[0]
    if 'bias' in refs:
      s = s + _bias_tile(plan, refs['bias'], part)
    if masked:
      seen = tpu_masks.seen_rows(plan, refs, row0, key0 + start, part)
      s = jnp.where(seen, s, -jnp.inf)
    hides = masked or 'bias' in refs  # A bias hides keys too, by -inf.
    _update(plan, refs, s, refs['v'][0, 0, part, :], hides)

  # A loop, not an unrolled one: half the program, and the matrix unit is full.
  num = plan.block_kv // size
  step(0) if num == 1 else pl.loop(0, num)(step)


def _bias_tile(plan: tpu_plan.Plan, ref, part) -> jax.Array:
  """The bias in base 2, `[g bq, compute tile]`."""
  heads = ref.shape[2]
  tiles = [ref[0, 0, x, :, part].astype(jnp.float32) for x in range(heads)]
  tiles *= plan.g // heads
  whole = jnp.concatenate(tiles, axis=0) if plan.g > 1 else tiles[0]
  return whole * tpu_plan.LOG2E


def _update(plan: tpu_plan.Plan, refs, s, v, hides: bool):
  """Adds a tile; with `hides` a row may have seen nothing yet."""
  m, l, acc = refs['m'], refs['l'], refs['acc']
  size = s.shape[1]
  old = m[...]
  new = jnp.maximum(old, s.max(axis=1, keepdims=True))
  base = jnp.where(new == -jnp.inf, 0.0, new) if hides else new
  p = jnp.exp2(s - tpu_plan.lanes(base, size))
  keep = jnp.exp2(old - base)
  m[...] = new
  # Sums stay per lane until the end: no reduction over lanes here.
  if size < tpu_plan.LANES:
    l[:, :size] = keep[:, :size] * l[:, :size] + p
  else:
    folded = p[:, : tpu_plan.LANES]
    for x in range(1, size // tpu_plan.LANES):
      folded = folded + p[:, x * tpu_plan.LANES : (x + 1) * tpu_plan.LANES]
    l[...] = keep * l[...] + folded
  pv = tpu_plan.dot(plan, p.astype(v.dtype), v, tpu_plan.NN)
  acc[...] = tpu_plan.lanes(keep, acc.shape[1]) * acc[...] + pv


def _finish(plan: tpu_plan.Plan, refs, head):
  top = refs['m'][...]
  total = jnp.broadcast_to(refs['l'][...].sum(axis=1, keepdims=True), top.shape)
  acc = refs['acc'][...]
  base = jnp.where(top == -jnp.inf, 0.0, top)
  if plan.has_sink:
    sink = [
      jnp.full((plan.block_q, tpu_plan.LANES), refs['sink'][head * plan.g + x])
      for x in range(plan.g)
    ]
    sink = jnp.concatenate(sink, axis=0) * tpu_plan.LOG2E
    higher = jnp.where(top == -jnp.inf, sink, jnp.maximum(top, sink))
    keep = jnp.exp2(top - higher)
    total = keep * total + jnp.exp2(sink - higher)
    acc = tpu_plan.lanes(keep, acc.shape[1]) * acc
    base = higher
  has = total > 0
  total = jnp.where(has, total, 1.0)
  out = acc / tpu_plan.lanes(total, acc.shape[1])
  out_ref = refs['out']
  out_ref[0, 0] = out.reshape(out_ref.shape[2:]).astype(out_ref.dtype)
  if not plan.has_lse:
    return
  lse = jnp.where(has, (base + jnp.log2(total)) / tpu_plan.LOG2E, -jnp.inf)
  bq = plan.block_q
  # Whole [bq, 128] transposes take libtpu a minute to compile for v5e.
  size = tpu_plan.LANES if bq % tpu_plan.LANES == 0 else bq
  for x in range(plan.g):
    for y in range(0, bq, size):
      part = lse[x * bq + y : x * bq + y + size]
      refs['lse'][0, 0, x : x + 1, y : y + size] = part.T[:1]

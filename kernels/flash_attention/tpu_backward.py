# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Backward pass of flash attention for TPU, and sums over columns.

Two kernels, 7 matmuls, deterministic. dk, dv walk the query tiles of a key
tile, dq the key tiles of a query tile; both compute the transposed scores
[bkv, bq], so that lse and delta are row vectors. FLOPs: 14 h per visible pair.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import tpu_masks, tpu_plan
from jaxtok_kernels.flash_attention.xla import Options


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
  plan = tpu_plan.backward_plan(q_btnh, k_bskh, mask, options, interpret)
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  operands = {
    'q': tpu_plan.queries(q_btnh, plan),
    'k': tpu_plan.keys(k_bskh, mask, plan),
    'v': tpu_plan.keys(v_bskh, mask, plan),
    'dout': tpu_plan.queries(dout_btnh.astype(q_btnh.dtype), plan),
    'lse': tpu_plan.rows(lse_btn * tpu_plan.LOG2E, plan, jnp.inf),
    'delta': tpu_plan.rows(delta_btn, plan, 0.0),
    **tpu_plan.mask_operands(mask, plan, transposed=True),
  }
  dq_bkgth = _backward_queries(operands, mask, plan)
  dk_bksh, dv_bksh = _backward_keys(operands, mask, plan)
  to_keys = lambda x, y: x[:, :, : plan.s].transpose(0, 2, 1, 3).astype(y.dtype)
  return (
    tpu_plan.from_queries(dq_bkgth, plan).astype(q_btnh.dtype),
    to_keys(dk_bksh, k_bskh),
    to_keys(dv_bksh, v_bskh),
  )


def _backward_specs(operands, plan: tpu_plan.Plan, q_tile, kv_tile):
  """Block specs; `q_tile` and `kv_tile` map grid indices to tile numbers."""
  h, hv = operands['q'].shape[-1], operands['v'].shape[-1]
  bq, bkv, g = plan.block_q, plan.block_kv, plan.g
  mb = lambda x: lambda b: b if operands[x].shape[0] > 1 else 0
  queries = lambda *x: (x[0], x[1], 0, q_tile(*x), 0)
  keys = lambda *x: (x[0], plan.key_head(x[1]), kv_tile(*x), 0)
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


def _backward_queries(operands, mask, plan: tpu_plan.Plan) -> jax.Array:
  steps = plan.num_kv

  def kv_tile(b, h, i, j, codes, _):
    return codes[plan.list_index(b, h, i, j, plan.num_q, steps)] >> 1

  specs = _backward_specs(operands, plan, lambda b, h, i, *_: i, kv_tile)
  q = operands['q']
  (dq,) = tpu_plan.call(
    _backward_queries_kernel,
    plan,
    'flash_attention_dq',
    (plan.b, plan.k, plan.num_q, steps),
    operands,
    specs,
    tpu_plan.lists(mask, plan),
    [(specs['q'], jax.ShapeDtypeStruct(q.shape, jnp.float32))],
    [pltpu.VMEM((plan.g * plan.block_q, q.shape[-1]), jnp.float32)],
  )
  return dq


def _backward_keys(operands, mask, plan: tpu_plan.Plan):
  steps = plan.num_q

  def q_tile(b, h, i, j, codes, _):
    return codes[plan.list_index(b, h, i, j, plan.num_kv, steps)] >> 1

  specs = _backward_specs(operands, plan, q_tile, lambda b, h, i, *_: i)
  acc = lambda x: pltpu.VMEM(
    (plan.block_kv, operands[x].shape[-1]), jnp.float32
  )
  grads = tpu_plan.call(
    _backward_keys_kernel,
    plan,
    'flash_attention_dkv',
    (plan.b, plan.k, plan.num_kv, steps),
    operands,
    specs,
    tpu_plan.lists(mask, plan, by_key=True),
    [_by_part(operands[x], plan) for x in ('k', 'v')],
    [acc('k'), acc('v')],
  )
  if plan.parts == 1:
    return grads
  cut = lambda x: x.reshape(plan.b, -1, plan.parts, *x.shape[2:])
  return [cut(x).sum(2) for x in grads]


def _by_part(x_bksh: jax.Array, plan: tpu_plan.Plan):
  """Block and shape of a cotangent of keys; each part writes its own."""
  h = x_bksh.shape[-1]
  block = (1, 1, plan.block_kv, h)
  shape = (plan.b, plan.k, plan.s_pad, h)
  return (
    pl.BlockSpec(block, lambda b, h, i, *_: (b, h, i, 0)),
    jax.ShapeDtypeStruct(shape, jnp.float32),
  )


def _walk(
  plan: tpu_plan.Plan, codes, counts, num_outer: int, num_inner: int, work
):
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


def _backward_queries_kernel(plan: tpu_plan.Plan, names, codes, counts, *refs):
  refs = dict(zip((*names, 'dq', 'acc'), refs, strict=True))
  acc, j = refs['acc'], pl.program_id(3)

  @pl.when(j == 0)
  def _():
    acc[...] = jnp.zeros_like(acc)

  def work(i, tile, masked):
    for x, part, _, ds in _cotangents(plan, refs, i, tile, masked):
      rows = pl.ds(x * plan.block_q, plan.block_q)
      k = refs['k'][0, 0, part, :]
      acc[rows, :] += tpu_plan.dot(plan, ds.astype(k.dtype), k, tpu_plan.TN)

  _walk(plan, codes, counts, plan.num_q, plan.num_kv, work)

  @pl.when(j == pl.num_programs(3) - 1)
  def _():
    refs['dq'][0, 0] = (plan.scale * acc[...]).reshape(refs['dq'].shape[2:])


def _backward_keys_kernel(plan: tpu_plan.Plan, names, codes, counts, *refs):
  refs = dict(zip((*names, 'dk', 'dv', 'acc_k', 'acc_v'), refs, strict=True))
  acc_k, acc_v, j = refs['acc_k'], refs['acc_v'], pl.program_id(3)

  @pl.when(j == 0)
  def _():
    acc_k[...] = jnp.zeros_like(acc_k)
    acc_v[...] = jnp.zeros_like(acc_v)

  def work(i, tile, masked):
    for x, part, p, ds in _cotangents(plan, refs, tile, i, masked):
      q, dout = refs['q'][0, 0, x], refs['dout'][0, 0, x]
      acc_v[part, :] += tpu_plan.dot(
        plan, p.astype(dout.dtype), dout, tpu_plan.NN
      )
      acc_k[part, :] += tpu_plan.dot(plan, ds.astype(q.dtype), q, tpu_plan.NN)

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
  plan = tpu_plan.backward_plan(q_btnh, k_bskh, mask, options, interpret)
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  keys = tpu_plan.keys(k_bskh, mask, plan)
  operands = {
    'q': tpu_plan.queries(q_btnh, plan),
    'k': keys,
    'lse': tpu_plan.rows(lse_btn * tpu_plan.LOG2E, plan, jnp.inf),
    'weight': tpu_plan.rows(weight_btn.astype(jnp.float32), plan, 0.0),
    **tpu_plan.mask_operands(mask, plan, transposed=True),
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
  (sums_bkgs,) = tpu_plan.call(
    _column_sums_kernel,
    plan,
    'flash_attention_column_sums',
    (plan.b, plan.k, plan.num_kv, steps),
    operands,
    specs,
    tpu_plan.lists(mask, plan, by_key=True),
    [(out, jax.ShapeDtypeStruct(shape, jnp.float32))],
    [pltpu.VMEM((plan.g, plan.block_kv, tpu_plan.LANES), jnp.float32)],
  )
  sums_bskg = sums_bkgs[..., : plan.s].transpose(0, 3, 1, 2)
  return tpu_plan.from_parts(sums_bskg, plan, 2)


def _column_sums_kernel(plan: tpu_plan.Plan, names, codes, counts, *refs):
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


def _cotangents(plan: tpu_plan.Plan, refs, q_tile, kv_tile, masked: bool):
  """Transposed p and ds `[compute tile, bq]` of each query head and part.

  Yields:
    The head of the group, the slice of keys, p and ds (both float32).
  """
  for x, part, p, slope in _probabilities(plan, refs, q_tile, kv_tile, masked):
    v = refs['v'][0, 0, part, :]
    dp = tpu_plan.dot(plan, v, refs['dout'][0, 0, x], tpu_plan.NT)
    ds = p * (dp - refs['delta'][0, 0, x : x + 1])
    yield x, part, p, ds if slope is None else ds * slope


def _probabilities(plan: tpu_plan.Plan, refs, q_tile, kv_tile, masked: bool):
  """Transposed p `[compute tile, bq]`, and the slope of the soft cap."""
  size, bq = plan.block_compute, plan.block_q
  for c in range(plan.block_kv // size):
    part = pl.ds(c * size, size)
    k, seen = refs['k'][0, 0, part, :], None
    if masked:
      key0 = kv_tile * plan.block_kv + c * size
      seen = tpu_masks.seen_columns(plan, refs, q_tile * bq, key0, part)
    for x in range(plan.g):
      s, slope = tpu_plan.capped(
        plan, tpu_plan.dot(plan, k, refs['q'][0, 0, x], tpu_plan.NT)
      )
      if masked:
        s = jnp.where(seen, s, -jnp.inf)
      yield x, part, jnp.exp2(s - refs['lse'][0, 0, x : x + 1]), slope

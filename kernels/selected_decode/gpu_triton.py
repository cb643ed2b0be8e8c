# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding over selected tokens for NVIDIA GPUs (Pallas Triton), split-K.

Grid (splits x row tiles, k, b). A program gathers the rows of its part of the
list, 2 h bytes per token and head in bf16, for a tile of the query rows of its
key head; the parts are merged by their log-sum-exps. Units of several tokens
are expanded to token numbers before the call, 4 bytes per token. The first
split starts from an incoming state and also visits the tail, 32 keys (one word
of bits) at a time.
Bytes: the selected tokens once, row tiles share them in L2. FLOPs: 4 h per
pair.

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
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode import cost, rows
from jaxtok_kernels.selected_decode.units import Pool, Tail, Units
from jaxtok_kernels.state import AttentionState, merge

_LOG2E = math.log2(math.e)
_WORD = 32  # Keys of the tail per word of bits.


def unsupported(q: jax.Array, pool: Pool, units: Units) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  least = 16 if units.cos is None else 32
  for width in (pool.k.shape[3], pool.value_dim):
    if width & (width - 1) or width < least:
      return (
        f'heads of width {width} are not supported: they must be a power of '
        f'two of at least {least}'
      )
  return rows.unsupported(q, pool, units)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings: `splits` parts of `size` tokens, `block` at a time."""

  splits: int
  size: int
  block: int
  num_warps: int
  rows: int
  row_tiles: int
  scale: float
  softcap: float | None
  rope: bool
  tail: int
  state_rows: int
  precision: Any


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
  b, t, n, _ = q_btnh.shape
  k = pool.num_kv_heads
  tile = cost.row_tile(t * n // k, least=16, most=128)
  q_bkrh = rows.queries(q_btnh, k, tile)
  tokens = units.ids.shape[-1] * pool.unit
  sizes = dict(k=k, h=q_btnh.shape[3], unit=pool.unit, rows=tile)
  config = tuning.config(
    'selected_decode',
    'triton',
    q_btnh.dtype,
    sizes,
    cost.triton(q_btnh.dtype.itemsize, tile),
  )
  block = config['block']
  row_tiles = q_bkrh.shape[2] // tile
  splits = cost.splits(tokens, b * k * row_tiles, config['least'])
  plan = _Plan(
    splits=splits,
    size=-(-tokens // (splits * block)) * block,
    block=block,
    num_warps=config['num_warps'],
    rows=tile,
    row_tiles=row_tiles,
    scale=options.scale,
    softcap=options.softcap,
    rope=units.cos is not None,
    tail=0 if tail is None else -(-tail.k.shape[1] // _WORD),
    state_rows=0 if state_in is None else t * n // k,
    precision=(
      jax.lax.Precision.HIGHEST if q_btnh.dtype == jnp.float32 else None
    ),
  )
  operands = _operands(plan, q_bkrh, pool, units, n // k)
  if tail is not None:
    found = rows.tail_operands(tail, n // k, q_bkrh.shape[2], _WORD)
    operands |= dict(zip(('k_tail', 'v_tail', 'bits'), found, strict=True))
  if state_in is not None:
    found = rows.state_operands(state_in, k, multiple=1)
    operands |= dict(zip(('out_in', 'lse_in'), found, strict=True))
  out, lse = _call(plan, operands, pool.v is None, interpret)
  parts = [rows.state(out[x], lse[x], t, n // k) for x in range(splits)]
  return merge(parts)


def _operands(plan: _Plan, q_bkrh, pool: Pool, units: Units, group: int):
  tokens = units.ids.shape[-1] * pool.unit
  more = (0, plan.splits * plan.size - tokens)
  pads = ((0, 0), (0, 0), more)
  pos = rows.positions(units, pool.unit, units.ids.shape[-1])
  keys, values = _tokens(pool)
  found = {
    'q': q_bkrh,
    'ids': jnp.pad(_token_numbers(units, pool.unit), pads),
    'pos': jnp.pad(pos, pads, constant_values=masks.MAX_POS),
    'count': units.count * pool.unit,
    'limit': rows.limits(units, group, q_bkrh.shape[2]),
    'k': keys,
    'v': values,
  }
  if plan.rope:
    found['cos'] = jnp.pad(units.cos, (more, (0, 0)))
    found['sin'] = jnp.pad(units.sin, (more, (0, 0)))
  return found


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


def _specs(plan: _Plan, operands, interleaved: bool) -> dict[str, Any]:
  """Blocks of all operands; grid axis 0 counts row tiles, then splits."""
  h, hv = operands['k'].shape[2], operands['v'].shape[2]
  head = lambda i: 0 if operands['ids'].shape[1] == 1 else i
  row, split = lambda x: x % plan.row_tiles, lambda x: x // plan.row_tiles
  part = pl.BlockSpec(
    (None, None, plan.size), lambda x, i, b: (b, head(i), split(x))
  )
  stride = 2 if interleaved else 1
  keys = lambda width, offset: pl.BlockSpec(
    (operands['k'].shape[0], None, width),
    lambda x, i, b: (0, stride * i + offset, 0),
  )
  whole = lambda width: pl.BlockSpec(
    (None, None, plan.tail * _WORD, width), lambda x, i, b: (b, i, 0, 0)
  )
  table = pl.BlockSpec((plan.size, h // 2), lambda x, i, b: (split(x), 0))
  return {
    'q': pl.BlockSpec(
      (None, None, plan.rows, h), lambda x, i, b: (b, i, row(x), 0)
    ),
    'ids': part,
    'pos': part,
    'count': pl.BlockSpec((None, None), lambda x, i, b: (b, head(i))),
    'limit': pl.BlockSpec((None, plan.rows), lambda x, i, b: (b, row(x))),
    'out_in': pl.BlockSpec(
      (None, None, plan.rows, hv), lambda x, i, b: (b, i, row(x), 0)
    ),
    'lse_in': pl.BlockSpec(
      (None, None, plan.rows), lambda x, i, b: (b, i, row(x))
    ),
    'k': keys(h, 0),
    'v': keys(hv, stride - 1),
    'cos': table,
    'sin': table,
    'k_tail': whole(h),
    'v_tail': whole(hv),
    'bits': pl.BlockSpec(
      (None, plan.rows, plan.tail), lambda x, i, b: (b, row(x), 0)
    ),
  }


def _call(plan: _Plan, operands, interleaved: bool, interpret):
  b, k, num_rows, _ = operands['q'].shape
  hv = operands['v'].shape[2]
  specs = _specs(plan, operands, interleaved)
  row, split = lambda x: x % plan.row_tiles, lambda x: x // plan.row_tiles
  return pl.pallas_call(
    functools.partial(_kernel, plan, tuple(operands)),
    grid=(plan.splits * plan.row_tiles, k, b),
    in_specs=[specs[x] for x in operands],
    out_specs=[
      pl.BlockSpec(
        (None, None, None, plan.rows, hv),
        lambda x, i, b: (split(x), b, i, row(x), 0),
      ),
      pl.BlockSpec(
        (None, None, None, plan.rows),
        lambda x, i, b: (split(x), b, i, row(x)),
      ),
    ],
    out_shape=[
      jax.ShapeDtypeStruct((plan.splits, b, k, num_rows, hv), jnp.float32),
      jax.ShapeDtypeStruct((plan.splits, b, k, num_rows), jnp.float32),
    ],
    compiler_params=plt.CompilerParams(num_warps=plan.num_warps, num_stages=2),
    interpret=interpret,
    name='selected_decode',
  )(*operands.values())


def _kernel(plan: _Plan, names, *refs):
  refs = dict(zip((*names, 'out', 'lse'), refs, strict=True))
  split = jax.lax.div(pl.program_id(0), jnp.int32(plan.row_tiles))
  q, limit = refs['q'][...], refs['limit'][...]
  number = jnp.clip(refs['count'][...] - split * plan.size, 0, plan.size)

  def body(i, carry):
    part = pl.ds(i * plan.block, plan.block)
    pos = refs['pos'][part]
    s = _scores(plan, refs, q, part)
    # Slots that no row sees may hold NaN, which 0 * NaN would leak.
    used = pos < limit.max()
    values = jnp.where(used[:, None], refs['v'][refs['ids'][part], :], 0)
    return _update(plan, carry, s, pos[None, :] < limit[:, None], values)

  def tail(i, carry):
    part = pl.ds(i * _WORD, _WORD)
    s = _dot(plan, q, refs['k_tail'][part, :].T)
    word = refs['bits'][:, i][:, None]
    seen = jax.lax.shift_right_logical(word, jnp.arange(_WORD)[None, :]) & 1
    return _update(plan, carry, s, seen > 0, refs['v_tail'][part, :])

  carry = _first(plan, refs, split)
  steps = jax.lax.div(number + (plan.block - 1), jnp.int32(plan.block))
  carry = jax.lax.fori_loop(0, steps, body, carry)
  if plan.tail:
    steps = jnp.where(split == 0, jnp.int32(plan.tail), jnp.int32(0))
    carry = jax.lax.fori_loop(0, steps, tail, carry)
  top, total, acc = carry
  has = total > 0
  total = jnp.where(has, total, 1.0)
  refs['out'][...] = acc / total[:, None]
  base = jnp.where(has, top, 0.0)
  lse = jnp.where(has, (base + jnp.log2(total)) / _LOG2E, -jnp.inf)
  refs['lse'][...] = lse


def _first(plan: _Plan, refs, split):
  """Nothing, or for the first split the incoming state."""
  if not plan.state_rows:
    return (
      jnp.full((plan.rows,), -jnp.inf, jnp.float32),
      jnp.zeros((plan.rows,), jnp.float32),
      jnp.zeros((plan.rows, refs['v'].shape[-1]), jnp.float32),
    )
  tile = jax.lax.rem(pl.program_id(0), jnp.int32(plan.row_tiles))
  row = tile * plan.rows + jnp.arange(plan.rows)
  inside = (row < plan.state_rows) & (split == 0)
  top = plt.load(refs['lse_in'], mask=inside, other=-jnp.inf) * _LOG2E
  out = refs['out_in']
  inside = jnp.broadcast_to(inside[:, None], out.shape)
  acc = plt.load(out, mask=inside, other=0.0)
  return top, jnp.where(top > -jnp.inf, 1.0, 0.0), acc


def _dot(plan: _Plan, a, b):
  return jax.lax.dot(
    a, b, precision=plan.precision, preferred_element_type=jnp.float32
  )


def _scores(plan: _Plan, refs, q, part):
  """`q.k` of a part of the list; halves are rotated and multiplied apart."""
  tokens = refs['ids'][part]
  if not plan.rope:
    return _dot(plan, q, refs['k'][tokens, :].T)
  half = refs['k'].shape[-1] // 2
  load = lambda ref, at, i: ref[at, pl.ds(i * half, half)]
  a, b = (load(refs['k'], tokens, i).astype(jnp.float32) for i in (0, 1))
  cos, sin = refs['cos'][part, :], refs['sin'][part, :]
  turned = a * cos - b * sin, b * cos + a * sin
  return sum(
    _dot(plan, load(refs['q'], slice(None), i), x.astype(q.dtype).T)
    for i, x in enumerate(turned)
  )


def _update(plan: _Plan, carry, s, seen, values):
  """One step of the online softmax."""
  top, total, acc = carry
  if plan.softcap is None:
    s = s * (plan.scale * _LOG2E)
  else:
    unit = jnp.tanh(s * (plan.scale / plan.softcap))
    s = unit * (plan.softcap * _LOG2E)
  s = jnp.where(seen, s, -jnp.inf)
  new = jnp.maximum(top, s.max(axis=1))
  base = jnp.where(new == -jnp.inf, 0.0, new)
  p, keep = jnp.exp2(s - base[:, None]), jnp.exp2(top - base)
  acc = acc * keep[:, None] + _dot(plan, p.astype(values.dtype), values)
  return new, total * keep + p.sum(axis=1), acc

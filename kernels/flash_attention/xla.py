# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention in plain JAX: tiles of queries times tiles of keys.

Memory is O(t + s): one score tile lives at a time and the backward pass
recomputes it from the saved log-sum-exp. Tiles without a visible pair are
skipped by loops with dynamic bounds, tiles that need no mask skip the masking.
On CPU the batch is walked in chunks so that a tile stays in the cache.

Layout inside: `[b, k, g, t, h]` with g query heads per key head k, so that one
matmul serves the whole group.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import cost
from jaxtok_kernels.state import AttentionState, empty, stats_dtype


@dataclasses.dataclass(frozen=True)
class Options:
  """Static settings of a call.

  Attributes:
    scale: Factor on `q.k`.
    softcap: Bound on the scores, None for none.
    tiles: Tile sizes, None for the implementation's choice.
    out_dtype: Name of the output's type, None for that of the statistics.
    has_lse: Whether the log-sum-exp is wanted; if not, it may be None.
  """

  scale: float
  softcap: float | None = None
  tiles: cost.Tiles | None = None
  out_dtype: str | None = None
  has_lse: bool = True

  @classmethod
  def of(
    cls, width: int, scale: float | None, softcap: float | None, **more: Any
  ) -> 'Options':
    """Checks what a caller gave.

    Args:
      width: Of the queries; the default scale is `width ** -0.5`.
      scale: Static, or None.
      softcap: Static, or None.
      **more: The other attributes.

    Raises:
      ValueError: If `scale` or `softcap` is traced or `softcap` is no bound.
    """
    for name, value in (('scale', scale), ('softcap', softcap)):
      if isinstance(value, jax.core.Tracer):
        raise ValueError(
          f'{name} is traced ({value}); it must be a number that is known when '
          'the call is traced. Multiply the queries by a scale that is not.'
        )
    if softcap is not None and not 0 < softcap < math.inf:
      raise ValueError(
        f'softcap={softcap} must be positive and finite; None is no bound.'
      )
    scale = width**-0.5 if scale is None else float(scale)
    return cls(scale, None if softcap is None else float(softcap), **more)


def is_empty(q_btnh: jax.Array, k_bskh: jax.Array) -> bool:
  """Whether there is no row or no key: no loop over tiles can run."""
  return 0 in (*q_btnh.shape[:3], k_bskh.shape[1])


class Operands(NamedTuple):
  """Arrays of a call; every leaf has a leading batch axis (of 1 if shared)."""

  q_bkgth: jax.Array
  k_bskh: jax.Array
  v_bskh: jax.Array
  rows: jax.Array | None
  pos: jax.Array | None
  lists: masks.BlockLists | None
  bits: jax.Array | None
  bias: jax.Array | None
  out_in: jax.Array | None = None
  lse_in: jax.Array | None = None


class Gradients(NamedTuple):
  """Cotangents of q, k, v and bias, float32, layout of `Operands`."""

  q_bkgth: jax.Array
  k_bskh: jax.Array
  v_bskh: jax.Array
  bias: jax.Array | None


def forward(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  bias_bnts: jax.Array | None,
  options: Options,
  state_in: AttentionState | None = None,
) -> AttentionState:
  """Attention over the keys, added to `state_in`; a sink is merged later."""
  b, t, n, _ = q_btnh.shape
  if is_empty(q_btnh, k_bskh):
    dtype = stats_dtype(q_btnh.dtype)
    state = state_in
    if state is None:
      state = empty((b, t, n, v_bskh.shape[3]), dtype)
    out_dtype = options.out_dtype or state.out.dtype
    return AttentionState(state.out.astype(out_dtype), state.lse)
  plan = _Plan.of(q_btnh, k_bskh, mask, options)
  operands = _operands(plan, q_btnh, k_bskh, v_bskh, mask, bias_bnts)
  if state_in is not None:
    k = k_bskh.shape[2]
    lse = _to_bkgth(state_in.lse[..., None], k, plan.t)[..., 0]
    out = _to_bkgth(state_in.out.astype(lse.dtype), k, plan.t)
    operands = operands._replace(out_in=out, lse_in=lse)
  fn = lambda x: _forward_chunk(plan, options, x)
  out_bkgth, lse_bkgt = _over_batch(fn, operands, b, plan.batch)
  out_btnh = _to_btnh(out_bkgth, t)
  if options.out_dtype is not None:
    out_btnh = out_btnh.astype(options.out_dtype)
  lse_btn = jnp.moveaxis(lse_bkgt[..., :t], 3, 1).reshape(b, t, n)
  return AttentionState(out_btnh, lse_btn)


def backward(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  bias_bnts: jax.Array | None,
  lse_btn: jax.Array,
  dout_btnh: jax.Array,
  delta_btn: jax.Array,
  options: Options,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
  """Cotangents of q, k, v and bias.

  Args:
    q_btnh: As in `forward`.
    k_bskh: As in `forward`.
    v_bskh: As in `forward`.
    mask: As in `forward`.
    bias_bnts: As in `forward`.
    lse_btn: Log-sum-exp of everything that was merged into the output.
    dout_btnh: Cotangent of the output.
    delta_btn: `sum_h out * dout` minus the cotangent of `lse`.
    options: As in `forward`.
  """
  if is_empty(q_btnh, k_bskh):
    operands = (q_btnh, k_bskh, v_bskh, bias_bnts)
    return tuple(jax.tree.map(jnp.zeros_like, operands))
  b, t, _, _ = q_btnh.shape
  s = k_bskh.shape[1]
  plan = _Plan.of(q_btnh, k_bskh, mask, options)
  operands = _operands(plan, q_btnh, k_bskh, v_bskh, mask, bias_bnts)
  k = k_bskh.shape[2]
  # exp(score - inf) = 0: rows without keys get no gradient.
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  row = lambda x, fill: _pad(
    x.reshape(b, t, k, -1).transpose(0, 2, 3, 1), 3, plan.t, fill
  )
  extra = (
    row(lse_btn, jnp.inf),
    row(delta_btn, 0),
    _to_bkgth(dout_btnh.astype(q_btnh.dtype), k, plan.t),
  )
  fn = lambda x: _backward_chunk(plan, options, *x)
  grads = _over_batch(fn, (operands, extra), b, plan.batch)
  dbias = grads.bias
  if bias_bnts is not None:
    dbias = _sum_to(dbias[..., :t, :s], bias_bnts.shape).astype(bias_bnts.dtype)
  return (
    _to_btnh(grads.q_bkgth, t).astype(q_btnh.dtype),
    grads.k_bskh[:, :s].astype(k_bskh.dtype),
    grads.v_bskh[:, :s].astype(v_bskh.dtype),
    dbias,
  )


def column_sums(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  mask: masks.MaskSpec,
  lse_btn: jax.Array,
  weight_btn: jax.Array,
  options: Options,
) -> jax.Array:
  """Attention mass that each key receives, `[b, s, n]` in float32.

  Args:
    q_btnh: As in `forward`.
    k_bskh: As in `forward`.
    mask: As in `forward`.
    lse_btn: Log-sum-exp of each row.
    weight_btn: Weight of each row and head.
    options: As in `forward`.
  """
  b, t, n, _ = q_btnh.shape
  s, k = k_bskh.shape[1:3]
  if is_empty(q_btnh, k_bskh):
    return jnp.zeros((b, s, n), lse_btn.dtype)
  plan = _Plan.of(q_btnh, k_bskh, mask, options)
  operands = _operands(plan, q_btnh, k_bskh, k_bskh[..., :0], mask, None)
  row = lambda x, fill: _pad(
    x.reshape(b, t, k, -1).transpose(0, 2, 3, 1), 3, plan.t, fill
  )
  lse_btn = jnp.where(jnp.isneginf(lse_btn), jnp.inf, lse_btn)
  rows = row(lse_btn, jnp.inf), row(weight_btn.astype(lse_btn.dtype), 0)
  fn = lambda x: _column_sums_chunk(plan, options, *x)
  sums_bskg = _over_batch(fn, (operands, rows), b, plan.batch)
  return sums_bskg[:, :s].reshape(b, s, n)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static sizes; `t` and `s` are padded to whole tiles."""

  num_queries: int
  num_keys: int
  block_q: int
  block_kv: int
  batch: int
  is_masked: bool

  @classmethod
  def of(cls, q_btnh, k_bskh, mask, options: Options) -> '_Plan':
    b, t, n, _ = q_btnh.shape
    s = k_bskh.shape[1]
    tiles = options.tiles or cost.xla_tiles(t, s)
    if (lists := mask.block_lists) is not None:
      tiles = cost.Tiles(lists.block_q, lists.block_kv)
    batch = b
    if dispatch.platforms() == ('cpu',):
      batch = cost.xla_batch(b, n, tiles, jax.device_count())
    return cls(
      num_queries=t,
      num_keys=s,
      block_q=tiles.block_q,
      block_kv=tiles.block_kv,
      batch=batch,
      is_masked=not mask.is_full or s % tiles.block_kv != 0,
    )

  @property
  def num_q(self) -> int:
    return -(-self.num_queries // self.block_q)

  @property
  def num_kv(self) -> int:
    return -(-self.num_keys // self.block_kv)

  @property
  def t(self) -> int:
    return self.num_q * self.block_q

  @property
  def s(self) -> int:
    return self.num_kv * self.block_kv


def _operands(plan: _Plan, q, k, v, mask, bias) -> Operands:
  t, s = q.shape[1], k.shape[1]
  rows = pos = None
  if plan.is_masked:
    rows = _pad(mask.row_intervals(t, s), 1, plan.t, 0)
    pos = _pad(mask.key_positions(s), 1, plan.s, -1)
  bits = mask.tree_bits
  if bits is not None:
    bits = _pad(bits, 1, plan.t, 0)
  if bias is not None:
    bias = _pad(_pad(bias, 2, plan.t, 0), 3, plan.s, 0)
  return Operands(
    _to_bkgth(q, k.shape[2], plan.t),
    _pad(k, 1, plan.s, 0),
    _pad(v, 1, plan.s, 0),
    rows,
    pos,
    mask.block_lists,
    bits,
    bias,
  )


def _pad(x: jax.Array, axis: int, size: int, value: Any) -> jax.Array:
  if x.shape[axis] == size:
    return x
  widths = [(0, 0)] * x.ndim
  widths[axis] = (0, size - x.shape[axis])
  return jnp.pad(x, widths, constant_values=value)


def _to_bkgth(x_btnh: jax.Array, num_kv_heads: int, size: int) -> jax.Array:
  b, t, n, h = x_btnh.shape
  x_btkgh = x_btnh.reshape(b, t, num_kv_heads, n // num_kv_heads, h)
  return _pad(x_btkgh.transpose(0, 2, 3, 1, 4), 3, size, 0)


def _to_btnh(x_bkgth: jax.Array, t: int) -> jax.Array:
  b, k, g, _, h = x_bkgth.shape
  x_btkgh = x_bkgth[..., :t, :].transpose(0, 3, 1, 2, 4)
  return x_btkgh.reshape(b, t, k * g, h)


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  axes = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] > 1)
  return x.sum(axes, keepdims=True) if axes else x


def _over_batch(fn: Callable, operands: Any, b: int, batch: int) -> Any:
  """Applies `fn` to `batch` elements at a time; shared leaves stay whole.

  The chunk's elements are strided over the batch, so that a batch sharded over
  devices stays sharded inside each step.
  """
  if batch == b:
    return fn(operands)
  leaves, tree = jax.tree.flatten(operands)
  is_split = [x.shape[0] == b for x in leaves]
  split = [x for x, y in zip(leaves, is_split, strict=True) if y]
  split = [x.reshape(batch, b // batch, *x.shape[1:]) for x in split]

  def step(i):
    chunk = iter(
      [jax.lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for x in split]
    )
    mixed = [
      next(chunk) if y else x for x, y in zip(leaves, is_split, strict=True)
    ]
    return fn(jax.tree.unflatten(tree, mixed))

  result = jax.lax.map(step, jnp.arange(b // batch))
  return jax.tree.map(
    lambda x: jnp.moveaxis(x, 0, 1).reshape(b, *x.shape[2:]), result
  )


class _Walk(NamedTuple):
  """Which key tiles each query tile visits: full ones first, then partial.

  Attributes:
    ids: `[t tiles, m]` if all batch elements visit the same tiles, else (block
      lists) `[b|1, k|1, t tiles, m]`.
    num_full: `[t tiles]`, tiles that need no mask.
    count: `[t tiles]`, all tiles to visit.
    lists: The mask's block lists, whose `full` and `count` are per element.
  """

  ids: jax.Array
  num_full: jax.Array
  count: jax.Array
  lists: masks.BlockLists | None = None


def _walk(plan: _Plan, x: Operands) -> _Walk:
  if (lists := x.lists) is not None:
    count = lists.count.max((0, 1)).astype(jnp.int32)
    return _Walk(lists.ids, jnp.zeros_like(count), count, lists)
  if not plan.is_masked or x.bits is not None or plan.num_kv == 1:
    ids = jnp.arange(plan.num_kv, dtype=jnp.int32)
    ids = jnp.broadcast_to(ids, (plan.num_q, plan.num_kv))
    count = jnp.full(plan.num_q, plan.num_kv, jnp.int32)
    return _Walk(ids, count * (not plan.is_masked), count)
  touched, full = masks.touched_tiles(
    x.rows, x.pos, plan.block_q, plan.block_kv
  )
  # Touched by any element of the chunk, full for all of them.
  touched, full = touched.any(0), full.all(0)
  order = jnp.argsort(~touched * 2 + ~full, axis=-1, stable=True)
  number = lambda y: y.sum(-1, dtype=jnp.int32)
  return _Walk(order.astype(jnp.int32), number(full), number(touched))


class _Tile(NamedTuple):
  """A key tile: `k` and `v` `[b, k, s tile, h]`, what is visible (None: all).

  `ids` is its number: a scalar, or `[b|1, k|1]` for block lists.
  """

  ids: jax.Array
  k: jax.Array
  v: jax.Array
  seen: jax.Array | None


def _fetch(x_bskh: jax.Array, ids: jax.Array, block: int) -> jax.Array:
  b, s, k, h = x_bskh.shape
  if ids.ndim == 0:
    tile = jax.lax.dynamic_slice_in_dim(x_bskh, ids * block, block, 1)
    return tile.swapaxes(1, 2)
  tiles = x_bskh.reshape(b, s // block, block, k, h)
  pick = lambda y, i: jax.lax.dynamic_index_in_dim(y, i, 0, keepdims=False)
  ids = jnp.broadcast_to(ids, (b, k))
  return jax.vmap(jax.vmap(pick, in_axes=(2, 0)))(tiles, ids)


def _key_tile(plan: _Plan, x: Operands, walk: _Walk, i, j, masked) -> _Tile:
  """The `j`-th key tile that query tile `i` visits."""
  ids = walk.ids[..., i, j]
  k, v = (_fetch(y, ids, plan.block_kv) for y in (x.k_bskh, x.v_bskh))
  if not masked:
    return _Tile(ids, k, v, None)
  seen = _seen(plan, x, ids, i)
  if (lists := walk.lists) is not None:
    seen = seen | lists.full[..., i, j][:, :, None, None, None]
    live = (j < lists.count[..., i])[:, :, None, None, None]
    pos = _key_positions(plan, x, ids)[1]
    seen = seen & live & (pos >= 0)
  # Keys that nobody in the tile sees may be NaN, which 0 * NaN would leak.
  used = seen.any((2, 3))[..., None]
  return _Tile(ids, jnp.where(used, k, 0), jnp.where(used, v, 0), seen)


def _key_positions(plan: _Plan, x: Operands, ids) -> tuple[jax.Array, ...]:
  """Index and position of the keys of a tile, `[b|1, k|1, 1, 1, s tile]`."""
  index = ids[..., None] * plan.block_kv + jnp.arange(plan.block_kv)
  if ids.ndim == 0:
    pos = jax.lax.dynamic_slice_in_dim(
      x.pos, ids * plan.block_kv, plan.block_kv, 1
    )
    return index[None, None, None, None], pos[:, None, None, None]
  num = max(x.pos.shape[0], index.shape[0])
  index = jnp.broadcast_to(index, (num, *index.shape[1:]))
  whole = jnp.broadcast_to(x.pos[:, None], (num, index.shape[1], plan.s))
  pos = jnp.take_along_axis(whole, index, axis=-1)
  return index[:, :, None, None], pos[:, :, None, None]


def _seen(plan: _Plan, x: Operands, ids, i) -> jax.Array:
  """Visibility `[b|1, k|1, 1, t tile, s tile]` by intervals and tree."""
  rows = jax.lax.dynamic_slice_in_dim(x.rows, i * plan.block_q, plan.block_q, 1)
  index, pos = _key_positions(plan, x, ids)
  seen = masks.in_intervals(rows[:, None, None], pos)
  if x.bits is None:
    return seen
  bits = jax.lax.dynamic_slice_in_dim(x.bits, i * plan.block_q, plan.block_q, 1)
  nodes = index.reshape(-1) - (plan.num_keys - plan.num_queries)
  in_tree = masks.tree_visible(bits, nodes)[:, None, None]
  in_tree = in_tree & (nodes < plan.num_queries)
  return jnp.where(nodes >= 0, in_tree, seen)


def _scores(options: Options, x: Operands, q, tile: _Tile, i, plan: _Plan):
  """Masked scores `[b, k, g, t tile, s tile]` and the slope of the cap."""
  dtype = stats_dtype(q.dtype)
  scores = options.scale * jnp.einsum(
    'bkgth,bksh->bkgts', q, tile.k, preferred_element_type=dtype
  )
  slope = None
  if options.softcap is not None:
    unit = jnp.tanh(scores / options.softcap)
    scores, slope = options.softcap * unit, 1 - unit**2
  if x.bias is not None:
    scores = scores + _bias_tile(plan, x.bias, tile.ids, i, q.shape)
  if tile.seen is not None:
    scores = jnp.where(tile.seen, scores, -jnp.inf)
  return scores, slope


def _start(*index) -> tuple[jax.Array, ...]:
  """Slice starts of one type, also where `jax_enable_x64` widens some."""
  return tuple(jnp.asarray(x, jnp.int32) for x in index)


def _bias_tile(plan: _Plan, bias, ids, i, shape) -> jax.Array:
  """The bias of a tile, `[b|1, k|1, g|1, t tile, s tile]`."""
  b, n = bias.shape[:2]
  k, g = (1, 1) if n == 1 else shape[1:3]
  start = _start(0, 0, i * plan.block_q, ids * plan.block_kv)
  tile = jax.lax.dynamic_slice(bias, start, (b, n, plan.block_q, plan.block_kv))
  return tile.reshape(b, k, g, plan.block_q, plan.block_kv)


def _query_tile(plan: _Plan, x: jax.Array, i, axis: int = 3) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, i * plan.block_q, plan.block_q, axis)


def _loop(plan: _Plan, walk: _Walk, i, body: Callable, carry: Any) -> Any:
  """Runs `body(j, is masked, carry)` over the key tiles of query tile `i`."""
  if plan.num_kv == 1 and walk.lists is None:
    return body(0, plan.is_masked, carry)
  if walk.lists is None:
    carry = jax.lax.fori_loop(
      0, walk.num_full[i], lambda j, c: body(j, False, c), carry
    )
  if not plan.is_masked:
    return carry
  return jax.lax.fori_loop(
    walk.num_full[i], walk.count[i], lambda j, c: body(j, True, c), carry
  )


def _forward_chunk(plan: _Plan, options: Options, x: Operands):
  """Output `[b, k, g, t, h]` and log-sum-exp `[b, k, g, t]` of a chunk."""
  walk = _walk(plan, x)
  dtype = stats_dtype(x.q_bkgth.dtype)

  def query_tile(i):
    q = _query_tile(plan, x.q_bkgth, i)

    def body(j, masked, carry):
      top, total, acc = carry
      tile = _key_tile(plan, x, walk, i, j, masked)
      scores, _ = _scores(options, x, q, tile, i, plan)
      new = jnp.maximum(top, scores.max(-1))
      # A bias hides keys too, by -inf.
      hides = masked or x.bias is not None
      base = jnp.where(jnp.isneginf(new), 0, new) if hides else new
      keep = jnp.exp(top - base)
      p = jnp.exp(scores - base[..., None])
      acc = keep[..., None] * acc + jnp.einsum(
        'bkgts,bksh->bkgth',
        p.astype(tile.v.dtype),
        tile.v,
        preferred_element_type=dtype,
      )
      return new, keep * total + p.sum(-1), acc

    start = _first(plan, x, i, (*q.shape[:-1], x.v_bskh.shape[-1]), dtype)
    top, total, acc = _loop(plan, walk, i, body, start)
    has = total > 0
    total = jnp.where(has, total, 1)
    lse = jnp.where(has, top + jnp.log(total), -jnp.inf)
    return acc / total[..., None], lse

  if plan.num_q == 1:
    return query_tile(0)
  out, lse = jax.lax.map(query_tile, jnp.arange(plan.num_q))
  shape = x.q_bkgth.shape[:3]
  return (
    jnp.moveaxis(out, 0, 3).reshape(*shape, plan.t, -1),
    jnp.moveaxis(lse, 0, 3).reshape(*shape, plan.t),
  )


def _first(plan: _Plan, x: Operands, i, shape, dtype):
  """Running max, sum and accumulator of query tile `i` before any key."""
  if x.lse_in is None:
    top = jnp.full(shape[:-1], -jnp.inf, dtype)
    return top, jnp.zeros(shape[:-1], dtype), jnp.zeros(shape, dtype)
  # The state counts as one key whose score is its log-sum-exp.
  top, acc = (_query_tile(plan, y, i) for y in (x.lse_in, x.out_in))
  return top, jnp.where(jnp.isneginf(top), 0, 1).astype(dtype), acc


def _backward_chunk(plan: _Plan, options: Options, x: Operands, rows: Any):
  """Cotangents of a chunk; `rows` holds lse, delta and dout of the queries."""
  walk = _walk(plan, x)
  dtype = stats_dtype(x.q_bkgth.dtype)
  fill = lambda y: None if y is None else jnp.zeros(y.shape, dtype)
  dk, dv = fill(x.k_bskh), fill(x.v_bskh)
  dbias = None
  if x.bias is not None:
    b, k, g = x.q_bkgth.shape[:3]
    lead = (b, 1 if x.bias.shape[1] == 1 else k * g)
    dbias = jnp.zeros((*lead, plan.t, plan.s), dtype)

  def query_tile(carry, i):
    q = _query_tile(plan, x.q_bkgth, i)
    lse, delta, dout = (_query_tile(plan, y, i) for y in rows)
    dot = functools.partial(jnp.einsum, preferred_element_type=dtype)

    def body(j, masked, carry):
      dq, dk, dv, dbias = carry
      tile = _key_tile(plan, x, walk, i, j, masked)
      scores, slope = _scores(options, x, q, tile, i, plan)
      p = jnp.exp(scores - lse[..., None])
      dp = dot('bkgth,bksh->bkgts', dout, tile.v)
      ds = p * (dp - delta[..., None])
      if dbias is not None:
        dbias = _add_bias(plan, dbias, ds, tile.ids, i)
      if slope is not None:
        ds = ds * slope
      ds = ds.astype(q.dtype)
      dq = dq + dot('bkgts,bksh->bkgth', ds, tile.k)
      dk = _add(plan, dk, dot('bkgts,bkgth->bksh', ds, q), tile.ids)
      p = p.astype(dout.dtype)
      dv = _add(plan, dv, dot('bkgts,bkgth->bksh', p, dout), tile.ids)
      return dq, dk, dv, dbias

    dq, *carry = _loop(plan, walk, i, body, (jnp.zeros(q.shape, dtype), *carry))
    return tuple(carry), dq

  if plan.num_q == 1:
    (dk, dv, dbias), dq = query_tile((dk, dv, dbias), 0)
  else:
    (dk, dv, dbias), dq = jax.lax.scan(
      query_tile, (dk, dv, dbias), jnp.arange(plan.num_q)
    )
    dq = jnp.moveaxis(dq, 0, 3).reshape(x.q_bkgth.shape)
  return Gradients(options.scale * dq, options.scale * dk, dv, dbias)


def _column_sums_chunk(plan: _Plan, options: Options, x: Operands, rows: Any):
  walk = _walk(plan, x)
  dtype = stats_dtype(x.q_bkgth.dtype)
  b, k, g = x.q_bkgth.shape[:3]

  def query_tile(i, sums):
    q = _query_tile(plan, x.q_bkgth, i)
    lse, weight = (_query_tile(plan, y, i) for y in rows)

    def body(j, masked, sums):
      tile = _key_tile(plan, x, walk, i, j, masked)
      scores, _ = _scores(options, x, q, tile, i, plan)
      p = jnp.exp(scores - lse[..., None])
      part = jnp.einsum('bkgts,bkgt->bksg', p, weight)
      return _add(plan, sums, part, tile.ids)

    return _loop(plan, walk, i, body, sums)

  sums = jnp.zeros((b, plan.s, k, g), dtype)
  return jax.lax.fori_loop(0, plan.num_q, query_tile, sums)


def _add(plan: _Plan, x_bskh, tile_bksh, ids) -> jax.Array:
  """Adds a key tile to the cotangent of all keys."""
  block = plan.block_kv
  if ids.ndim == 0:
    at = _start(0, ids * block, 0, 0)
    tile = tile_bksh.swapaxes(1, 2)
    old = jax.lax.dynamic_slice(x_bskh, at, tile.shape)
    return jax.lax.dynamic_update_slice(x_bskh, old + tile, at)
  b, s, k, h = x_bskh.shape
  ids = jnp.broadcast_to(ids, (b, k))
  tiles = x_bskh.reshape(b, s // block, block, k, h)
  at = jnp.arange(b)[:, None], ids, slice(None), jnp.arange(k)
  return tiles.at[at].add(tile_bksh).reshape(x_bskh.shape)


def _add_bias(plan: _Plan, dbias, ds, ids, i) -> jax.Array:
  """Adds a tile to the cotangent of the bias, summed over shared heads."""
  b, n = dbias.shape[:2]
  tile = ds.sum((1, 2)) if n == 1 else ds
  tile = tile.reshape(b, n, plan.block_q, plan.block_kv)
  at = _start(0, 0, i * plan.block_q, ids * plan.block_kv)
  old = jax.lax.dynamic_slice(dbias, at, tile.shape)
  return jax.lax.dynamic_update_slice(dbias, old + tile, at)

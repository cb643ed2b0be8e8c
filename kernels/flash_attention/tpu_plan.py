# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the TPU kernels of flash attention share: tiles, layouts, the call.

A plan has the static settings of a call. Queries are laid out as
`[b, k, g, t, h]`, keys as `[b, k, s, h]`, both padded to whole tiles; a list of
the tiles to visit goes with each call.
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
from jaxtok_kernels.flash_attention import cost, tile_lists
from jaxtok_kernels.flash_attention.xla import Options

LANES = 128
LOG2E = math.log2(math.e)
NT = (((1,), (1,)), ((), ()))  # a @ b.T
NN = (((1,), (0,)), ((), ()))  # a @ b
TN = (((0,), (0,)), ((), ()))  # a.T @ b
_MOST_ROWS = 2048  # Of a tile, head of a group times query.
_MOST_SMEM = 900 * 1024  # Bytes of the lists of tiles; the core has 1 MiB.


@dataclasses.dataclass(frozen=True)
class Plan:
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


def plan_of(q, k, mask, options: Options, interpret, **flags) -> Plan:
  """The plan of a call; `flags` are has_sink and has_state."""
  b, t, n, h = q.shape
  s, heads = k.shape[1:3]
  tiles = options.tiles or cost.tpu_tiles(t, s, h, n // heads)
  if (lists := mask.block_lists) is not None:
    tiles = cost.TpuTiles(
      lists.block_q, lists.block_kv, min(lists.block_kv, tiles.block_compute)
    )
  s_pad = -(-s // tiles.block_kv) * tiles.block_kv
  precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
  return Plan(
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


def backward_plan(q, k, mask, options: Options, interpret) -> Plan:
  """The plan of kernels with transposed scores, which have own tiles."""
  if options.tiles is None:
    (t, n, h), (s, heads) = q.shape[1:], k.shape[1:3]
    tiles = cost.tpu_backward_tiles(t, s, h, n // heads)
    options = dataclasses.replace(options, tiles=tiles)
  flags = dict(has_sink=False, has_state=False)
  return plan_of(q, k, mask, options, interpret, **flags)


def too_large(q, k, mask) -> str | None:
  """Why a call does not fit a TPU core's own memories, or None."""
  if not q.shape[1] or not k.shape[1]:
    return None  # Nothing is computed.
  options = Options(scale=1.0)
  plan = plan_of(q, k, mask, options, False, has_sink=False, has_state=False)
  if plan.g * plan.block_q > _MOST_ROWS:
    return (
      f'q_btnh with {plan.g} heads for each of k_bskh is not supported: the '
      f'{plan.block_q} queries of a tile are {plan.g * plan.block_q} rows, and '
      f'{_MOST_ROWS} fit VMEM'
    )
  for x in (plan, backward_plan(q, k, mask, options, False)):
    num = x.mask_batch * x.mask_heads * x.num_q * (x.num_kv + 1)
    if 4 * num > _MOST_SMEM:
      return (
        f'mask has a list of tiles for each of {x.mask_batch} batch elements: '
        f'{4 * num / 2**20:.1f} MiB, and {_MOST_SMEM / 2**20:.1f} MiB fit SMEM'
      )
  return None


def queries(x_btnh: jax.Array, plan: Plan) -> jax.Array:
  """`[b, k, g, t padded, h]`."""
  b, t, _, h = x_btnh.shape
  x = x_btnh.reshape(b, t, plan.k, plan.g, h).transpose(0, 2, 3, 1, 4)
  return jnp.pad(x, ((0, 0),) * 3 + ((0, plan.t_pad - t), (0, 0)))


def rows(x_btn: jax.Array, plan: Plan, fill: float) -> jax.Array:
  """`[b, k, g, t padded]`."""
  b, t, _ = x_btn.shape
  x = x_btn.reshape(b, t, plan.k, plan.g).transpose(0, 2, 3, 1)
  pad = ((0, 0),) * 3 + ((0, plan.t_pad - t),)
  return jnp.pad(x, pad, constant_values=fill)


def keys(x_bskh, mask: masks.MaskSpec | None, plan: Plan) -> jax.Array:
  """`[b, k, s padded, h]`; keys that nobody sees become 0, they may be NaN."""
  if mask is not None and tile_lists.hides_keys(mask, plan.t, plan.s):
    used = tile_lists.used_keys(mask, plan.t, plan.s)
    x_bskh = jnp.where(used[..., None, None], x_bskh, 0)
  x = x_bskh.transpose(0, 2, 1, 3)
  return jnp.pad(x, ((0, 0), (0, 0), (0, plan.s_pad - plan.s), (0, 0)))


def from_queries(x_bkgth: jax.Array, plan: Plan) -> jax.Array:
  """Back to `[b, t, n, h]`, without the padding."""
  x = x_bkgth[:, :, :, : plan.t].transpose(0, 3, 1, 2, 4)
  return x.reshape(plan.b, plan.t, plan.k * plan.g, -1)


def lists(mask, plan: Plan, *, by_key: bool = False):
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


def mask_operands(mask, plan: Plan, *, transposed: bool):
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


def call(kernel, plan: Plan, name, grid, operands, specs, lists, outs, scratch):
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


def lanes(x: jax.Array, size: int) -> jax.Array:
  """Lane-replicated `[rows, 128]` as `[rows, size]`."""
  if size <= LANES:
    return x[:, :size]
  whole, rest = divmod(size, LANES)
  parts = [x] * whole + ([x[:, :rest]] if rest else [])
  return jnp.concatenate(parts, axis=1)


def capped(plan: Plan, s: jax.Array):
  """Scores in base 2 and the slope of the soft cap (None without one)."""
  if plan.softcap is None:
    return s * (plan.scale * LOG2E), None
  unit = jnp.tanh(s * (plan.scale / plan.softcap))
  return unit * (plan.softcap * LOG2E), 1 - unit * unit


def dot(plan: Plan, a, b, dims):
  """A matmul with sums in float32; `dims` is `NT`, `NN` or `TN`."""
  return jax.lax.dot_general(
    a,
    b,
    dims,
    precision=plan.precision,
    preferred_element_type=jnp.float32,
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the TPU kernels of flash attention share: tiles, layouts, the call.

A plan has the static settings of a call. Queries are laid out as
`[b, k, g, t, h]`, keys as `[b, k, s, h]`, both padded to whole tiles; a list of
the tiles to visit goes with each call. If the query heads of a key head do not
fit VMEM they are cut into parts, each a `k` of its own that reads the same keys
again (a last part is padded with heads of zeros).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
  """Static settings of a call.

  `k` counts the parts of all key heads, `parts` those of one; `g` is the query
  heads of a part, `group` those of a key head.
  """

  b: int
  t: int
  s: int
  k: int
  g: int
  parts: int
  group: int
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

  def key_head(self, part):
    """The key head of a part."""
    # Not `//`, whose signs do not lower everywhere.
    return part if self.parts == 1 else jax.lax.div(part, np.int32(self.parts))

  def list_index(self, b, h, outer, inner, num_outer: int, num_inner: int):
    """Place of an entry in flattened codes; counts have `num_inner = 1`."""
    b = b if self.mask_batch > 1 else 0
    h = self.key_head(h) if self.mask_heads > 1 else 0
    return ((b * self.mask_heads + h) * num_outer + outer) * num_inner + inner


def plan_of(
  q, k, mask, options: Options, interpret, *, is_backward=False, **flags
) -> Plan:
  """The plan of a call; `flags` are has_sink and has_state."""
  b, t, n, _ = q.shape
  s, heads = k.shape[1:3]
  parts, tiles = _parts(q, k, mask, options, is_backward)
  listed = mask.block_lists
  s_pad = -(-s // tiles.block_kv) * tiles.block_kv
  precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
  return Plan(
    b=b,
    t=t,
    s=s,
    k=heads * parts,
    g=-(-n // (heads * parts)),
    parts=parts,
    group=n // heads,
    block_q=tiles.block_q,
    block_kv=tiles.block_kv,
    block_compute=tiles.block_compute,
    scale=options.scale,
    softcap=options.softcap,
    band=tile_lists.band(mask, s, s_pad),
    mask_batch=mask.batch,
    mask_heads=1 if listed is None else listed.ids.shape[1],
    has_lists=listed is not None,
    has_lse=options.has_lse,
    out_dtype=options.out_dtype or jnp.float32,
    precision=precision,
    interpret=interpret,
    **flags,
  )


def _parts(q, k, mask, options: Options, is_backward: bool):
  """The fewest parts of a group whose rows fit VMEM, and their tiles."""
  (t, n, h), (s, heads) = q.shape[1:], k.shape[1:3]
  group = max(1, n // heads)
  default = cost.tpu_backward_tiles if is_backward else cost.tpu_tiles
  for parts in range(1, group + 1):
    size = -(-group // parts)
    tiles = options.tiles or default(t, s, h, size)
    if (lists := mask.block_lists) is not None:
      compute = min(lists.block_kv, tiles.block_compute)
      tiles = cost.TpuTiles(lists.block_q, lists.block_kv, compute)
    if size * tiles.block_q <= _MOST_ROWS:
      break
  return parts, tiles


def backward_plan(q, k, mask, options: Options, interpret) -> Plan:
  """The plan of kernels with transposed scores, which have own tiles."""
  flags = dict(has_sink=False, has_state=False)
  return plan_of(q, k, mask, options, interpret, is_backward=True, **flags)


def too_large(q, k, mask) -> str | None:
  """Why a call does not fit a TPU core's own memories, or None."""
  if not q.shape[1] or not k.shape[1]:
    return None  # Nothing is computed.
  options = Options(scale=1.0)
  plan = plan_of(q, k, mask, options, False, has_sink=False, has_state=False)
  if plan.g * plan.block_q > _MOST_ROWS:
    return (
      f'mask.block_lists has blocks of {plan.block_q} queries, and '
      f'{_MOST_ROWS} rows fit VMEM'
    )
  for x in (plan, backward_plan(q, k, mask, options, False)):
    num = x.mask_batch * x.mask_heads * x.num_q * (x.num_kv + 1)
    if 4 * num > _MOST_SMEM:
      return (
        f'mask has a list of tiles for each of {x.mask_batch} batch elements: '
        f'{4 * num / 2**20:.1f} MiB, and {_MOST_SMEM / 2**20:.1f} MiB fit SMEM'
      )
  return None


def by_part(x: jax.Array, plan: Plan, axis: int, fill: float = 0.0):
  """Splits an axis of query heads into `k` and `g`."""
  lead, rest = x.shape[:axis], x.shape[axis + 1 :]
  if more := plan.parts * plan.g - plan.group:
    x = x.reshape(*lead, -1, plan.group, *rest)
    pads = [(0, 0)] * x.ndim
    pads[axis + 1] = (0, more)
    x = jnp.pad(x, pads, constant_values=fill)
  return x.reshape(*lead, plan.k, plan.g, *rest)


def from_parts(x: jax.Array, plan: Plan, axis: int) -> jax.Array:
  """Undoes `by_part`: `axis` is that of `k`, `g` follows."""
  lead, rest = x.shape[:axis], x.shape[axis + 2 :]
  if plan.parts * plan.g > plan.group:
    x = x.reshape(*lead, -1, plan.parts * plan.g, *rest)
    x = jax.lax.slice_in_dim(x, 0, plan.group, axis=axis + 1)
  return x.reshape(*lead, plan.k // plan.parts * plan.group, *rest)


def queries(x_btnh: jax.Array, plan: Plan) -> jax.Array:
  """`[b, k, g, t padded, h]`."""
  x = by_part(x_btnh, plan, 2).transpose(0, 2, 3, 1, 4)
  return jnp.pad(x, ((0, 0),) * 3 + ((0, plan.t_pad - plan.t), (0, 0)))


def rows(x_btn: jax.Array, plan: Plan, fill: float) -> jax.Array:
  """`[b, k, g, t padded]`."""
  x = by_part(x_btn, plan, 2, fill).transpose(0, 2, 3, 1)
  pad = ((0, 0),) * 3 + ((0, plan.t_pad - plan.t),)
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
  return from_parts(x, plan, 2)


def from_rows(x_bkgt: jax.Array, plan: Plan) -> jax.Array:
  """Back to `[b, t, n]`, without the padding."""
  return from_parts(x_bkgt[..., : plan.t].transpose(0, 3, 1, 2), plan, 2)


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

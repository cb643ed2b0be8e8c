# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Units of varying length in arrays of fixed size: four primitives.

Models that shorten a sequence decide which positions to keep or where units
begin, shorten, run a trunk, and lengthen again:

  kept = compact(x_btd, keep_bt, capacity)          # Drop positions.
  unit_bt = segment_ids(start_bt)                   # Which unit each is in.
  pooled = segment_pool(x_btd, unit_bt, capacity)   # One state per unit.
  y_btd = expand(pooled.values_bwd, unit_bt)        # Back to positions.

Shapes are static: there is room for `capacity` units, and how many did not find
room is part of every result. What lies outside is zero on the way back, never
another unit's state; `within` says where that is, so that the targets there can
get weight 0. A `Capacity` says how much room there is.

Axes: b rows, t positions, w units, d width.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jaxtok.config import configclass

POLICIES = ('full', 'ratio', 'bucket')
POOLS = ('mean', 'max', 'sum', 'last', 'first')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Compact:
  """Kept positions, moved to the front in their order.

  Attributes:
    values_bwd: Their states; zero in empty slots.
    index_bw: Which position each slot holds; t, which does not exist, in empty
      slots.
    valid_bw: Whether a slot holds a position.
    overflow_b: Kept positions that found no room.
  """

  values_bwd: Any
  index_bw: Any
  valid_bw: Any
  overflow_b: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pooled:
  """One state per unit.

  Attributes:
    values_bwd: States; zero for units without positions.
    valid_bw: Whether a unit has positions.
    overflow_b: Units that found no room.
  """

  values_bwd: Any
  valid_bw: Any
  overflow_b: Any


@configclass
class Capacity:
  """How many units a row has room for."""

  policy: str = 'full'  # 'full': any; 'ratio': a share; 'bucket': see `sizes`.
  ratio: float = 1.0  # Units per position, if policy='ratio'.
  multiple: int = 128  # Of the sizes, if policy='bucket'.

  def __post_init__(self):
    if self.policy not in POLICIES:
      raise ValueError(
        f'policy={self.policy!r} must be one of {", ".join(POLICIES)}.'
      )
    if not 0 < self.ratio <= 1:
      raise ValueError(
        f'ratio={self.ratio} must be in (0, 1]; a row of t positions has at '
        'most t units.'
      )
    if self.multiple < 1:
      raise ValueError(f'multiple={self.multiple} must be >= 1.')

  def sizes(self, length: int) -> tuple[int, ...]:
    """The sizes that rows of `length` positions may get, ascending.

    One for 'full' and 'ratio', where what does not fit overflows; for 'bucket'
    the multiples of `multiple` and `length`, of which `dispatch` takes the
    least that holds all rows.
    """
    if self.policy == 'bucket':
      return (*range(self.multiple, length, self.multiple), length)
    share = self.ratio if self.policy == 'ratio' else 1.0
    return (max(1, math.ceil(share * length)),)

  def room(self, length: int, kept: float | None = None) -> int:
    """Units of a row that count in FLOPs.

    Args:
      length: Positions of the row.
      kept: Units per position that the text has; None means those that there
        is room for, which is what training computes.
    """
    if kept is None:
      return self.sizes(length)[-1]
    if not 0 <= kept <= 1:
      raise ValueError(f'kept={kept} units per position must be in [0, 1].')
    return math.ceil(kept * length)

  def choose(self, length: int, num_units: int) -> int:
    """The least size for `num_units` units, on the host; else the largest."""
    sizes = self.sizes(length)
    return next((size for size in sizes if size >= num_units), sizes[-1])


def dispatch(
  call: Callable[[int], Any], sizes: Sequence[int], num_b: Int[Array, 'b']
) -> Any:
  """`call(size)` with the least size that holds every row, on the device.

  All sizes are compiled into one program, one of them runs.

  Args:
    call: Its results must have the same shapes for all sizes.
    sizes: Ascending; static.
    num_b: Units of each row. Where they exceed the last size, that one runs.
  """
  if len(sizes) == 1:
    return call(sizes[0])
  too_small = jnp.asarray(sizes[:-1]) < num_b.max()
  branches = [lambda size=size: call(size) for size in sizes]
  return jax.lax.switch(too_small.sum(), branches)


def compact(
  x_btd: Num[Array, 'b t *d'], keep_bt: Bool[Array, 'b t'], capacity: int
) -> Compact:
  """Moves the kept positions of each row to the front.

  Args:
    x_btd: States, any trailing axes.
    keep_bt: Which to keep.
    capacity: Slots w per row; static.
  """
  _check_capacity(capacity)
  b, t = keep_bt.shape
  rows_b1 = jnp.arange(b)[:, None]
  place_bt = jnp.where(keep_bt, jnp.cumsum(keep_bt, axis=1) - 1, capacity)
  index_bw = jnp.full((b, capacity), t, jnp.int32)
  index_bw = index_bw.at[rows_b1, place_bt].set(
    jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), (b, t)), mode='drop'
  )
  num_b = keep_bt.sum(axis=1, dtype=jnp.int32)
  return Compact(
    values_bwd=gather(x_btd, index_bw),
    index_bw=index_bw,
    valid_bw=jnp.arange(capacity) < num_b[:, None],
    overflow_b=jnp.maximum(num_b - capacity, 0),
  )


def gather(
  x_btd: Shaped[Array, 'b t *d'], index_bw: Int[Array, 'b w']
) -> Shaped[Array, 'b w *d']:
  """The states at the given positions; zero where there is no such one."""
  rows_b1 = jnp.arange(x_btd.shape[0])[:, None]
  index_bw = jnp.where(index_bw < 0, x_btd.shape[1], index_bw)
  return x_btd.at[rows_b1, index_bw].get(mode='fill', fill_value=0)


def scatter_add(
  x_btd: Num[Array, 'b t *d'],
  index_bw: Int[Array, 'b w'],
  values_bwd: Num[Array, 'b w *d'],
) -> Num[Array, 'b t *d']:
  """Adds states at the given positions; those that do not exist are dropped."""
  rows_b1 = jnp.arange(x_btd.shape[0])[:, None]
  index_bw = jnp.where(index_bw < 0, x_btd.shape[1], index_bw)
  return x_btd.at[rows_b1, index_bw].add(values_bwd, mode='drop')


def segment_ids(start_bt: Bool[Array, 'b t']) -> Int[Array, 'b t']:
  """The unit of each position, counted from 0; -1 before the first start."""
  return jnp.cumsum(start_bt, axis=1, dtype=jnp.int32) - 1


def within(unit_bt: Int[Array, 'b t'], capacity: int) -> Bool[Array, 'b t']:
  """Whether the unit of each position found room; False outside units."""
  return (unit_bt >= 0) & (unit_bt < capacity)


def segment_pool(
  x_btd: Float[Array, 'b t d'],
  unit_bt: Int[Array, 'b t'],
  capacity: int,
  how: str = 'mean',
) -> Pooled:
  """Pools the states of each unit into one.

  Sums are taken in at least float32, and rounded to the type of the states at
  the end: in bfloat16 a sum of ones gets no further than 256.

  Args:
    x_btd: States.
    unit_bt: The unit of each position, in any order; < 0 means none (padding).
    capacity: Units w per row; static.
    how: 'mean', 'max', 'sum', or the state of the 'last' or 'first' position.

  Raises:
    ValueError: If `how` is unknown.
  """
  _check_capacity(capacity)
  if how not in POOLS:
    raise ValueError(f'how={how!r} must be one of {", ".join(POOLS)}.')
  b, t = unit_bt.shape
  rows_b1 = jnp.arange(b)[:, None]
  slot_bt = jnp.where(unit_bt < 0, capacity, unit_bt)
  at = lambda x: x.at[rows_b1, slot_bt]
  num_bw = at(jnp.zeros((b, capacity), jnp.int32)).add(1, mode='drop')
  if how in ('mean', 'sum'):
    wide = _wide(x_btd.dtype)
    zeros_bwd = jnp.zeros((b, capacity, x_btd.shape[2]), wide)
    y_bwd = at(zeros_bwd).add(x_btd.astype(wide), mode='drop')
    if how == 'mean':
      y_bwd = y_bwd / jnp.maximum(num_bw, 1)[..., None].astype(wide)
    y_bwd = y_bwd.astype(x_btd.dtype)
  elif how == 'max':
    low_bwd = jnp.full((b, capacity, x_btd.shape[2]), -jnp.inf, x_btd.dtype)
    y_bwd = at(low_bwd).max(x_btd, mode='drop')
  else:
    place_bt = jnp.broadcast_to(jnp.arange(t), (b, t))
    if how == 'last':
      index_bw = at(jnp.full((b, capacity), -1)).max(place_bt, mode='drop')
    else:
      index_bw = at(jnp.full((b, capacity), t)).min(place_bt, mode='drop')
    y_bwd = gather(x_btd, index_bw)
  num_units_b = jnp.max(unit_bt, axis=1, initial=-1) + 1
  return Pooled(
    values_bwd=jnp.where((num_bw > 0)[..., None], y_bwd, 0),
    valid_bw=num_bw > 0,
    overflow_b=jnp.maximum(num_units_b - capacity, 0).astype(jnp.int32),
  )


def expand(
  u_bwd: Num[Array, 'b w *d'], unit_bt: Int[Array, 'b t']
) -> Num[Array, 'b t *d']:
  """Repeats the state of each unit over its positions.

  Positions of no unit, or of one that found no room, get zero. The gradient is
  a sum over the positions of a unit, taken as in `segment_pool`.
  """
  is_float = jnp.issubdtype(u_bwd.dtype, jnp.floating)
  if not is_float or _wide(u_bwd.dtype) == u_bwd.dtype:
    return gather(u_bwd, unit_bt)
  return _repeat(u_bwd.shape[1], u_bwd, unit_bt)


def _wide(dtype: Any) -> Any:
  """The type in which sums of many numbers are taken."""
  return jnp.promote_types(dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _repeat(num_w, u_bwd, unit_bt):
  """`gather` from `num_w` units, of a type that is too narrow for sums."""
  del num_w
  return gather(u_bwd, unit_bt)


def _repeat_fwd(num_w, u_bwd, unit_bt):
  return _repeat(num_w, u_bwd, unit_bt), unit_bt


def _repeat_bwd(num_w, unit_bt, dx_btd):
  wide = _wide(dx_btd.dtype)
  zeros_bwd = jnp.zeros((len(dx_btd), num_w, *dx_btd.shape[2:]), wide)
  du_bwd = scatter_add(zeros_bwd, unit_bt, dx_btd.astype(wide))
  return du_bwd.astype(dx_btd.dtype), None


_repeat.defvjp(_repeat_fwd, _repeat_bwd)


def _check_capacity(capacity: int) -> None:
  if capacity < 1:
    raise ValueError(f'capacity={capacity} must be >= 1.')

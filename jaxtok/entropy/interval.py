# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Prefixes of a window as intervals of the code space, in uint32 lanes.

A window of W bits has 2**W words; a word owns one *cell* of the code space. A
`Node` is a prefix of the window's text and owns an interval: `low`, kept as
W / 16 + 1 limbs of 16 bits (the last limb is finer than a cell), and a 32-bit
range `r` whose upper half lines up with limb `p`. Because a window is short,
nothing is ever output or renormalised: the range just moves down the limbs.

All functions work on lanes: arrays of shape [b]. `reference.Node` is the same
in Python integers. Words are W / 16 limbs, most significant first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped, UInt32

from jaxtok.entropy import quantize

# An entry of each lane's CDF: index [b] -> uint32 [b].
Cdf = Callable[[Any], Any]
Limbs = tuple[Any, ...]  # 16-bit values in uint32 [b], most significant first.

_CELL = 1 << 16  # Width of a cell in units of `r`, once p is at its maximum.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Node:
  """A prefix in each lane.

  Attributes:
    low: W / 16 + 1 limbs.
    r_b: The range, uint32; meaningless at the root, where it is 2**32.
    p_b: Limb that lines up with the upper half of the range, int32.
    n_b: Number of symbols in the prefix, int32.
  """

  low: Limbs
  r_b: Any
  p_b: Any
  n_b: Any

  @property
  def p_max(self) -> int:
    return len(self.low) - 2

  @property
  def offset_b(self) -> UInt32[Array, 'b']:
    """Distance from `low` up to the next cell, in units of the last limb."""
    return (jnp.uint32(0) - self.low[-1]) & 0xFFFF


def lookup(cdf_bv: UInt32[Array, 'b v']) -> Cdf:
  """Access to CDFs that are there as a whole."""
  return lambda index_b: take(cdf_bv, index_b)


def take(x_bv: Shaped[Array, 'b v'], index_b: Int[Array, 'b']) -> Array:
  """Entry `index` of every lane's row."""
  return jnp.take_along_axis(x_bv, index_b[:, None], axis=1)[:, 0]


def root(num_lanes: int, window_bits: int) -> Node:
  """The empty prefix, which owns everything."""
  zero = jnp.zeros(num_lanes, jnp.uint32)
  count = jnp.zeros(num_lanes, jnp.int32)
  return Node((zero,) * (window_bits // 16 + 1), zero, count, count)


def select(keep_b: Bool[Array, 'b'], yes: Any, no: Any) -> Any:
  """`jnp.where` over pytrees whose leaves have the lanes first."""

  def pick(a, b):
    return jnp.where(keep_b.reshape(keep_b.shape + (1,) * (a.ndim - 1)), a, b)

  return jax.tree.map(pick, yes, no)


def bounds(node: Node, c_b: UInt32[Array, 'b']) -> UInt32[Array, 'b']:
  """Where children start, relative to `low`, in units of `r`.

  At the root the range does not fit in 32 bits: the end of its last child wraps
  to 0, and differences of bounds are right modulo 2**32.

  Args:
    node: The parents.
    c_b: An entry of each parent's CDF.
  """
  inner_b = quantize.mulshift16(node.r_b, c_b)
  return jnp.where(node.n_b == 0, c_b << 16, inner_b)


def search(bound: Cdf, limit_b: UInt32[Array, 'b']) -> Int[Array, 'b']:
  """The child that holds a position: how many inner bounds are <= `limit`.

  Nine steps of bisection.

  Args:
    bound: Bounds of children by index; they do not fall.
    limit_b: The position, relative to the parent.
  """
  index_b = jnp.zeros(limit_b.shape, jnp.int32)
  for step in (256, 128, 64, 32, 16, 8, 4, 2, 1):
    # Past the end this asks for the last inner bound, which it knows already.
    next_b = jnp.minimum(index_b + step, quantize.NUM_SYMBOLS - 1)
    index_b = jnp.where(bound(next_b) <= limit_b, next_b, index_b)
  return index_b


def _add_at(low: Limbs, add_b: Array, p_b: Array) -> Limbs:
  """Adds 32-bit numbers whose upper half lines up with limb `p`."""
  limbs, carry = list(low), jnp.zeros_like(add_b)
  for i in reversed(range(len(low))):
    part = jnp.where(p_b == i, add_b >> 16, 0)
    part = part + jnp.where(p_b == i - 1, add_b & 0xFFFF, 0)
    total = low[i] + part + carry
    limbs[i], carry = total & 0xFFFF, total >> 16
  return tuple(limbs)


def child(
  node: Node, start_b: UInt32[Array, 'b'], end_b: UInt32[Array, 'b']
) -> Node:
  """The child between two neighbouring bounds."""
  r_b = end_b - start_b
  shift_b = (r_b < _CELL) & (node.p_b < node.p_max)
  return Node(
    _add_at(node.low, start_b, node.p_b),
    jnp.where(shift_b, r_b << 16, r_b),
    node.p_b + shift_b,
    node.n_b + 1,
  )


def child_of(node: Node, cdf: Cdf, symbol_b: Int[Array, 'b']) -> Node:
  """The child of a symbol."""
  start_b = bounds(node, cdf(symbol_b))
  return child(node, start_b, bounds(node, cdf(symbol_b + 1)))


def is_feasible(node: Node) -> Bool[Array, 'b']:
  """Whether a (non-empty) prefix owns a whole cell."""
  fits_b = node.offset_b + _CELL <= node.r_b
  return (node.p_b < node.p_max) | fits_b


def first_word(node: Node) -> Limbs:
  """The first word whose cell starts inside."""
  last = jnp.full_like(node.p_b, node.p_max)
  return _add_at(node.low, node.offset_b, last)[:-1]


def straddling_word(node: Node, cdf: Cdf) -> tuple[Bool[Array, 'b'], Limbs]:
  """The first word inside a prefix and inside none of its children.

  Bounds that are not at a cell's edge lie in such a cell. There are none while
  `p` is below its maximum (cells then end at multiples of the children's
  units) nor at the root. Only the first such bound above the first whole cell's
  start needs a look: if its cell is not inside, no later one's is.

  Returns:
    Whether there is one, and the word.
  """
  fine_b = (node.n_b > 0) & (node.p_b == node.p_max)
  last = quantize.NUM_SYMBOLS

  def bound(index_b):
    return bounds(node, cdf(index_b))

  def past_edge(index_b):
    return (bound(index_b) - node.offset_b) & 0xFFFF

  def is_at_edge(index_b):
    return fine_b & (index_b < last) & (past_edge(index_b) == 0)

  index_b = jax.lax.while_loop(
    lambda index_b: is_at_edge(index_b).any(),
    lambda index_b: index_b + is_at_edge(index_b),
    search(bound, node.offset_b) + 1,
  )
  start_b = bound(index_b) - past_edge(index_b)
  # No overflow: start <= r < 2**32 - 2**16 whenever n >= 1, as every other
  # symbol keeps a share of at least 2**-16.
  found_b = fine_b & (index_b < last) & (start_b + _CELL <= node.r_b)
  at_last = jnp.full_like(node.p_b, node.p_max)
  return found_b, _add_at(node.low, start_b, at_last)[:-1]


def _subtract(a: Limbs, b: Limbs) -> Limbs:
  limbs, borrow = list(a), jnp.zeros_like(a[0])
  for i in reversed(range(len(a))):
    total = a[i] - b[i] - borrow
    limbs[i], borrow = total & 0xFFFF, total >> 31
  return tuple(limbs)


def _log2(a: Limbs) -> Int[Array, 'b']:
  """Index of the highest bit that is set; -1 for 0."""
  result = jnp.full(a[0].shape, -1, jnp.int32)
  for i, limb in enumerate(a):
    top = 31 - jax.lax.clz(limb).astype(jnp.int32) + 16 * (len(a) - 1 - i)
    result = jnp.where((result < 0) & (limb > 0), top, result)
  return result


def _bit(k_b: Array, like: Limbs) -> Limbs:
  """2**k as limbs; 0 for k < 0."""
  one = jnp.uint32(1) << (k_b & 15).astype(jnp.uint32)
  places = range(len(like) - 1, -1, -1)
  return tuple(jnp.where(k_b >> 4 == i, one, 0) for i in places)


def _clear_below(a: Limbs, k_b: Array) -> Limbs:
  """Zeroes the bits below bit k."""
  cleared = []
  for i, limb in zip(range(len(a) - 1, -1, -1), a, strict=True):
    shift = jnp.clip(k_b - 16 * i, 0, 16).astype(jnp.uint32)
    cleared.append((limb >> shift) << shift)
  return tuple(cleared)


def zero_padded_word(node: Node) -> Limbs:
  """The shortest bit string inside, smallest first, padded with zeros.

  In cells, the prefix owns [first, end). Let m be the number in [first, end]
  with the most trailing zeros: the largest aligned block either ends or starts
  at m, and m is `end` without the bits below the highest one in which `end` and
  `first - 1` differ. Meaningless for infeasible prefixes and the root.
  """
  zero = jnp.zeros_like(node.r_b)
  low, last = (zero, *node.low), node.p_max + 1
  first = _add_at(low, node.offset_b, jnp.full_like(node.p_b, last))[:-1]
  end = _add_at(low, node.r_b, node.p_b + 1)[:-1]
  one = (*([zero] * last), zero + 1)
  differ = tuple(a ^ b for a, b in zip(_subtract(first, one), end, strict=True))
  middle = _clear_below(end, _log2(differ))
  left_b = _log2(_subtract(middle, first))
  right_b = _log2(_subtract(end, middle))
  start = _subtract(middle, _bit(left_b, middle))
  word = select(left_b >= right_b, start, middle)
  at_zero = sum(first) == 0
  return tuple(jnp.where(at_zero, 0, limb) for limb in word[1:])

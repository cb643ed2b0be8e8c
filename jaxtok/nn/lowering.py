# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""From masks to the `MaskSpec` of the kernels: ranges of keys, block lists.

Axes: b batch (or 1), t queries, s keys, p blocks.
"""

import dataclasses

import jax.numpy as jnp
import jaxtok_kernels
from jaxtyping import Array, Int

from jaxtok.nn.masks import (
  And,
  Blocks,
  Causal,
  Full,
  Layout,
  Mask,
  Range,
  Segments,
  Window,
)


def lower(mask: Mask, layout: Layout) -> jaxtok_kernels.MaskSpec:
  """The mask in the form that `jaxtok_kernels.flash_attention` takes.

  Masks that are statically a band (causal, window, full) become one without
  any array; others become at most two ranges of keys per query, and one
  `Blocks` may be joined to them by `&`.

  Raises:
    NotImplementedError: If the mask is not of that form.
  """
  terms = _conjuncts(mask)
  blocks = [term for term in terms if isinstance(term, Blocks)]
  rest = [term for term in terms if not isinstance(term, Blocks)]
  spec = _band(rest, layout)
  if spec is None:
    joined = rest[0] if rest else Full()
    for term in rest[1:]:
      joined = joined & term
    spec = jaxtok_kernels.masks.from_intervals(intervals(joined, layout))
  if not blocks:
    return spec
  if len(blocks) > 1 or not layout.is_aligned:
    raise NotImplementedError(
      'kernels take one Blocks mask, between queries and keys in order 0..t-1. '
      "Use implementation='dense'."
    )
  return dataclasses.replace(spec, block_lists=_block_lists(blocks[0]))


def _conjuncts(mask: Mask) -> list[Mask]:
  if isinstance(mask, And):
    return _conjuncts(mask.left) + _conjuncts(mask.right)
  return [mask]


def _band(terms: list[Mask], layout: Layout) -> jaxtok_kernels.MaskSpec | None:
  """The conjunction as a static band around the diagonal, if it is one."""
  if layout.kv_length_b is not None or layout.kv_index_bs is not None:
    return None
  left, right = [], []
  for term in terms:
    if isinstance(term, Causal) and layout.is_aligned:
      right.append(0)
    elif isinstance(term, Window) and layout.is_aligned:
      left.append(term.size - 1)
      right.append(term.size - 1)
    elif not isinstance(term, Full) and not (
      isinstance(term, Segments) and layout.segments() is None
    ):
      return None
  return jaxtok_kernels.masks.band(
    min(left, default=None), min(right, default=None)
  )


def _block_lists(blocks: Blocks) -> jaxtok_kernels.BlockLists:
  chosen_bpp = blocks.chosen_bpp
  order_bpp = jnp.argsort(~chosen_bpp, axis=-1, stable=True)
  return jaxtok_kernels.BlockLists(
    ids=order_bpp[:, None].astype(jnp.int32),
    count=chosen_bpp.sum(axis=-1, dtype=jnp.int32)[:, None],
    full=jnp.zeros((chosen_bpp.shape[0], 1, *chosen_bpp.shape[1:]), bool),
    block_q=blocks.size,
    block_kv=blocks.size,
  )


def intervals(mask: Mask, layout: Layout) -> Int[Array, 'b t n 2']:
  """At most two disjoint, ascending ranges of keys per query.

  Empty ranges are `[0, 0)`. This is `MaskSpec.intervals`.

  Raises:
    NotImplementedError: If the mask needs more than two ranges, or none fit.
  """
  ranges = mask.ranges(layout)
  if len(ranges) > 2:
    raise NotImplementedError(
      f'{mask} needs {len(ranges)} ranges of keys per query; kernels take at '
      "most 2. Use implementation='dense', or masks.Ranges with merged ranges."
    )
  b_t = jnp.zeros((1, layout.num_queries), jnp.int32)
  stop = layout.num_keys
  if layout.kv_length_b is not None:
    stop = jnp.minimum(layout.kv_length_b, stop)[:, None]
  closed = [
    (
      b_t if low is None else jnp.maximum(low, 0) + b_t,
      (b_t + stop) if high is None else jnp.minimum(high, stop) + b_t,
    )
    for low, high in ranges
  ]
  if len(closed) == 1:
    (low, high), seconds = closed[0], []
  else:
    low, high, second_low, second_high = _union(*closed)
    seconds = [(second_low, second_high)]
  pairs = [_clear_empty(*r) for r in [(low, high), *seconds]]
  shape = jnp.broadcast_shapes(*(x.shape for pair in pairs for x in pair))
  widen = lambda x: jnp.broadcast_to(x, shape).astype(jnp.int32)
  return jnp.stack(
    [jnp.stack([widen(a), widen(z)], axis=-1) for a, z in pairs], axis=2
  )


def _clear_empty(low, high):
  empty = low >= high
  return jnp.where(empty, 0, low), jnp.where(empty, 0, high)


def _union(a: Range, b: Range):
  """Sorts two ranges, joins them where they touch."""
  (a0, a1), (b0, b1) = _clear_empty(*a), _clear_empty(*b)
  # An empty range goes last, so that the first one starts the row.
  a_first = ((a0 <= b0) & (a0 < a1)) | (b0 >= b1)
  low, high = jnp.where(a_first, a0, b0), jnp.where(a_first, a1, b1)
  low2, high2 = jnp.where(a_first, b0, a0), jnp.where(a_first, b1, a1)
  touch = (low2 <= high) & (low2 < high2)
  high = jnp.where(touch, jnp.maximum(high, high2), high)
  high2 = jnp.where(touch, low2, high2)
  return low, high, low2, high2

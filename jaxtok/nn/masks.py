# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention masks as small objects that say which keys a query sees.

Masks are combined by `&` and `|`:

  Causal()                                   # A decoder.
  Causal() | Prefix(num_prefix_b)            # Prefix-LM.
  Causal() & (Window(256) | Sinks(4))        # Streaming.
  Segments() & Causal()                      # Packed documents.

They speak of *order* (the index of a token in its row), never of the positions
that RoPE uses: positions may restart or repeat, order may not. `Prefix` and
`Sinks` count from the first token of the query's own document. A `Layout` says
where the queries and keys of one call stand. Each mask can

* make itself a boolean array: `mask.dense(layout)`;
* become ranges of keys per query where that is possible: `mask.ranges(layout)`,
  which `lowering.lower` turns into the `MaskSpec` of the kernels;
* bound, statically, the keys that a slice of queries can see: `mask.span`.

Axes: b batch (or 1, if all rows are alike), t queries, s keys, p blocks.
"""

import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

# A half-open range of keys per query; None is an open end.
Bound = Any  # Int[Array, 'b t'] | None
Range = tuple[Bound, Bound]


def _node(*static: str):
  """Makes a frozen dataclass a pytree; `static` fields are not data."""

  def wrap(cls):
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(
      cls,
      data_fields=[n for n in names if n not in static],
      meta_fields=list(static),
    )

  return wrap


@_node('num_queries', 'num_keys')
class Layout:
  """Where queries and keys of one attention call stand in their rows.

  Attributes:
    num_queries: t, static.
    num_keys: s, static.
    q_index_bt: Order of each query; None means 0..t-1.
    kv_index_bs: Order of each key; None means 0..s-1.
    q_segments_bt: Document of each query, counted from 1; 0 is padding. None
      means that all are in document 1.
    kv_segments_bs: Document of each key, likewise. Documents are contiguous.
    kv_length_b: Only the first `kv_length_b` keys exist (a cache that is not
      full yet); None means all.
  """

  num_queries: int
  num_keys: int
  q_index_bt: Any = None
  kv_index_bs: Any = None
  q_segments_bt: Any = None
  kv_segments_bs: Any = None
  kv_length_b: Any = None

  @property
  def is_aligned(self) -> bool:
    """Whether query i and key i are statically known to be the same token."""
    return (
      self.q_index_bt is None
      and self.kv_index_bs is None
      and self.num_queries == self.num_keys
    )

  def q_index(self) -> Int[Array, 'b t']:
    if self.q_index_bt is None:
      return jnp.arange(self.num_queries)[None]
    return self.q_index_bt

  def kv_index(self) -> Int[Array, 'b s']:
    if self.kv_index_bs is None:
      return jnp.arange(self.num_keys)[None]
    return self.kv_index_bs

  def segments(self) -> tuple[Int[Array, '#b t'], Int[Array, '#b s']] | None:
    """Documents of queries and keys, or None if there is only one."""
    q_bt, kv_bs = self.q_segments_bt, self.kv_segments_bs
    if q_bt is None and kv_bs is None:
      return None
    if q_bt is None:
      q_bt = jnp.ones((1, self.num_queries), jnp.int32)
    if kv_bs is None:
      kv_bs = jnp.ones((1, self.num_keys), jnp.int32)
    return q_bt, kv_bs

  def exists(self) -> Bool[Array, 'b #t s'] | None:
    """Keys that exist at all; None means all of them."""
    if self.kv_length_b is None:
      return None
    slot_s = jnp.arange(self.num_keys)
    return slot_s[None, None, :] < self.kv_length_b[:, None, None]

  def documents(self) -> tuple[Bound, Bound]:
    """First key and one past the last key of each query's document.

    Needs keys in order 0..s-1. Without segments both ends are open.
    """
    segments = self.segments()
    if segments is None:
      return None, None
    _require_ordered(self, 'documents')
    kv_bs = segments[1]
    edge_b1 = jnp.full((kv_bs.shape[0], 1), -1, kv_bs.dtype)
    index_s = jnp.arange(self.num_keys)
    first_bs = kv_bs != jnp.concatenate([edge_b1, kv_bs[:, :-1]], axis=1)
    last_bs = kv_bs != jnp.concatenate([kv_bs[:, 1:], edge_b1], axis=1)
    start_bs = jax.lax.cummax(jnp.where(first_bs, index_s, 0), axis=1)
    end_bs = jax.lax.cummin(
      jnp.where(last_bs, index_s + 1, self.num_keys), axis=1, reverse=True
    )
    return self._of_queries(start_bs), self._of_queries(end_bs)

  def _of_queries(self, x_bs: Int[Array, 'b s']) -> Int[Array, 'b t']:
    if self.q_index_bt is None:
      return x_bs[:, : self.num_queries]
    index_bt = jnp.clip(self.q_index_bt, 0, self.num_keys - 1)
    b = max(index_bt.shape[0], x_bs.shape[0])
    widen = lambda x: jnp.broadcast_to(x, (b, x.shape[1]))
    return jnp.take_along_axis(widen(x_bs), widen(index_bt), axis=1)


def _require_ordered(layout: Layout, what: str) -> None:
  if layout.kv_index_bs is not None:
    raise NotImplementedError(
      f'{what} as ranges need keys in order 0..s-1, but layout.kv_index_bs is '
      "set (a ring cache?). Use mask.dense(layout) or implementation='dense'."
    )


class Mask:
  """Base of all masks: `&`, `|` and the error messages.

  Subclasses define `dense`; those that can also define `ranges` and `span`.
  """

  def __and__(self, other: 'Mask') -> 'Mask':
    return And(self, other)

  def __or__(self, other: 'Mask') -> 'Mask':
    return Or(self, other)

  def dense(self, layout: Layout) -> Bool[Array, 'b t s']:
    """Whether query t sees key s; the first axis is 1 if rows are alike."""
    raise NotImplementedError

  def ranges(self, layout: Layout) -> list[Range]:
    """Ranges of keys whose union each query sees; they may overlap.

    Raises:
      NotImplementedError: If this mask is not a union of few ranges.
    """
    raise NotImplementedError(
      f'{type(self).__name__} is not made of ranges of keys. Use '
      "mask.dense(layout) or implementation='dense'."
    )

  def span(self, layout: Layout, start: int, stop: int) -> tuple[int, int]:
    """Static bounds of the keys that queries `start..stop-1` can see."""
    del start, stop
    return 0, layout.num_keys


@_node()
class Full(Mask):
  """Every query sees every key."""

  def dense(self, layout):
    return jnp.ones((1, layout.num_queries, layout.num_keys), bool)

  def ranges(self, layout):
    return [(None, None)]


@_node()
class Causal(Mask):
  """A query sees itself and what came before it."""

  def dense(self, layout):
    return layout.q_index()[:, :, None] >= layout.kv_index()[:, None, :]

  def ranges(self, layout):
    _require_ordered(layout, 'Causal')
    return [(None, layout.q_index() + 1)]

  def span(self, layout, start, stop):
    return (0, stop) if layout.is_aligned else (0, layout.num_keys)


@_node('size')
class Window(Mask):
  """A query sees keys fewer than `size` places away, on either side.

  `Causal() & Window(size)` is the usual sliding window of `size` keys
  including the query's own.
  """

  size: int

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f'Window size must be >= 1, got {self.size}.')

  def dense(self, layout):
    distance_bts = layout.q_index()[:, :, None] - layout.kv_index()[:, None, :]
    return jnp.abs(distance_bts) < self.size

  def ranges(self, layout):
    _require_ordered(layout, 'Window')
    index_bt = layout.q_index()
    return [(index_bt - self.size + 1, index_bt + self.size)]

  def span(self, layout, start, stop):
    if not layout.is_aligned:
      return 0, layout.num_keys
    return (
      max(0, start - self.size + 1),
      min(layout.num_keys, stop + self.size - 1),
    )


@_node()
class Prefix(Mask):
  """Every query sees the first `length` keys of its own document.

  Attributes:
    length: An integer, or one per row [b], or one per query [b, t] (packed
      documents with prefixes of different lengths).
  """

  length: Any

  def _length_bt(self):
    length = jnp.asarray(self.length)
    return length.reshape(length.shape + (1,) * (2 - length.ndim))

  def dense(self, layout):
    index_bs = layout.kv_index()
    segments = layout.segments()
    if segments is None:
      return index_bs[:, None, :] < self._length_bt()[:, :, None]
    if layout.kv_index_bs is None:
      start_bt = layout.documents()[0]
      ahead_bts = index_bs[:, None, :] - start_bt[:, :, None]
      return ahead_bts < self._length_bt()[:, :, None]
    same_bts = segments[0][:, :, None] == segments[1][:, None, :]
    far = np.iinfo(np.int32).max
    start_bt1 = jnp.where(same_bts, index_bs[:, None, :], far).min(
      axis=-1, keepdims=True
    )
    ahead_bts = index_bs[:, None, :] - start_bt1
    return same_bts & (ahead_bts < self._length_bt()[:, :, None])

  def ranges(self, layout):
    _require_ordered(layout, type(self).__name__)
    start_bt, _ = layout.documents()
    length_bt = self._length_bt()
    return [(None, length_bt if start_bt is None else start_bt + length_bt)]


@_node('length')
class Sinks(Prefix):
  """Every query sees the first `length` tokens of its document (static)."""

  length: int

  def span(self, layout, start, stop):
    if layout.segments() is None and layout.kv_index_bs is None:
      return 0, min(self.length, layout.num_keys)
    return 0, layout.num_keys


@_node()
class Segments(Mask):
  """A query sees its own document; padding sees nothing and is not seen."""

  def dense(self, layout):
    segments = layout.segments()
    if segments is None:
      return Full().dense(layout)
    q_bt, kv_bs = segments
    return (q_bt[:, :, None] == kv_bs[:, None, :]) & (q_bt[:, :, None] != 0)

  def ranges(self, layout):
    segments = layout.segments()
    if segments is None:
      return [(None, None)]
    if not (layout.is_aligned or layout.q_index_bt is not None):
      raise NotImplementedError(
        f'Segments between {layout.num_queries} queries and '
        f'{layout.num_keys} other keys are not ranges unless '
        "layout.q_index_bt is set. Use implementation='dense'."
      )
    start_bt, end_bt = layout.documents()
    return [(start_bt, jnp.where(segments[0] != 0, end_bt, start_bt))]


@_node('size')
class Blocks(Mask):
  """Block-sparse: block i of queries sees block j of keys where chosen.

  Attributes:
    chosen_bpp: Booleans [b or 1, query blocks, key blocks].
    size: Tokens in a block; static. Order decides the block of a token.
  """

  chosen_bpp: Any
  size: int

  def dense(self, layout):
    q_bt = layout.q_index() // self.size
    kv_bs = layout.kv_index() // self.size
    b = max(q_bt.shape[0], kv_bs.shape[0], self.chosen_bpp.shape[0])
    widen = lambda x: jnp.broadcast_to(x, (b, *x.shape[1:]))
    row_b11 = jnp.arange(b)[:, None, None]
    chosen_bpp = widen(self.chosen_bpp)
    return chosen_bpp[row_b11, widen(q_bt)[:, :, None], widen(kv_bs)[:, None]]


@_node()
class Tree(Mask):
  """The queries are nodes of a tree of drafts behind what is committed.

  The t queries are the nodes, in the order of their indices; node i sees all
  keys before the first node, and node j if `ancestors_btt[b, i, j]` (every
  node is its own ancestor).
  """

  ancestors_btt: Any

  @classmethod
  def from_parents(cls, parents_bg: Int[Array, 'b g']) -> 'Tree':
    """A tree from the parent of each node; -1 marks a root.

    Args:
      parents_bg: Index of each node's parent, smaller than its own.
    """
    b, g = parents_bg.shape
    eye_gg = jnp.eye(g, dtype=bool)
    ancestors_bgg = jnp.broadcast_to(eye_gg, (b, g, g))

    def add(i, ancestors_bgg):
      parent_b = parents_bg[:, i]
      path_bg = ancestors_bgg[jnp.arange(b), jnp.maximum(parent_b, 0)]
      path_bg = path_bg & (parent_b >= 0)[:, None]
      return ancestors_bgg.at[:, i].set(path_bg | eye_gg[i])

    return cls(jax.lax.fori_loop(0, g, add, ancestors_bgg))

  def dense(self, layout):
    first_b1 = layout.q_index()[:, :1]
    node_bs = layout.kv_index() - first_b1
    t = self.ancestors_btt.shape[-1]
    inside_bs = (node_bs >= 0) & (node_bs < t)
    b = max(node_bs.shape[0], self.ancestors_btt.shape[0])
    seen_bts = jnp.take_along_axis(
      jnp.broadcast_to(self.ancestors_btt, (b, *self.ancestors_btt.shape[1:])),
      jnp.broadcast_to(
        jnp.clip(node_bs, 0, t - 1)[:, None, :], (b, t, node_bs.shape[1])
      ),
      axis=2,
    )
    return (node_bs < 0)[:, None, :] | (inside_bs[:, None, :] & seen_bts)


@_node()
class Dense(Mask):
  """Any mask, given as booleans [b or 1, t, s]; quadratic memory."""

  visible_bts: Any

  def dense(self, layout):
    want = (layout.num_queries, layout.num_keys)
    if self.visible_bts.shape[1:] != want:
      raise ValueError(
        f'Dense mask has shape {self.visible_bts.shape}; this call has '
        f'{want[0]} queries and {want[1]} keys, so it must be [b or 1, '
        f'{want[0]}, {want[1]}].'
      )
    return self.visible_bts


@_node()
class Ranges(Mask):
  """Up to two ranges of keys per query, given as data.

  Attributes:
    bounds_btn2: Integers [b or 1, t, n, 2]: each query sees keys
      `bounds[..., 0] <= s < bounds[..., 1]` of each of its n ranges.
  """

  bounds_btn2: Any

  def dense(self, layout):
    index_b1s1 = layout.kv_index()[:, None, :, None]
    start_btsn = self.bounds_btn2[:, :, None, :, 0]
    end_btsn = self.bounds_btn2[:, :, None, :, 1]
    return ((index_b1s1 >= start_btsn) & (index_b1s1 < end_btsn)).any(axis=-1)

  def ranges(self, layout):
    _require_ordered(layout, 'Ranges')
    bounds = self.bounds_btn2
    return [
      (bounds[..., n, 0], bounds[..., n, 1]) for n in range(bounds.shape[2])
    ]


@_node()
class And(Mask):
  """What both masks show."""

  left: Mask
  right: Mask

  def dense(self, layout):
    return self.left.dense(layout) & self.right.dense(layout)

  def ranges(self, layout):
    return [
      (_tighter(a[0], b[0], jnp.maximum), _tighter(a[1], b[1], jnp.minimum))
      for a in self.left.ranges(layout)
      for b in self.right.ranges(layout)
    ]

  def span(self, layout, start, stop):
    a = self.left.span(layout, start, stop)
    b = self.right.span(layout, start, stop)
    low = max(a[0], b[0])
    return low, max(low, min(a[1], b[1]))


@_node()
class Or(Mask):
  """What either mask shows."""

  left: Mask
  right: Mask

  def dense(self, layout):
    return self.left.dense(layout) | self.right.dense(layout)

  def ranges(self, layout):
    a, b = self.left.ranges(layout), self.right.ranges(layout)
    if len(a) == len(b) == 1 and (a[0][0] is None) and (b[0][0] is None):
      open_end = a[0][1] is None or b[0][1] is None
      return [(None, None if open_end else jnp.maximum(a[0][1], b[0][1]))]
    return a + b

  def span(self, layout, start, stop):
    a = self.left.span(layout, start, stop)
    b = self.right.span(layout, start, stop)
    return min(a[0], b[0]), max(a[1], b[1])


def _tighter(a: Bound, b: Bound, choose) -> Bound:
  if a is None or b is None:
    return b if a is None else a
  return choose(a, b)


def all_of(*masks: Mask) -> Mask:
  """The conjunction of one or more masks."""
  return functools.reduce(operator.and_, masks)


def visible(mask: Mask, layout: Layout) -> Bool[Array, 'b t s']:
  """`mask.dense(layout)` without keys that do not exist."""
  seen_bts = mask.dense(layout)
  exists_b1s = layout.exists()
  return seen_bts if exists_b1s is None else seen_bts & exists_b1s

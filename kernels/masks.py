# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks as data: which keys each query row may see.

A mask is never a dense host array: it is a few intervals of key positions per
query row, computed on the device, so that masks may depend on data. Kernels
lower `MaskSpec` to `row_intervals` (what a row sees) and `schedule` (which
tiles have anything to compute). Axes: b batch, t queries, s keys, i intervals
of a row, k key heads, p key blocks.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

MAX_POS = np.iinfo(np.int32).max


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BlockLists:
  """Key blocks that each block of queries may see.

  Attributes:
    ids: int32 `[b|1, k|1, t // block_q, m]`, ascending block numbers; entries
      past `count` are ignored but must be valid block numbers (e.g. 0).
    count: int32 `[b|1, k|1, t // block_q]`, number of valid entries.
    full: bool `[b|1, k|1, t // block_q, m]`; a full block is visible to all its
      rows, but for padding keys; in others the mask's intervals apply.
    block_q: Static; rows per query block.
    block_kv: Static; keys per key block.
  """

  ids: jax.Array
  count: jax.Array
  full: jax.Array
  block_q: int = dataclasses.field(metadata=dict(static=True))
  block_kv: int = dataclasses.field(metadata=dict(static=True))

  def check(self) -> None:
    """Raises ValueError if the arrays do not fit each other."""
    if self.ids.ndim != 4:
      raise ValueError(
        f'mask.block_lists.ids has shape {self.ids.shape}; it must be [b or 1, '
        'key heads or 1, query blocks, entries].'
      )
    wanted = {'count': self.ids.shape[:3], 'full': self.ids.shape}
    for name, shape in wanted.items():
      if (found := getattr(self, name).shape) != shape:
        raise ValueError(
          f'mask.block_lists.{name} has shape {found}; it must be {shape}, as '
          f'ids has shape {self.ids.shape}.'
        )

  def dense(self, num_blocks: int) -> tuple[jax.Array, jax.Array]:
    """Listed and full blocks as two bools `[b|1, k|1, t // block_q, p]`."""
    valid = jnp.arange(self.ids.shape[-1]) < self.count[..., None]
    hit = self.ids[..., None] == jnp.arange(num_blocks)
    listed = (hit & valid[..., None]).any(-2)
    full = (hit & (valid & self.full)[..., None]).any(-2)
    return listed, full


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class MaskSpec:
  """Which keys each query row may see.

  Build one with `full`, `causal`, `window`, `sinks`, `prefix`, `packed`,
  `lengths`, `from_intervals`, `blocks` or `tree`; add `q_pos` and `kv_pos` with
  `dataclasses.replace`.

  Row `i` stands at position `q_pos[i]` (default `i`) and key `j` at `kv_pos[j]`
  (default `j`). The row sees the positions of its `intervals`; without them
  those of the band `[position - left, position + right]`, extended by the first
  `num_sinks` keys and, for `prefix_len`, by the whole prefix. Keys at negative
  positions are padding: no interval contains them.

  Attributes:
    intervals: int32 `[b|1, t, i, 2]`, half-open `[start, end)` position ranges,
      disjoint and ascending; `start >= end` is empty. Overrides the band.
    prefix_len: int32 `[b|1]`, keys that all rows see (band of a prefix-LM).
    q_pos: int32 `[b|1, t]`, positions of the query rows; bands only, refused
      with `intervals`.
    kv_pos: int32 `[b|1, s]`, positions of the keys.
    block_lists: Restricts the above to listed blocks.
    tree_bits: uint32 `[b, t, ceil(t / 32)]`; the last `t` keys are the nodes of
      a tree and row `i` sees node `j` iff bit `j` is set; for the earlier keys
      the intervals apply.
    left: Static; keys before the row's position that it sees, None for all.
    right: Static; keys after the row's position that it sees, None for all.
    num_sinks: Static; first keys that stay visible outside the window.
  """

  intervals: jax.Array | None = None
  prefix_len: jax.Array | None = None
  q_pos: jax.Array | None = None
  kv_pos: jax.Array | None = None
  block_lists: BlockLists | None = None
  tree_bits: jax.Array | None = None
  left: int | None = dataclasses.field(default=None, metadata=dict(static=True))
  right: int | None = dataclasses.field(
    default=None, metadata=dict(static=True)
  )
  num_sinks: int = dataclasses.field(default=0, metadata=dict(static=True))

  @property
  def is_full(self) -> bool:
    """Whether, statically, every row sees every key."""
    leaves = jax.tree.leaves(self)
    return not leaves and self.left is None and self.right is None

  @property
  def batch(self) -> int:
    """Leading size of the mask: 1 if all batch elements share it."""
    return max([1] + [x.shape[0] for x in jax.tree.leaves(self)])

  def row_intervals(self, num_queries: int, num_keys: int) -> jax.Array:
    """The visible key positions of each row.

    Args:
      num_queries: Static; rows t.
      num_keys: Static; keys s. Ends are clipped to it unless `kv_pos` is set.

    Returns:
      int32 `[b|1, t, i, 2]`; empty intervals are `[e, e)`, starts are >= 0.
    """
    limit = MAX_POS if self.kv_pos is not None else num_keys
    self._check_rows(num_queries)
    if self.intervals is None:
      ranges = self._band(num_queries)
    else:
      ranges = jnp.moveaxis(self.intervals, -1, 0).astype(jnp.int32)
    end = jnp.clip(ranges[1], 0, limit)
    start = jnp.minimum(jnp.maximum(ranges[0], 0), end)
    return jnp.stack([start, end], -1)

  def _check_rows(self, num_queries: int) -> None:
    if self.intervals is not None:
      _expect(self.intervals, 'intervals', '[b or 1, t, i, 2]', num_queries)
      if self.q_pos is not None:
        raise ValueError(
          'q_pos is given, but mask has explicit intervals, which say what '
          'each row sees: q_pos would be ignored. Leave it out, or use a band.'
        )
    if self.q_pos is not None:
      _expect(self.q_pos, 'q_pos', '[b or 1, t]', num_queries)
    if self.prefix_len is not None:
      _expect(self.prefix_len, 'prefix_len', '[b or 1]')

  def _band(self, num_queries: int) -> tuple[jax.Array, jax.Array]:
    """Starts and ends `[b|1, t, i]` of the band around each row."""
    pos_bt = jnp.arange(num_queries, dtype=jnp.int32)[None]
    if self.q_pos is not None:
      pos_bt = self.q_pos.astype(jnp.int32)
    start, end = jnp.zeros_like(pos_bt), jnp.full_like(pos_bt, MAX_POS)
    if self.left is not None:
      start = jnp.maximum(pos_bt - self.left, 0)
    if self.right is not None:
      end = pos_bt + self.right + 1
    if self.prefix_len is not None:
      end = jnp.maximum(end, self.prefix_len.astype(jnp.int32)[:, None])
      start = jnp.broadcast_to(start, end.shape)
    if not self.num_sinks:
      return start[..., None], end[..., None]
    first_end = jnp.minimum(end, self.num_sinks)
    return (
      jnp.stack([jnp.zeros_like(start), jnp.maximum(start, first_end)], -1),
      jnp.stack([first_end, end], -1),
    )

  def key_positions(self, num_keys: int) -> jax.Array:
    """int32 `[b|1, s]`, the position of each key."""
    if self.kv_pos is None:
      return jnp.arange(num_keys, dtype=jnp.int32)[None]
    _expect(self.kv_pos, 'kv_pos', '[b or 1, s]', num_keys)
    return self.kv_pos.astype(jnp.int32)

  def check(self, num_queries: int, num_keys: int) -> None:
    """Raises ValueError if an array does not fit so many queries and keys."""
    self._check_rows(num_queries)
    if self.kv_pos is not None:
      _expect(self.kv_pos, 'kv_pos', '[b or 1, s]', num_keys)
    if self.block_lists is not None:
      self.block_lists.check()
    if self.tree_bits is None:
      return
    _expect(self.tree_bits, 'tree_bits', '[b or 1, t, words]', num_queries)
    words = -(-num_queries // 32)
    if self.tree_bits.shape[2] != words:
      raise ValueError(
        f'mask.tree_bits has shape {self.tree_bits.shape}, {num_queries} nodes '
        f'need {words} words of 32 bits on axis 2.'
      )
    if num_queries > num_keys:
      raise ValueError(
        f'mask.tree_bits is for {num_queries} queries, but there are only '
        f"{num_keys} keys: the last keys must be the queries' own."
      )

  def dense_by_head(self, num_queries: int, num_keys: int) -> jax.Array:
    """Visibility `[b|1, k|1, t, s]` as bool; k > 1 only for block lists."""
    self.check(num_queries, num_keys)
    rows = self.row_intervals(num_queries, num_keys)[:, None]
    pos = self.key_positions(num_keys)[:, None, None]
    seen = in_intervals(rows, pos)
    if self.tree_bits is not None:
      nodes = jnp.arange(num_keys) - (num_keys - num_queries)
      bits = tree_visible(self.tree_bits, nodes)[:, None]
      seen = jnp.where(nodes >= 0, bits, seen)
    if (lists := self.block_lists) is not None:
      listed, full = lists.dense(-(-num_keys // lists.block_kv))
      spread = lambda x: jnp.repeat(
        jnp.repeat(x, lists.block_q, -2), lists.block_kv, -1
      )[..., :num_queries, :num_keys]
      seen = spread(listed) & (spread(full) | seen) & (pos >= 0)
    return seen

  def dense(self, num_queries: int, num_keys: int) -> jax.Array:
    """Visibility `[b|1, t, s]` as bool, the form oracles use.

    Raises:
      ValueError: If block lists differ between heads; see `dense_by_head`.
    """
    seen = self.dense_by_head(num_queries, num_keys)
    if seen.shape[1] > 1:
      raise ValueError(
        f'block_lists differ between {seen.shape[1]} key heads, so there is no '
        'mask [b, t, s]. Use dense_by_head.'
      )
    return seen[:, 0]

  def pairs(self, num_queries: int, num_keys: int, batch: int = 1) -> int:
    """Visible (query, key) pairs of one head, summed over the batch.

    This is the A of the FLOP model; a host number, so the mask must not be
    traced. Per-head block lists count as the mean over heads.

    Args:
      num_queries: Rows t.
      num_keys: Keys s.
      batch: Batch size; used where the mask is shared by the batch.
    """
    scale = batch if self.batch == 1 else 1
    if self.block_lists is not None or self.tree_bits is not None:
      seen = np.asarray(self.dense_by_head(num_queries, num_keys))
      return scale * int(seen.sum(dtype=np.int64)) // seen.shape[1]
    rows = np.asarray(self.row_intervals(num_queries, num_keys), np.int64)
    if self.kv_pos is None:
      return scale * int((rows[..., 1] - rows[..., 0]).sum())
    keys = np.sort(np.asarray(self.kv_pos), -1)
    num = max(len(rows), len(keys))
    rows = np.broadcast_to(rows, (num, *rows.shape[1:]))
    keys = np.broadcast_to(keys, (num, keys.shape[1]))
    ranks = [np.searchsorted(k, r) for k, r in zip(keys, rows, strict=True)]
    return scale * int(sum((r[..., 1] - r[..., 0]).sum() for r in ranks))


def _expect(
  x: jax.Array, name: str, axes: str, size: int | None = None
) -> None:
  """Checks the number of axes, and the size of the second."""
  if x.ndim != axes.count(',') + 1:
    raise ValueError(
      f'mask.{name} has shape {x.shape}; it must have the axes {axes}.'
    )
  if size is not None and x.shape[1] != size:
    raise ValueError(
      f'mask.{name} has shape {x.shape}, but axis 1 must have size {size}.'
    )


def in_intervals(rows: jax.Array, pos: jax.Array) -> jax.Array:
  """Whether positions lie in the intervals of rows.

  Args:
    rows: int32 `[..., t, i, 2]`.
    pos: int32 `[..., s]`, broadcast against `[..., t, s]`.
  """
  seen = None
  for i in range(rows.shape[-2]):
    start, end = rows[..., i, 0, None], rows[..., i, 1, None]
    hit = (pos >= start) & (pos < end)
    seen = hit if seen is None else seen | hit
  return seen


def tree_visible(bits: jax.Array, nodes: jax.Array) -> jax.Array:
  """Bits of tree nodes.

  Args:
    bits: uint32 `[b, t, words]`.
    nodes: int32 `[s]` node numbers; out of range gives an arbitrary bit.

  Returns:
    bool `[b, t, s]`.
  """
  word = jnp.clip(nodes >> 5, 0, bits.shape[-1] - 1)
  shift = (nodes & 31).astype(jnp.uint32)
  return (jnp.take(bits, word, axis=-1) >> shift) & 1 == 1


def full() -> MaskSpec:
  """Every row sees every key."""
  return MaskSpec()


def causal(offset: int = 0) -> MaskSpec:
  """Row `i` sees keys `[0, i + 1 + offset)`.

  Args:
    offset: Static; keys that precede the first query, e.g. a cache.
  """
  return MaskSpec(right=offset)


def window(size: int, *, offset: int = 0) -> MaskSpec:
  """Row `i` sees the last `size` keys up to and including `i + offset`."""
  _at_least(size, 'size', 1)
  return MaskSpec(left=size - 1 - offset, right=offset)


def band(left: int | None, right: int | None) -> MaskSpec:
  """Row `i` sees `[i - left, i + right]`; None means without bound."""
  return MaskSpec(left=left, right=right)


def sinks(num_sinks: int, size: int, *, offset: int = 0) -> MaskSpec:
  """The first `num_sinks` keys and a causal window of `size` keys."""
  _at_least(num_sinks, 'num_sinks', 0)
  return dataclasses.replace(window(size, offset=offset), num_sinks=num_sinks)


def prefix(prefix_len: jax.typing.ArrayLike) -> MaskSpec:
  """Prefix-LM: row `i` sees `[0, max(i + 1, prefix_len))`.

  Args:
    prefix_len: int32 `[b]` or a scalar.
  """
  return MaskSpec(right=0, prefix_len=jnp.atleast_1d(jnp.asarray(prefix_len)))


def lengths(num_keys: jax.Array, num_queries: int = 1) -> MaskSpec:
  """Decoding: the last `num_queries` keys of each sequence are the queries.

  Args:
    num_keys: int32 `[b]`, keys in the cache, the new ones included.
    num_queries: Static; new tokens t. Row `i` sees
      `[0, num_keys - t + 1 + i)`.
  """
  row = jnp.arange(num_queries, dtype=jnp.int32)
  end = num_keys.astype(jnp.int32)[:, None] - (num_queries - 1) + row
  return from_intervals(jnp.stack([jnp.zeros_like(end), end], -1)[..., None, :])


def from_intervals(intervals: jax.Array) -> MaskSpec:
  """Explicit key ranges, int32 `[b|1, t, i, 2]`.

  Raises:
    ValueError: If the shape is another.
  """
  if intervals.ndim != 4 or intervals.shape[-1] != 2:
    raise ValueError(
      f'intervals has shape {intervals.shape}; it must be [b or 1, t, '
      'intervals per row, 2].'
    )
  return MaskSpec(intervals=intervals)


def document_bounds(segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
  """First row and end of each row's document.

  Args:
    segment_ids: int `[b, t]`; equal neighbours belong together.

  Returns:
    int32 `start [b, t]` and `end [b, t]` (exclusive).
  """
  size = segment_ids.shape[-1]
  row = jnp.arange(size, dtype=jnp.int32)
  changes = segment_ids[:, 1:] != segment_ids[:, :-1]
  edge = jnp.ones_like(segment_ids[:, :1], bool)
  first = jnp.concatenate([edge, changes], -1)
  last = jnp.concatenate([changes, edge], -1)
  start = jax.lax.cummax(jnp.where(first, row, 0), axis=1)
  end = jax.lax.cummin(jnp.where(last, row + 1, size), axis=1, reverse=True)
  return start, end


def packed(
  segment_ids: jax.Array,
  *,
  is_causal: bool = True,
  window_size: int | None = None,
  prefix_len: jax.Array | None = None,
) -> MaskSpec:
  """Documents side by side that do not see each other.

  Args:
    segment_ids: int `[b, t]`; each document is one run of equal ids. Rows with
      id 0 are padding: they see nothing and nothing sees them.
    is_causal: Static; rows see only their own past.
    window_size: Static; with it, only the last so many keys.
    prefix_len: int `[b, t]`; length of the bidirectional prefix of the row's
      document.

  Raises:
    ValueError: If `window_size` or `prefix_len` is given without `is_causal`.
  """
  if not is_causal and (window_size is not None or prefix_len is not None):
    raise ValueError('window_size and prefix_len need is_causal=True.')
  start, end = document_bounds(segment_ids)
  row = jnp.arange(segment_ids.shape[-1], dtype=jnp.int32)
  first = start
  if is_causal:
    ahead = row + 1
    if prefix_len is not None:
      ahead = jnp.maximum(ahead, start + prefix_len.astype(jnp.int32))
    end = jnp.minimum(end, ahead)
  if window_size is not None:
    _at_least(window_size, 'window_size', 1)
    first = jnp.maximum(first, row - (window_size - 1))
  end = jnp.where(segment_ids == 0, first, end)
  return from_intervals(jnp.stack([first, end], -1)[..., None, :])


def shared_prompt(prompt_len: jax.Array, segment_ids: jax.Array) -> MaskSpec:
  """One prompt followed by packed responses that all see it.

  Args:
    prompt_len: int32 `[b]`.
    segment_ids: int `[b, t]`; the ids of the prompt's rows are not used, each
      response is one run, 0 is padding.
  """
  row = jnp.arange(segment_ids.shape[-1], dtype=jnp.int32)
  prompt = prompt_len.astype(jnp.int32)[:, None]
  in_prompt = row < prompt
  # The prompt is made one run of its own, whatever its ids are.
  ids = jnp.where(in_prompt, -1, segment_ids)
  start, _ = document_bounds(ids)
  shown = jnp.where((ids == 0) | in_prompt, 0, prompt)
  end = jnp.where(ids == 0, start, row + 1)
  first = jnp.stack([jnp.zeros_like(shown), shown], -1)
  return from_intervals(
    jnp.stack([first, jnp.stack([start, end], -1)], axis=-2)
  )


def block_diffusion(num_tokens: int, block: int) -> MaskSpec:
  """Noisy half and clean half, `[noisy ; clean]`, of `num_tokens` each.

  A noisy row sees its own block of the noisy half and the clean blocks before
  it; a clean row sees the clean half up to the end of its own block.

  Args:
    num_tokens: Static; N, so that t = 2 N.
    block: Static; tokens per block.
  """
  _at_least(block, 'block', 1)
  row = jnp.arange(num_tokens, dtype=jnp.int32)
  start = row // block * block
  end = jnp.minimum(start + block, num_tokens)
  clean = jnp.full_like(row, num_tokens)
  ranges = lambda a, b: jnp.stack([a, b], -1)
  noisy = jnp.stack([ranges(start, end), ranges(clean, clean + start)], 1)
  tidy = jnp.stack([ranges(clean, clean), ranges(clean, clean + end)], 1)
  return from_intervals(jnp.concatenate([noisy, tidy])[None])


def blocks(lists: BlockLists, rows: MaskSpec | None = None) -> MaskSpec:
  """Block-sparse attention: `rows` (default all keys) within listed blocks."""
  return dataclasses.replace(rows or full(), block_lists=lists)


def tree(bits: jax.Array, context: MaskSpec | None = None) -> MaskSpec:
  """A tree of drafts: the last t keys by `bits`, earlier ones by `context`."""
  return dataclasses.replace(context or full(), tree_bits=bits)


def intersect(a: MaskSpec, b: MaskSpec, num_queries: int) -> MaskSpec:
  """Keys that both masks show.

  Args:
    a: Mask without block lists and tree bits.
    b: Likewise.
    num_queries: Static; rows t.

  Returns:
    A mask of intervals, one for each pair of intervals of `a` and `b`.

  Raises:
    ValueError: If a mask has block lists or tree bits, or both have `kv_pos`.
  """
  for name, mask in (('a', a), ('b', b)):
    if mask.block_lists is not None or mask.tree_bits is not None:
      raise ValueError(f'{name} has block_lists or tree_bits.')
  if a.kv_pos is not None and b.kv_pos is not None:
    raise ValueError('Both a and b have kv_pos; set it on the result instead.')
  rows_a = a.row_intervals(num_queries, MAX_POS)
  rows_b = b.row_intervals(num_queries, MAX_POS)
  pairs = [
    (rows_a[..., i, :], rows_b[..., j, :])
    for i in range(rows_a.shape[-2])
    for j in range(rows_b.shape[-2])
  ]
  ranges = []
  for x, y in pairs:
    start = jnp.maximum(x[..., 0], y[..., 0])
    end = jnp.minimum(x[..., 1], y[..., 1])
    ranges.append(jnp.stack([start, jnp.maximum(start, end)], -1))
  kv_pos = a.kv_pos if a.kv_pos is not None else b.kv_pos
  return MaskSpec(intervals=jnp.stack(ranges, -2), kv_pos=kv_pos)


def _at_least(value: int, name: str, low: int) -> None:
  if value < low:
    raise ValueError(f'{name}={value} must be at least {low}.')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """Tiles that have visible pairs.

  Attributes:
    ids: int32 `[b|1, t tiles, s tiles]`; the touched key tiles of each query
      tile, ascending, first `count` of them valid.
    count: int32 `[b|1, t tiles]`.
    full: bool `[b|1, t tiles, s tiles]`, aligned with `ids`: no mask needed.
  """

  ids: jax.Array
  count: jax.Array
  full: jax.Array


def touched_tiles(
  rows: jax.Array, pos: jax.Array, block_q: int, block_kv: int
) -> tuple[jax.Array, jax.Array]:
  """Finds the tiles that intervals touch.

  Args:
    rows: int32 `[b|1, t, i, 2]`, t a multiple of `block_q`.
    pos: int32 `[b|1, s]` key positions, s a multiple of `block_kv`.
    block_q: Static.
    block_kv: Static.

  Returns:
    Two bools `[b|1, t tiles, s tiles]`: whether the tile has a visible pair,
    and whether all its pairs are visible. A tile without a visible pair counts
    as touched only if permuted positions make its range of positions overlap;
    one that is full through two touching intervals does not count as full.
  """
  tiles = pos.reshape(pos.shape[0], -1, block_kv)
  # Padding keys are negative: they must not widen a tile's range.
  low = jnp.where(tiles < 0, MAX_POS, tiles).min(-1)[:, None, :]
  lowest, high = tiles.min(-1)[:, None, :], tiles.max(-1)[:, None, :]
  touched = full = jnp.zeros((), bool)
  for i in range(rows.shape[-2]):
    start, end = rows[..., i, 0, None], rows[..., i, 1, None]
    touched = touched | ((start <= high) & (end > low) & (start < end))
    full = full | ((start <= lowest) & (end > high))
  by_tile = lambda x: x.reshape(
    x.shape[0], x.shape[1] // block_q, block_q, x.shape[2]
  )
  return by_tile(touched).any(2), by_tile(full).all(2)


def schedule(
  rows: jax.Array, pos: jax.Array, block_q: int, block_kv: int
) -> Schedule:
  """Lists the tiles that `touched_tiles` finds."""
  touched, full = touched_tiles(rows, pos, block_q, block_kv)
  order = jnp.argsort(~touched, axis=-1, stable=True)
  return Schedule(
    ids=order.astype(jnp.int32),
    count=touched.sum(-1, dtype=jnp.int32),
    full=jnp.take_along_axis(full, order, axis=-1),
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores, votes and the k largest entries for TPU (Pallas Mosaic).

topk: grid (rows); a row stays in VMEM for the 32 counting passes and for the
compaction. That is done by matmuls of zeros and ones, which are exact: prefix
sums by triangular matrices, and for 128 outputs at a time the line of 128
entries that holds each (a comparison with the lines' prefix sums), that line's
ranks (a one-hot product) and the lane where the rank is the wanted one.
  Bytes: 4 per entry. VMEM: per row 4 (twice), 2 and 4 bytes per entry.
decode_scores: grid (b, key tiles); all key heads of a tile at once. Tiles past
a sequence's length are not fetched.
  Bytes: the keys once, the scores once.
soft_vote: grid (b, tiles), once for the log-sum-exps, once for the votes.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels.score_topk import cost
from jaxtok_kernels.score_topk.xla import capped, ordered_bits

_LANES, _SUBLANES = 128, 8
_LARGEST = 2**20  # Entries per row: 14 MiB of VMEM.
_NN = (((1,), (0,)), ((), ()))  # a @ b
_NT = (((1,), (1,)), ((), ()))  # a @ b.T
_TN = (((0,), (0,)), ((), ()))  # a.T @ b


def unsupported_topk(x_rs: jax.Array) -> str | None:
  """Why `topk` cannot serve a call, or None."""
  if x_rs.shape[-1] > _LARGEST:
    return f'x_rs with rows of {x_rs.shape[-1]} > {_LARGEST} is not supported'
  return None


def topk(
  x_rs: jax.Array, k: int, valid_rs: jax.Array | None, *, interpret: Any = False
) -> jax.Array:
  """Indices of the k largest, ascending, -1 padded; see the public function."""
  bits = ordered_bits(x_rs)
  # The bits of -inf are > 0, so that 0 can stand for "not valid".
  if valid_rs is not None:
    bits = jnp.where(valid_rs, bits, 0)
  r, s = bits.shape
  # Blocks of 128 lines of 128 entries, or one shorter block.
  lines = -(-s // _LANES)
  block = min(_LANES, -(-lines // _SUBLANES) * _SUBLANES)
  lines = -(-lines // block) * block
  bits = jnp.pad(bits, ((0, 0), (0, lines * _LANES - s)))
  # The order of uint32 as int32, whose comparisons the vector unit has.
  signed = jax.lax.bitcast_convert_type(bits ^ jnp.uint32(1 << 31), jnp.int32)
  wide = -(-k // _LANES) * _LANES
  out = pl.pallas_call(
    functools.partial(_topk_kernel, k, block),
    grid=(r,),
    in_specs=[pl.BlockSpec((1, lines, _LANES), lambda i: (i, 0, 0))],
    out_specs=pl.BlockSpec((1, 1, wide), lambda i: (i, 0, 0)),
    out_shape=jax.ShapeDtypeStruct((r, 1, wide), jnp.int32),
    scratch_shapes=[
      pltpu.VMEM((lines, _LANES), jnp.float32),
      pltpu.VMEM((lines, _LANES), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel',),
      vmem_limit_bytes=max(16 * 2**20, 32 * lines * _LANES),
    ),
    interpret=interpret,
    name='topk_threshold',
  )(signed.reshape(r, lines, _LANES))
  return out[:, 0, :k]


def _dot(a, b, dims):
  """Exact for integers up to 256: they have 8 bits."""
  return jax.lax.dot_general(
    a.astype(jnp.bfloat16),
    b.astype(jnp.bfloat16),
    dims,
    preferred_element_type=jnp.float32,
  )


def _total(x: jax.Array) -> jax.Array:
  return x.sum(axis=0, keepdims=True).sum(axis=1, keepdims=True)


def _topk_kernel(k: int, block: int, bits, out, local, before) -> None:
  x = bits[0]

  def raise_bit(i, threshold):
    # Bit 31 flips the sign in this order, the others add up.
    bit = jnp.left_shift(jnp.int32(1), 31 - i)
    trial = jnp.where(i == 0, threshold ^ bit, threshold | bit)
    count = _total(jnp.where(x >= trial, 1.0, 0.0))
    return jnp.where(count >= k, trial, threshold)

  lowest = jnp.full((1, 1), jnp.iinfo(jnp.int32).min, jnp.int32)
  threshold = jax.lax.fori_loop(0, 32, raise_bit, lowest)
  room = k - _total(jnp.where(x > threshold, 1.0, 0.0))
  kept = _rank(block, bits, threshold, room, lowest, local, before)
  _compact(k, kept, out, local, before)


def _rank(block: int, bits, threshold, room, lowest, local, before):
  """Numbers the kept entries.

  Writes to `local` each kept entry's number within its line, from 1, else 0,
  and to `before` how many the earlier lines keep, in all lanes.

  Returns:
    Number of kept entries, `[1, 1]`.
  """
  iota = lambda shape, axis: jax.lax.broadcasted_iota(jnp.int32, shape, axis)
  square = (_LANES, _LANES)
  upper = jnp.where(iota(square, 0) <= iota(square, 1), 1.0, 0.0)
  lower = jnp.where(iota((block, block), 0) > iota((block, block), 1), 1.0, 0.0)
  ones = jnp.ones(square, jnp.float32)

  def count(flags):
    """Numbers within the line, and in earlier lines, of true entries."""
    flags = jnp.where(flags, 1.0, 0.0)
    return _dot(flags, upper, _NN), _dot(lower, _dot(flags, ones, _NN), _NN)

  def body(i, carry):
    ties, kept = carry
    part = pl.ds(pl.multiple_of(i * block, block), block)
    x = bits[0, part]
    tied = (x == threshold) & (x > lowest)
    inside, earlier = count(tied)
    keep = (x > threshold) | (tied & (ties + earlier + inside <= room))
    ties = ties + _total(jnp.where(tied, 1.0, 0.0))
    inside, earlier = count(keep)
    local[part] = jnp.where(keep, inside, 0.0)
    before[part] = kept + earlier
    return ties, kept + _total(jnp.where(keep, 1.0, 0.0))

  zero = jnp.zeros((1, 1), jnp.float32)
  steps = bits.shape[1] // block
  return jax.lax.fori_loop(0, steps, body, (zero, zero))[1]


def _compact(k: int, kept, out, local, before) -> None:
  """Writes the index of every kept entry to the place of its number."""
  lines = local.shape[0]
  line = jax.lax.broadcasted_iota(jnp.int32, (lines, _LANES), 0)
  line = line.astype(jnp.float32)
  lane = jax.lax.broadcasted_iota(jnp.int32, (_LANES, _LANES), 0)
  lane = lane.astype(jnp.float32)

  @pl.loop(0, -(-k // _LANES))
  def _(i):
    column = jax.lax.broadcasted_iota(jnp.int32, (1, _LANES), 1)
    wanted = (column + (i * _LANES + 1)).astype(jnp.float32)
    first = before[...]
    # Lines after the last kept entry start at `kept`, lines without one where
    # the next line starts: the last that starts below is the one.
    starts = jnp.where(first < wanted, 1.0, 0.0)
    at = starts.sum(axis=0, keepdims=True) - 1
    hit = line == at
    base = jnp.where(hit, first, 0.0).sum(axis=0, keepdims=True)
    ranks = _dot(local[...], jnp.where(hit, 1.0, 0.0), _TN)
    match = jnp.where(ranks == wanted - base, lane, 0.0)
    index = at * _LANES + match.sum(axis=0, keepdims=True)
    index = jnp.where(wanted <= jnp.minimum(kept, k), index, -1.0)
    part = pl.ds(pl.multiple_of(i * _LANES, _LANES), _LANES)
    out[0, :, part] = index.astype(jnp.int32)


def unsupported_scores(q_bnh: jax.Array, k_bskh: jax.Array) -> str | None:
  """Why `decode_scores` cannot serve a call, or None."""
  if q_bnh.dtype not in (jnp.float32, jnp.bfloat16):
    return f'q_bnh of type {q_bnh.dtype} is not supported'
  if k_bskh.dtype != q_bnh.dtype:
    return f'k_bskh of type {k_bskh.dtype} with other queries is not supported'
  return None


def decode_scores(
  q_bnh: jax.Array,
  k_bskh: jax.Array,
  length_b: jax.Array,
  *,
  scale: float,
  softcap: float | None,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Scores `[b, n, s]` and their log-sum-exp `[b, n]`."""
  b, n, h = q_bnh.shape
  s, k = k_bskh.shape[1:3]
  g = n // k
  tile = cost.tile('decode_scores', 'tpu', q_bnh.dtype, s=s, n=n, k=k, h=h)
  tile = min(s, tile)
  rows = -(-g // 16) * 16
  q = jnp.pad(
    q_bnh.reshape(b, k, g, h), ((0, 0), (0, 0), (0, rows - g), (0, 0))
  )

  def keys(b, i, length):
    # A tile that was just fetched is not fetched again.
    return b, jnp.minimum(i, jax.lax.div(jnp.maximum(length[b] - 1, 0), tile))

  exact = q_bnh.dtype == jnp.float32
  precision = jax.lax.Precision.HIGHEST if exact else None
  stats = pltpu.VMEM((k, rows, _LANES), jnp.float32)
  scores, lse = pl.pallas_call(
    functools.partial(_scores_kernel, scale, softcap, g, s, precision),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(b, -(-s // tile)),
      in_specs=[
        pl.BlockSpec((1, k, rows, h), lambda b, *_: (b, 0, 0, 0)),
        pl.BlockSpec((1, tile, k, h), lambda *x: (*keys(*x), 0, 0)),
      ],
      out_specs=[
        pl.BlockSpec((1, k, g, tile), lambda b, i, _: (b, 0, 0, i)),
        pl.BlockSpec((1, k, rows, _LANES), lambda b, *_: (b, 0, 0, 0)),
      ],
      scratch_shapes=[stats, stats],
    ),
    out_shape=[
      jax.ShapeDtypeStruct((b, k, g, s), jnp.float32),
      jax.ShapeDtypeStruct((b, k, rows, _LANES), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary')
    ),
    interpret=interpret,
    name='decode_scores',
  )(jnp.minimum(length_b, s).astype(jnp.int32), q, k_bskh)
  return scores.reshape(b, n, s), lse[:, :, :g, 0].reshape(b, n)


def _scores_kernel(
  scale, softcap, g, s, precision, length, q, keys, out, lse, m, l
):
  b, i = pl.program_id(0), pl.program_id(1)
  k, rows, tile = q.shape[1], q.shape[2], keys.shape[1]

  @pl.when(i == 0)
  def _():
    m[...] = jnp.full_like(m, -jnp.inf)
    l[...] = jnp.zeros_like(l)

  start = i * tile
  place = jax.lax.broadcasted_iota(jnp.int32, (rows, tile), 1) + start
  seen = place < length[b]

  @pl.when(start < length[b])
  def _():
    for head in range(k):
      x = jax.lax.dot_general(
        q[0, head],
        keys[0, :, head, :],
        _NT,
        precision=precision,
        preferred_element_type=jnp.float32,
      )
      x = jnp.where(seen, capped(x * scale, softcap), -jnp.inf)
      out[0, head] = x[:g]
      _accumulate(m, l, head, x)

  @pl.when(start >= length[b])
  def _():
    out[...] = jnp.full_like(out, -jnp.inf)

  @pl.when(i == pl.num_programs(1) - 1)
  def _():
    lse[0] = _log(m[...], l[...])


def _accumulate(m, l, at, x) -> None:
  """Adds scores to a running maximum and sum, both lane-replicated."""
  old = m[at]
  new = jnp.maximum(old, x.max(axis=1, keepdims=True))
  base = jnp.where(new == -jnp.inf, 0.0, new)
  p = jnp.exp(x - base[:, :1]).sum(axis=1, keepdims=True)
  l[at] = jnp.exp(old - base) * l[at] + p
  m[at] = new


def _log(m, l):
  total = jnp.where(l > 0, l, 1.0)
  return jnp.where(l > 0, jnp.where(l > 0, m, 0.0) + jnp.log(total), -jnp.inf)


def soft_vote(
  scores_bns: jax.Array, region_bs: jax.Array, *, interpret: Any = False
) -> jax.Array:
  """Votes `[b, s]`."""
  b, n, s = scores_bns.shape
  tile = min(s, cost.tile('soft_vote', 'tpu', scores_bns.dtype, n=n, s=s))
  region = region_bs.astype(jnp.int32)[:, None]
  heads = pl.BlockSpec((1, n, tile), lambda b, i: (b, 0, i))
  tokens = pl.BlockSpec((1, 1, tile), lambda b, i: (b, 0, i))
  stats = pl.BlockSpec((1, n, _LANES), lambda b, i: (b, 0, 0))
  call = lambda kernel, specs, out, shape, scratch, name: pl.pallas_call(
    functools.partial(kernel, s),
    grid=(b, -(-s // tile)),
    in_specs=specs,
    out_specs=out,
    out_shape=jax.ShapeDtypeStruct(shape, jnp.float32),
    scratch_shapes=scratch,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary')
    ),
    interpret=interpret,
    name=name,
  )
  memory = pltpu.VMEM((n, _LANES), jnp.float32)
  lse = call(
    _lse_kernel,
    [heads, tokens],
    stats,
    (b, n, _LANES),
    [memory, memory],
    'soft_vote_lse',
  )(scores_bns, region)
  votes = call(
    _vote_kernel, [heads, tokens, stats], tokens, (b, 1, s), [], 'soft_vote'
  )(scores_bns, region, lse)
  return votes[:, 0]


def _in_region(s: int, scores, region):
  """Scores, -inf outside the region and past the end."""
  shape = scores.shape[1:]
  place = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  place = place + pl.program_id(1) * shape[1]
  seen = (place < s) & (jnp.broadcast_to(region[0], shape) > 0)
  return jnp.where(seen, scores[0].astype(jnp.float32), -jnp.inf)


def _lse_kernel(s, scores, region, lse, m, l) -> None:
  i = pl.program_id(1)
  x = _in_region(s, scores, region)

  @pl.when(i == 0)
  def _():
    m[...] = jnp.full_like(m, -jnp.inf)
    l[...] = jnp.zeros_like(l)

  _accumulate(m, l, slice(None), x)

  @pl.when(i == pl.num_programs(1) - 1)
  def _():
    lse[0] = _log(m[...], l[...])


def _vote_kernel(s, scores, region, lse, votes) -> None:
  x = _in_region(s, scores, region)
  base = lse[0][:, :1]
  base = jnp.where(base == -jnp.inf, 0.0, base)
  votes[0] = jnp.exp(x - base).sum(axis=0, keepdims=True)

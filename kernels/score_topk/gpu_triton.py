# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores, votes and the k largest entries for NVIDIA GPUs (Pallas Triton).

topk: eight passes of four bits, grid (splits, rows) each. A program derives the
digit that the pass before has found, from the counts of all programs, and
counts the next digit among the entries of its tile that agree so far; programs
of a row never wait for each other. Then a pass counts what each tile keeps, and
one writes the indices to their places.
  Bytes: 4 per entry from main memory, ten times from L2. Launches: 10.
decode_scores: grid (key tiles, k, b); log-sum-exps of tiles are merged by XLA.
  Bytes: the keys once, the scores once.
soft_vote: grid (tiles, b), once for the log-sum-exps, once for the votes.

docs/kernels.md says what was verified how, and the times on an H200.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtok_kernels.score_topk import cost
from jaxtok_kernels.score_topk.xla import capped, ordered_bits

_BITS, _WORD = 4, 32
_DIGITS = 2**_BITS
_STEP = 128  # Entries whose digits are compared at once.
_SIGN = np.int32(-(2**31))


def topk(
  x_rs: jax.Array, k: int, valid_rs: jax.Array | None, *, interpret: Any = False
) -> jax.Array:
  """Indices of the k largest, ascending, -1 padded; see the public function."""
  bits = ordered_bits(x_rs)
  # The bits of -inf are > 0, so that 0 can stand for "not valid".
  if valid_rs is not None:
    bits = jnp.where(valid_rs, bits, 0)
  r, s = bits.shape
  tile = cost.tile('topk_threshold', 'triton', x_rs.dtype, r=r, s=s, k=k)
  tile = min(tile, max(_STEP, 1 << (s - 1).bit_length()))
  splits = 1 << (-(-s // tile) - 1).bit_length()
  bits = jnp.pad(bits, ((0, 0), (0, splits * tile - s)))
  bits = jax.lax.bitcast_convert_type(bits, jnp.int32)
  call = functools.partial(_call, r, splits, tile, interpret)
  # Digits found so far, and the rank of the wanted entry among those that
  # share them; counts of a row's tiles by digit.
  state = jnp.broadcast_to(jnp.array([0, k], jnp.int32), (r, 2))
  counts = jnp.zeros((r, splits, _DIGITS), jnp.int32)
  for i in range(_WORD // _BITS):
    kernel = functools.partial(_digit_kernel, i)
    shapes = [(r, splits, _DIGITS), (r, splits, 2)]
    counts, states = call(kernel, 'topk_count', (bits, counts, state), shapes)
    state = states[:, 0]
  shapes = [(r, splits, 2), (r, splits, 2)]
  kept, states = call(_kept_kernel, 'topk_kept', (bits, counts, state), shapes)
  # One more place takes the index of what is not kept.
  start = jnp.full((r, k + 1), -1, jnp.int32)
  out = _write(bits, kept, states[:, 0], start, tile, splits, interpret)
  return out[:, :k]


def _params(num_warps: int = 4):
  return plt.CompilerParams(num_warps=num_warps, num_stages=1)


def _row(width: int, *more: int):
  """A whole row of `[r, width, ...]`."""
  return pl.BlockSpec(
    (None, width, *more), lambda i, r: (r, 0, *(0,) * len(more))
  )


def _call(r, splits, tile, interpret, kernel, name, operands, shapes):
  """A pass over tiles; outputs are one row per tile."""
  return pl.pallas_call(
    kernel,
    grid=(splits, r),
    in_specs=[
      pl.BlockSpec((None, tile), lambda i, r: (r, i)),
      _row(splits, _DIGITS),
      _row(2),
    ],
    out_specs=[
      pl.BlockSpec((None, None, x[2]), lambda i, r: (r, i, 0)) for x in shapes
    ],
    out_shape=[jax.ShapeDtypeStruct(x, jnp.int32) for x in shapes],
    compiler_params=_params(),
    interpret=interpret,
    name=name,
  )(*operands)


def _advance(counts, state):
  """The state after the digit that `counts` are about."""
  total = counts[...].sum(axis=0)
  digit = jnp.arange(_DIGITS)
  above = jnp.where(digit[None, :] > digit[:, None], total[None, :], 0)
  above = above.sum(axis=1)
  rank = state[1]
  found = jnp.where(above + total >= rank, digit, 0).max()
  rank = rank - jnp.where(digit == found, above, 0).sum()
  return (state[0] << _BITS) | found, rank


def _save(ref, first, second) -> None:
  place = jnp.arange(2)
  ref[...] = jnp.where(place == 0, first, second)


def _digit_kernel(i: int, bits, counts, state, out, state_out) -> None:
  prefix, rank = (state[0], state[1]) if i == 0 else _advance(counts, state)
  _save(state_out, prefix, rank)
  shift = _WORD - _BITS * (i + 1)
  digits = jnp.arange(_DIGITS)[None, :]

  def body(j, total):
    x = bits[pl.ds(j * _STEP, _STEP)]
    right = jax.lax.shift_right_logical(x, jnp.full_like(x, shift))
    hit = (right[:, None] & (_DIGITS - 1)) == digits
    if i > 0:
      agrees = jax.lax.shift_right_logical(right, jnp.full_like(x, _BITS))
      hit = hit & (agrees == prefix)[:, None]
    return total + jnp.where(hit, 1, 0).sum(axis=0)

  start = jnp.zeros((_DIGITS,), jnp.int32)
  out[...] = jax.lax.fori_loop(0, bits.shape[0] // _STEP, body, start)


def _kept_kernel(bits, counts, state, kept, state_out) -> None:
  threshold, room = _advance(counts, state)
  _save(state_out, threshold, room)
  x = bits[...]
  above = (x ^ _SIGN) > (threshold ^ _SIGN)
  tied = (x == threshold) & (x != 0)
  _save(kept, jnp.where(above, 1, 0).sum(), jnp.where(tied, 1, 0).sum())


def _write(bits, kept, state, start, tile, splits, interpret) -> jax.Array:
  r, k = start.shape
  return pl.pallas_call(
    functools.partial(_write_kernel, splits),
    grid=(splits, r),
    in_specs=[
      pl.BlockSpec((None, tile), lambda i, r: (r, i)),
      _row(splits, 2),
      _row(2),
      _row(k),
    ],
    out_specs=_row(k),
    out_shape=jax.ShapeDtypeStruct((r, k), jnp.int32),
    input_output_aliases={3: 0},
    compiler_params=_params(),
    interpret=interpret,
    name='topk_write',
  )(bits, kept, state, start)


def _write_kernel(splits: int, bits, kept, state, start, out) -> None:
  del start  # Aliased with `out`.
  threshold, room = state[0], state[1]
  i = pl.program_id(0)
  earlier = jnp.arange(splits) < i
  above_before = jnp.where(earlier, kept[:, 0], 0).sum()
  tied_before = jnp.where(earlier, kept[:, 1], 0).sum()
  x = bits[...]
  above = (x ^ _SIGN) > (threshold ^ _SIGN)
  tied = (x == threshold) & (x != 0)
  num_above = above_before + jnp.cumsum(jnp.where(above, 1, 0))
  num_tied = tied_before + jnp.cumsum(jnp.where(tied, 1, 0))
  keep = above | (tied & (num_tied <= room))
  place = num_above + jnp.minimum(num_tied, room) - 1
  index = jnp.arange(x.shape[0]) + i * x.shape[0]
  place = jnp.where(keep, place, out.shape[0] - 1)
  plt.store(out.at[place], index, mask=keep)


def unsupported_scores(q_bnh: jax.Array, k_bskh: jax.Array) -> str | None:
  """Why `decode_scores` cannot serve a call, or None."""
  h = q_bnh.shape[-1]
  if h & (h - 1) or h < 16:
    return f'q_bnh of width {h} (no power of two from 16) is not supported'
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
  tile = cost.tile('decode_scores', 'triton', q_bnh.dtype, s=s, n=n, k=k, h=h)
  rows, tiles = max(16, 1 << (g - 1).bit_length()), -(-s // tile)
  q = jnp.pad(
    q_bnh.reshape(b, k, g, h), ((0, 0), (0, 0), (0, rows - g), (0, 0))
  )
  exact = q_bnh.dtype == jnp.float32
  precision = jax.lax.Precision.HIGHEST if exact else None
  scores, lse = pl.pallas_call(
    functools.partial(_scores_kernel, scale, softcap, g, s, tile, precision),
    grid=(tiles, k, b),
    in_specs=[
      pl.BlockSpec((None, None, rows, h), lambda i, k, b: (b, k, 0, 0)),
      pl.BlockSpec((None, tile, None, h), lambda i, k, b: (b, i, k, 0)),
      pl.BlockSpec((None,), lambda i, k, b: (b,)),
    ],
    out_specs=[
      pl.BlockSpec((None, None, rows, tile), lambda i, k, b: (b, k, 0, i)),
      pl.BlockSpec((None, None, None, rows), lambda i, k, b: (i, b, k, 0)),
    ],
    out_shape=[
      jax.ShapeDtypeStruct((b, k, g, s), jnp.float32),
      jax.ShapeDtypeStruct((tiles, b, k, rows), jnp.float32),
    ],
    compiler_params=_params(),
    interpret=interpret,
    name='decode_scores',
  )(q, k_bskh, length_b.astype(jnp.int32))
  lse = jax.nn.logsumexp(lse[..., :g], axis=0)
  return scores.reshape(b, n, s), lse.reshape(b, n)


def _scores_kernel(
  scale, softcap, g, s, tile, precision, q, keys, length, out, lse
):
  i = pl.program_id(0)
  column = i * tile + jnp.arange(tile)
  x = jax.lax.dot(
    q[...],
    plt.load(keys, mask=(column < s)[:, None], other=0).T,
    precision=precision,
    preferred_element_type=jnp.float32,
  )
  end = jnp.minimum(length[...], s)
  x = jnp.where((column < end)[None, :], capped(x * scale, softcap), -jnp.inf)
  row = jnp.arange(q.shape[0])
  mask = (row < g)[:, None] & (column < s)[None, :]
  plt.store(out, x, mask=mask)
  lse[...] = _lse(x)


def _lse(x: jax.Array) -> jax.Array:
  """Log-sum-exp of rows, -inf for empty ones."""
  top = x.max(axis=1)
  base = jnp.where(top == -jnp.inf, 0.0, top)
  total = jnp.exp(x - base[:, None]).sum(axis=1)
  log = base + jnp.log(jnp.where(total > 0, total, 1.0))
  return jnp.where(total > 0, log, -jnp.inf)


def soft_vote(
  scores_bns: jax.Array, region_bs: jax.Array, *, interpret: Any = False
) -> jax.Array:
  """Votes `[b, s]`."""
  b, n, s = scores_bns.shape
  tile = cost.tile('soft_vote', 'triton', scores_bns.dtype, n=n, s=s)
  tiles, rows = -(-s // tile), 1 << (n - 1).bit_length()
  heads = pl.BlockSpec((None, rows, tile), lambda i, b: (b, 0, i))
  tokens = pl.BlockSpec((None, tile), lambda i, b: (b, i))
  call = lambda kernel, specs, out, shape, name: pl.pallas_call(
    functools.partial(kernel, n, s),
    grid=(tiles, b),
    in_specs=specs,
    out_specs=out,
    out_shape=jax.ShapeDtypeStruct(shape, jnp.float32),
    compiler_params=_params(),
    interpret=interpret,
    name=name,
  )
  region = region_bs.astype(jnp.int32)
  part = pl.BlockSpec((None, None, rows), lambda i, b: (i, b, 0))
  lse = call(
    _lse_kernel, [heads, tokens], part, (tiles, b, rows), 'soft_vote_lse'
  )(scores_bns, region)
  lse = jax.nn.logsumexp(lse, axis=0)
  stats = pl.BlockSpec((None, rows), lambda i, b: (b, 0))
  return call(
    _vote_kernel, [heads, tokens, stats], tokens, (b, s), 'soft_vote'
  )(scores_bns, region, lse)


def _in_region(n: int, s: int, scores, region):
  """Scores of a tile, -inf outside the region and past the end."""
  rows, tile = scores.shape
  inside = pl.program_id(0) * tile + jnp.arange(tile) < s
  seen = plt.load(region, mask=inside, other=0) > 0
  seen = (jnp.arange(rows) < n)[:, None] & seen[None, :]
  x = plt.load(scores, mask=seen, other=0)
  return jnp.where(seen, x.astype(jnp.float32), -jnp.inf), inside


def _lse_kernel(n, s, scores, region, lse) -> None:
  lse[...] = _lse(_in_region(n, s, scores, region)[0])


def _vote_kernel(n, s, scores, region, lse, votes) -> None:
  x, inside = _in_region(n, s, scores, region)
  base = jnp.where(lse[...] == -jnp.inf, 0.0, lse[...])
  p = jnp.exp(x - base[:, None]).sum(axis=0)
  plt.store(votes, p, mask=inside)

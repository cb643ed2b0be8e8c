# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merges similar tokens of a sequence into their averages, and goes back.

A token stands for some positions. `owner_bt` says which token each position is
part of: the transpose of the source matrix of MergeDNA (arXiv:2511.14806,
section 3.2), whose product with states is `ragged.expand(x_bwd, owner_bt)`.

  pairs_bw = adjacent_pairs(score_bw, can_bw, num_b, ...)   # Left of each pair.
  tokens, index_bw = merge_adjacent(tokens, pairs_bw, weight_bw, capacity)
  owner_bt = follow(owner_bt, index_bw)

Two kinds: neighbours of one window, which keeps tokens contiguous, and any two
tokens of a row (bipartite soft matching of ToMe, Bolya et al. 2023,
arXiv:2210.09461, section 3). Both keep the order of positions.

Shapes are static: there is room for `capacity` tokens, and those beyond it are
counted in `overflow_b`; their positions get zeros on the way back.

Axes: b rows, t positions, w tokens, d width, r rows or windows, p windows of a
row.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.nn import ragged

SCOPES = ('sequence', 'window')
_EPS = 1e-6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
  """Tokens of a shortened sequence, in order; empty slots at the end.

  Attributes:
    x_bwd: States.
    size_bw: Positions that a token stands for, float32; 0 in empty slots.
    first_bw: The first of them.
    segment_bw: Document; 0 in padding and empty slots.
    can_merge_bw: False for tokens that stay alone.
  """

  x_bwd: Any
  size_bw: Any
  first_bw: Any
  segment_bw: Any
  can_merge_bw: Any

  @property
  def valid_bw(self) -> Bool[Array, 'b w']:
    return self.segment_bw > 0

  @property
  def num_b(self) -> Int[Array, 'b']:
    """Tokens of each row."""
    return self.valid_bw.sum(axis=1, dtype=jnp.int32)


def cosine(
  a: Float[Array, '... d'], z: Float[Array, '... d']
) -> Float[Array, '...']:
  """Cosine of the angle between vectors, float32."""
  return (_unit(a) * _unit(z)).sum(-1)


def _unit(x: Float[Array, '... d']) -> Float[Array, '... d']:
  """Vectors of length 1, float32; those near zero stay there."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + _EPS)


def candidates(tokens: Tokens, window: int, parity: int) -> Bool[Array, 'b w']:
  """Whether each token may be merged with the one after it.

  Both are in the same window of `window` slots and in the same document, and
  the left one is at an even (`parity` 0) or odd slot, so that no token is in
  two pairs.
  """
  slot_w = jnp.arange(tokens.size_bw.shape[1])
  is_left_w = (slot_w % 2 == parity) & ((slot_w + 1) % window != 0)
  after = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))
  is_same_bw = tokens.segment_bw == after(tokens.segment_bw)
  can_bw = tokens.can_merge_bw & after(tokens.can_merge_bw)
  return is_left_w & is_same_bw & can_bw & tokens.valid_bw


def adjacent_pairs(
  score_bw: Float[Array, 'b w'],
  can_bw: Bool[Array, 'b w'],
  num_b: Int[Array, 'b'],
  *,
  window: int,
  scope: str = 'sequence',
) -> Bool[Array, 'b w']:
  """The pairs with the highest scores, as a mask of their left tokens.

  Args:
    score_bw: Score of each token with the next.
    can_bw: Which pairs there are; see `candidates`.
    num_b: Pairs to take in each row, if there are as many.
    window: Slots of a window.
    scope: 'sequence' takes the best of the row; 'window' shares `num_b` out
      evenly among the windows that hold candidates.
  """
  can_rw, num_r, split, join = _compete(can_bw, num_b, window, scope)
  score_rw = jnp.where(can_rw, split(score_bw), -jnp.inf)
  return join((_rank(score_rw) < num_r[:, None]) & can_rw)


def _compete(can_bw: Any, num_b: Any, window: int, scope: str) -> tuple:
  """Rows r in which pairs compete: those of the batch, or their windows.

  Returns:
    Which pairs there are, how many to take, the way there, and the way back.
  """
  if scope not in SCOPES:
    raise ValueError(f'scope={scope!r} must be one of {", ".join(SCOPES)}.')
  if scope == 'sequence':
    return can_bw, num_b, lambda x: x, lambda x: x
  b, w = can_bw.shape
  pad = ((0, 0), (0, -w % window))
  split = lambda x: jnp.pad(x, pad).reshape(-1, window)
  join = lambda x: x.reshape(b, -1)[:, :w]
  can_rw = split(can_bw)
  is_used_bp = can_rw.any(axis=1).reshape(b, -1)
  num_used_b1 = jnp.maximum(is_used_bp.sum(axis=1, keepdims=True), 1)
  order_bp = jnp.cumsum(is_used_bp, axis=1) - 1
  num_bp = num_b[:, None] // num_used_b1
  num_bp += order_bp < num_b[:, None] % num_used_b1
  return can_rw, num_bp.reshape(-1), split, join


def _rank(score: Float[Array, '... w']) -> Int[Array, '... w']:
  """0 for the highest along the last axis; the earlier of equals first."""
  return jnp.argsort(jnp.argsort(-score, axis=-1), axis=-1)


def threshold(
  score_bw: Float[Array, 'b w'],
  chosen_bw: Bool[Array, 'b w'],
  can_bw: Bool[Array, 'b w'],
  *,
  window: int = 0,
  scope: str = 'sequence',
) -> Float[Array, 'b w']:
  """Half way between the lowest chosen score and the highest other one.

  Args:
    score_bw: Scores.
    chosen_bw: From `adjacent_pairs`.
    can_bw: See there.
    window: See there.
    scope: See there.
  """
  no_b = jnp.zeros(len(can_bw), jnp.int32)
  can_rw, _, split, join = _compete(can_bw, no_b, window, scope)
  score_rw, chosen_rw = split(score_bw), split(chosen_bw)
  low_r1 = jnp.where(chosen_rw, score_rw, jnp.inf).min(axis=1, keepdims=True)
  other_rw = can_rw & ~chosen_rw
  high_r1 = jnp.where(other_rw, score_rw, -jnp.inf).max(axis=1, keepdims=True)
  low_r1 = jnp.where(jnp.isfinite(low_r1), low_r1, high_r1)
  high_r1 = jnp.where(jnp.isfinite(high_r1), high_r1, low_r1)
  middle_r1 = 0.5 * (low_r1 + high_r1)
  middle_r1 = jnp.where(jnp.isfinite(middle_r1), middle_r1, 0.0)
  return join(jnp.broadcast_to(middle_r1, score_rw.shape))


def soft_top_k(
  score_bw: Float[Array, 'b w'],
  can_bw: Bool[Array, 'b w'],
  num_b: Int[Array, 'b'],
  *,
  rounds: int,
  temperature: float = 0.1,
  window: int = 0,
  scope: str = 'sequence',
) -> Float[Array, 'b w']:
  """How much each score is among the `num_b` highest, with gradients to all.

  Each round is a softmax over what the rounds before have left (Xie and Ermon
  2019, arXiv:1901.10517, as DTEM uses it: Lee and Hong 2024): `p = softmax(s /
  T)`, then `s += log(1 - p)`. At low temperatures the result is the mask of the
  highest.

  Args:
    score_bw: Scores.
    can_bw: Which of them take part.
    num_b: Rounds that count in each row; at most the scores that take part.
    rounds: Rounds that are computed; static.
    temperature: T.
    window: See `adjacent_pairs`.
    scope: See `adjacent_pairs`: windows have rounds of their own.

  Returns:
    The sum over rounds, at most 1; 0 for what does not take part.
  """
  can_rw, num_r, split, join = _compete(can_bw, num_b, window, scope)
  score_rw = split(score_bw).astype(jnp.float32)
  score_rw = jnp.where(can_rw, score_rw, -jnp.inf)
  num_r = jnp.minimum(num_r, can_rw.sum(axis=1))

  def step(carry, i):
    left_rw, sum_rw = carry
    is_on_r1 = (i < num_r)[:, None]
    # Rows that are done, or have nothing to choose, take no part: no NaN.
    safe_rw = jnp.where(is_on_r1, left_rw / temperature, 0.0)
    prob_rw = jnp.where(is_on_r1, jax.nn.softmax(safe_rw, axis=1), 0.0)
    rest_rw = jnp.log(jnp.maximum(1 - prob_rw, _EPS))
    return (left_rw + rest_rw, sum_rw + prob_rw), None

  zeros_rw = jnp.zeros_like(score_rw)
  (_, sum_rw), _ = jax.lax.scan(step, (score_rw, zeros_rw), jnp.arange(rounds))
  return join(jnp.minimum(sum_rw, 1.0))


def merge_adjacent(
  tokens: Tokens,
  pairs_bw: Bool[Array, 'b w'],
  weight_bw: Float[Array, 'b w'],
  capacity: int,
  takes_bw: Bool[Array, 'b w'] | None = None,
) -> tuple[Tokens, Int[Array, 'b w'], Int[Array, 'b']]:
  """Each left token takes in the next: `(m x + m' a x') / (m + m' a)`.

  Args:
    tokens: What to merge.
    pairs_bw: Left tokens; no token is in two pairs.
    weight_bw: a, at the left token.
    capacity: Room for tokens; static.
    takes_bw: Left tokens whose state takes in the next although that may stay
      (a soft merge); None means `pairs_bw`.

  Returns:
    The new tokens, the new slot of each old one, and how many found no room.
  """
  after = lambda x: jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], 1)
  share_bw = after(tokens.size_bw) * weight_bw
  total_bw = jnp.maximum(tokens.size_bw + share_bw, _EPS)
  mixed_bwd = (
    tokens.size_bw[..., None] * tokens.x_bwd
    + share_bw[..., None] * after(tokens.x_bwd)
  ) / total_bw[..., None]
  takes_bw = pairs_bw if takes_bw is None else takes_bw
  x_bwd = jnp.where(takes_bw[..., None], mixed_bwd, tokens.x_bwd)
  size_bw = tokens.size_bw + pairs_bw * after(tokens.size_bw)
  is_taken_bw = jnp.pad(pairs_bw[:, :-1], ((0, 0), (1, 0)))
  keep_bw = tokens.valid_bw & ~is_taken_bw
  # A taken token's new slot is that of the one before it.
  index_bw = jnp.cumsum(keep_bw, axis=1, dtype=jnp.int32) - 1
  new = dataclasses.replace(
    tokens, x_bwd=x_bwd.astype(tokens.x_bwd.dtype), size_bw=size_bw
  )
  kept, overflow_b = _compact(new, keep_bw, capacity)
  return kept, jnp.where(tokens.valid_bw, index_bw, -1), overflow_b


def _compact(tokens: Tokens, keep_bw: Any, capacity: int) -> tuple[Tokens, Any]:
  found = ragged.compact(tokens.x_bwd, keep_bw, capacity)
  take = lambda x: ragged.gather(x, found.index_bw)
  kept = Tokens(
    found.values_bwd,
    take(tokens.size_bw),
    take(tokens.first_bw),
    take(tokens.segment_bw),
    take(tokens.can_merge_bw),
  )
  return kept, found.overflow_b


def follow(
  owner_bt: Int[Array, 'b t'], index_bw: Int[Array, 'b w']
) -> Int[Array, 'b t']:
  """The new token of each position; -1 stays -1."""
  inside_bt = jnp.clip(owner_bt, 0, index_bw.shape[1] - 1)
  found_bt = jnp.take_along_axis(index_bw, inside_bt, axis=1)
  is_lost_bt = (owner_bt < 0) | (owner_bt >= index_bw.shape[1])
  return jnp.where(is_lost_bt, -1, found_bt)


def merge_similar(
  tokens: Tokens, num_b: Int[Array, 'b'], capacity: int
) -> tuple[Tokens, Int[Array, 'b w'], Int[Array, 'b']]:
  """Bipartite soft matching: tokens at even slots join ones at odd slots.

  Each even token has the odd one of its document whose state is at the least
  angle; the `num_b` closest are merged by averages weighted by size. Several
  may join the same token.

  Args:
    tokens: What to merge; tokens that may not merge stay alone.
    num_b: Tokens to remove in each row, if there are as many.
    capacity: Room for tokens; static.

  Returns:
    As `merge_adjacent`.
  """
  b, w = tokens.size_bw.shape
  rows_b1 = jnp.arange(b)[:, None]
  even = lambda x: x[:, 0::2]
  odd = lambda x: x[:, 1::2]
  free_bw = tokens.can_merge_bw & tokens.valid_bw
  # A product of matrices; in full precision, as it is compared.
  unit_bwd = _unit(tokens.x_bwd)
  score_bij = jnp.einsum(
    'bid,bjd->bij',
    even(unit_bwd),
    odd(unit_bwd),
    precision=jax.lax.Precision.HIGHEST,
  )
  segment_bw = jnp.where(free_bw, tokens.segment_bw, 0)
  can_bij = even(segment_bw)[:, :, None] == odd(segment_bw)[:, None, :]
  can_bij &= (even(segment_bw) > 0)[:, :, None]
  score_bij = jnp.where(can_bij, score_bij, -jnp.inf)
  best_bi, to_bi = score_bij.max(axis=2), score_bij.argmax(axis=2)
  joins_bi = (_rank(best_bi) < num_b[:, None]) & jnp.isfinite(best_bi)
  target_bi = jnp.where(joins_bi, 2 * to_bi + 1, w)  # w does not exist.
  joins_bw = jnp.zeros((b, w), bool).at[:, 0::2].set(joins_bi)
  add = lambda x: x.at[rows_b1, target_bi].add(even(x), mode='drop')
  size_bw = add(tokens.size_bw)
  sum_bwd = add(tokens.x_bwd * tokens.size_bw[..., None])
  x_bwd = sum_bwd / jnp.maximum(size_bw, _EPS)[..., None]
  # Tokens that nobody joins keep their state to the last bit.
  is_joined_bw = size_bw > tokens.size_bw
  x_bwd = jnp.where(is_joined_bw[..., None], x_bwd, tokens.x_bwd)
  keep_bw = tokens.valid_bw & ~joins_bw
  index_bw = jnp.cumsum(keep_bw, axis=1, dtype=jnp.int32) - 1
  place_bw = jnp.broadcast_to(jnp.arange(w), (b, w))
  place_bw = place_bw.at[:, 0::2].set(
    jnp.where(joins_bi, target_bi, place_bw[:, 0::2])
  )
  index_bw = jnp.take_along_axis(index_bw, place_bw, axis=1)
  new = dataclasses.replace(
    tokens, x_bwd=x_bwd.astype(tokens.x_bwd.dtype), size_bw=size_bw
  )
  kept, overflow_b = _compact(new, keep_bw, capacity)
  return kept, jnp.where(tokens.valid_bw, index_bw, -1), overflow_b

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores, votes, and top-k by bisection on the bits of the threshold.

Instead of sorting, 32 counting passes find the k-th largest value exactly;
what lies above it is kept, and of its ties the first ones. On a CPU
`jax.lax.top_k` selects where all entries are valid: it does not sort there.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtok_kernels.state import stats_dtype


def ordered_bits(x: jax.Array) -> jax.Array:
  """uint32 that orders like float32; NaN like -inf, -0 like +0."""
  x = jnp.where(jnp.isnan(x), -jnp.inf, x.astype(jnp.float32))
  x = jnp.where(x == 0, 0.0, x)
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  negative = bits >> 31 == 1
  return bits ^ jnp.where(negative, jnp.uint32(0xFFFFFFFF), jnp.uint32(1 << 31))


def topk_threshold(
  x_rs: jax.Array, k: int, valid_rs: jax.Array | None
) -> jax.Array:
  """Indices of the k largest, ascending, -1 padded; see the public function."""
  if valid_rs is not None:
    return _by_counting(k, x_rs, valid_rs)
  return jax.lax.platform_dependent(
    x_rs,
    cpu=functools.partial(_by_selection, k),
    default=functools.partial(_by_counting, k),
  )


def _by_counting(k: int, x_rs: jax.Array, valid_rs: jax.Array | None = None):
  bits = ordered_bits(x_rs)
  # The bits of -inf are > 0, so that 0 can stand for "not valid".
  if valid_rs is not None:
    bits = jnp.where(valid_rs, bits, 0)
  threshold = thresholds(bits, k)
  above, tied = bits > threshold, (bits == threshold) & (bits > 0)
  room = k - above.sum(-1, keepdims=True, dtype=jnp.int32)
  keep = above | (tied & (jnp.cumsum(tied, -1, dtype=jnp.int32) <= room))
  return compact(keep, k)


def _by_selection(k: int, x_rs: jax.Array):
  x_rs = jnp.where(jnp.isnan(x_rs), -jnp.inf, x_rs.astype(jnp.float32))
  # -0 and +0 are one value, which `top_k` does not know.
  x_rs = jnp.where(x_rs == 0, 0.0, x_rs)
  _, ids = jax.lax.top_k(x_rs, min(k, x_rs.shape[-1]))
  ids = jnp.sort(ids, axis=-1)
  return jnp.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)


def thresholds(bits_rs: jax.Array, k: int) -> jax.Array:
  """The k-th largest of each row, `[r, 1]`; 0 if there are fewer than k."""

  def raise_bit(i, threshold):
    trial = threshold | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    count = (bits_rs >= trial).sum(-1, keepdims=True, dtype=jnp.int32)
    return jnp.where(count >= k, trial, threshold)

  zero = jnp.zeros((bits_rs.shape[0], 1), jnp.uint32)
  return jax.lax.fori_loop(0, 32, raise_bit, zero)


def compact(keep_rs: jax.Array, k: int) -> jax.Array:
  """Indices of the true entries, ascending, -1 padded to k."""
  rank_rs = jnp.cumsum(keep_rs, axis=-1, dtype=jnp.int32)
  wanted = jnp.arange(1, k + 1, dtype=jnp.int32)
  find = lambda rank: jnp.searchsorted(rank, wanted).astype(jnp.int32)
  ids = jax.vmap(find)(rank_rs)
  return jnp.where(ids < keep_rs.shape[-1], ids, -1)


def approximate_topk(
  x_rs: jax.Array, k: int, valid_rs: jax.Array | None, recall_target: float
) -> jax.Array:
  """`topk_threshold` by `jax.lax.approx_max_k`."""
  x_rs = jnp.where(jnp.isnan(x_rs), -jnp.inf, x_rs)
  size = x_rs.shape[-1]
  if valid_rs is None:
    valid_rs = jnp.ones(x_rs.shape, bool)
  x_rs = jnp.where(valid_rs, x_rs, -jnp.inf)
  _, ids = jax.lax.approx_max_k(x_rs, min(k, size), recall_target=recall_target)
  taken = jnp.take_along_axis(valid_rs, ids, axis=-1)
  ids = jnp.sort(jnp.where(taken, ids, size), axis=-1)
  ids = jnp.where(ids < size, ids, -1).astype(jnp.int32)
  return jnp.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)


def capped(scores: jax.Array, softcap: float | None) -> jax.Array:
  """Scores within `softcap`; None for no bound."""
  return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def decode_scores(
  q_bnh: jax.Array,
  k_bskh: jax.Array,
  length_b: jax.Array,
  *,
  scale: float,
  softcap: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Scores `[b, n, s]` and their log-sum-exp; see the public function."""
  b, n, h = q_bnh.shape
  s, k = k_bskh.shape[1:3]
  scores = scale * jnp.einsum(
    'bkgh,bskh->bkgs',
    q_bnh.reshape(b, k, n // k, h),
    k_bskh,
    preferred_element_type=stats_dtype(q_bnh.dtype),
  ).reshape(b, n, s)
  scores = capped(scores, softcap)
  seen = jnp.arange(s) < length_b[:, None]
  scores = jnp.where(seen[:, None], scores, -jnp.inf)
  return scores, jax.nn.logsumexp(scores, axis=-1)


def soft_vote(scores_bns: jax.Array, region_bs: jax.Array) -> jax.Array:
  """Votes `[b, s]`; see the public function."""
  scores = jnp.where(region_bs[:, None], scores_bns, -jnp.inf)
  top = scores.max(-1, keepdims=True)
  p = jnp.exp(scores - jnp.where(jnp.isneginf(top), 0, top))
  total = p.sum(-1, keepdims=True)
  return (p / jnp.where(total > 0, total, 1)).sum(1)

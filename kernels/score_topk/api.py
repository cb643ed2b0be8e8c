# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Public functions: how much cached tokens matter, and which matter most."""

import functools

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import implementations
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.score_topk import reference, xla
from jaxtok_kernels.state import stats_dtype


def column_sums(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  lse_btn: jax.Array,
  weight_btn: jax.Array | None = None,
  *,
  mask: masks.MaskSpec,
  scale: float | None = None,
  by_key_head: bool = True,
  implementation: str = 'auto',
) -> jax.Array:
  """Attention that each key receives: `sum_i w_i exp(score_ij - lse_i)`.

  Args:
    q_btnh: Queries.
    k_bskh: Keys.
    lse_btn: Log-sum-exp of each row from `flash_attention`.
    weight_btn: Weight of each row and head; default 1.
    mask: Which keys a row sees.
    scale: Factor on `q.k`; default `h ** -0.5`.
    by_key_head: Static; sum over the query heads of a key head.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    Float32 `[b, k, s]`, or `[b, n, s]` without `by_key_head`. No gradients.
  """
  if weight_btn is None:
    weight_btn = jnp.ones_like(lse_btn)
  if lse_btn.shape != q_btnh.shape[:3] or weight_btn.shape != lse_btn.shape:
    raise ValueError(
      f'lse_btn {lse_btn.shape} and weight_btn {weight_btn.shape} must have '
      f'the shape {q_btnh.shape[:3]} of the query rows.'
    )
  scale = q_btnh.shape[-1] ** -0.5 if scale is None else float(scale)
  found = dispatch.choose(
    'column_sums',
    implementation,
    ('reference', 'xla', 'tpu', 'triton'),
    lambda name: implementations.unsupported(
      name, q_btnh, k_bskh, k_bskh, mask
    ),
  )

  def call(name, q, k, lse, weight, mask):
    if name == 'reference':
      return reference.column_sums(q, k, lse, weight, mask, scale=scale)
    static = Static.here(name, Options(scale=scale))
    return implementations.column_sums(static, q, k, mask, lse, weight)

  sums_bsn = dispatch.run(
    found, call, q_btnh, k_bskh, lse_btn, weight_btn, mask
  )
  sums_bsn = jax.lax.stop_gradient(sums_bsn)
  if by_key_head:
    k = k_bskh.shape[2]
    sums_bsn = sums_bsn.reshape(*sums_bsn.shape[:2], k, -1).sum(-1)
  return sums_bsn.swapaxes(1, 2)


def decode_scores(
  q_bnh: jax.Array,
  k_bskh: jax.Array,
  length_b: jax.Array | None = None,
  *,
  scale: float | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Scores of one query per sequence against all cached keys.

  Args:
    q_bnh: Queries.
    k_bskh: Cached keys.
    length_b: int32, valid keys; default all.
    scale: Factor on `q.k`; default `h ** -0.5`.

  Returns:
    Scores `[b, n, s]`, -inf past the length, and their log-sum-exp `[b, n]`
    (-inf without keys), both float32.
  """
  b, n, h = q_bnh.shape
  s, k = k_bskh.shape[1:3]
  scale = h**-0.5 if scale is None else scale
  scores = scale * jnp.einsum(
    'bkgh,bskh->bkgs',
    q_bnh.reshape(b, k, n // k, h),
    k_bskh,
    preferred_element_type=stats_dtype(q_bnh.dtype),
  ).reshape(b, n, s)
  if length_b is not None:
    seen = jnp.arange(s) < length_b[:, None]
    scores = jnp.where(seen[:, None], scores, -jnp.inf)
  return scores, jax.nn.logsumexp(scores, axis=-1)


def soft_vote(scores_bns: jax.Array, region_bs: jax.Array) -> jax.Array:
  """Votes of all heads: each spreads one vote over the region by softmax.

  Wu et al. 2024, arXiv:2411.02886 (TokenSelect). With heads on several devices
  sum the votes over them before selecting.

  Args:
    scores_bns: Scores from `decode_scores`.
    region_bs: bool; tokens that may be selected.

  Returns:
    Float32 `[b, s]`, 0 outside the region.
  """
  scores = jnp.where(region_bs[:, None], scores_bns, -jnp.inf)
  top = scores.max(-1, keepdims=True)
  p = jnp.exp(scores - jnp.where(jnp.isneginf(top), 0, top))
  total = p.sum(-1, keepdims=True)
  return (p / jnp.where(total > 0, total, 1)).sum(1)


def block_scores(q_bunh: jax.Array, k_bpkh: jax.Array) -> jax.Array:
  """Scores of pooled query blocks against pooled key blocks.

  Args:
    q_bunh: Pooled queries, u blocks.
    k_bpkh: Pooled keys, p blocks.

  Returns:
    Float32 `[b, k, u, p]`, the mean over the query heads of a key head.
  """
  b, u, n, h = q_bunh.shape
  k = k_bpkh.shape[2]
  return jnp.einsum(
    'bukgh,bpkh->bkup',
    q_bunh.reshape(b, u, k, n // k, h),
    k_bpkh,
    preferred_element_type=stats_dtype(q_bunh.dtype),
  ) / (n // k)


def _unsupported_topk(name: str, x_rs) -> str | None:
  if name != 'tpu':
    return None
  from jaxtok_kernels.score_topk import tpu

  return tpu.unsupported(x_rs)


def topk_threshold(
  x_rs: jax.Array,
  k: int,
  valid_rs: jax.Array | None = None,
  *,
  implementation: str = 'auto',
) -> jax.Array:
  """Indices of the k largest entries of each row, in ascending order.

  The same set as `jax.lax.top_k`, the lowest index winning ties, found by
  counting instead of sorting. NaN counts as -inf.

  Args:
    x_rs: Float32 or narrower.
    k: Static; entries to select.
    valid_rs: bool; entries that may be selected. Default all.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    int32 `[r, k]`, -1 padded at the end if fewer than k entries are valid.

  Raises:
    ValueError: If `k < 1`.
  """
  if k < 1:
    raise ValueError(f'k={k} must be at least 1.')
  found = dispatch.choose(
    'topk_threshold',
    implementation,
    ('reference', 'xla', 'tpu'),
    lambda name: _unsupported_topk(name, x_rs),
  )

  interpret = dispatch.interpret()

  def call(name, x, valid):
    if name == 'reference':
      return reference.topk(x, k, valid)
    if name == 'xla':
      return xla.topk_threshold(x, k, valid)
    from jaxtok_kernels.score_topk import tpu

    find = functools.partial(tpu.thresholds, interpret=interpret)
    return xla.topk_threshold(x, k, valid, find)

  ids = dispatch.run(found, call, x_rs, valid_rs)
  return jnp.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)

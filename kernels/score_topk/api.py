# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Public functions: how much cached tokens matter, and which matter most."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import implementations
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.score_topk import reference, xla
from jaxtok_kernels.state import stats_dtype

_PALLAS = {'tpu': 'tpu', 'triton': 'gpu_triton'}
_AVAILABLE = ('reference', 'xla', *_PALLAS)


def column_sums(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  lse_btn: jax.Array,
  weight_btn: jax.Array | None = None,
  *,
  mask: masks.MaskSpec,
  scale: float | None = None,
  softcap: float | None = None,
  by_key_head: bool = True,
  implementation: str = 'auto',
) -> jax.Array:
  """Attention that each key receives: `sum_i w_i exp(score_ij - lse_i)`.

  With the scale and softcap of the call that gave `lse_btn`.

  Args:
    q_btnh: Queries.
    k_bskh: Keys.
    lse_btn: Log-sum-exp of each row from `flash_attention`.
    weight_btn: Weight of each row and head; default 1.
    mask: Which keys a row sees.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none; that of the model.
    by_key_head: Static; sum over the query heads of a key head.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    Float32 `[b, k, s]`, or `[b, n, s]` without `by_key_head`. No gradients.
  """
  b, _, n, h = q_btnh.shape
  s, k = k_bskh.shape[1:3]
  if k_bskh.shape != (b, s, k, h) or n % k:
    raise ValueError(
      f'k_bskh has shape {k_bskh.shape}; it must be [{b}, s, k, {h}] with k '
      f'dividing the {n} query heads.'
    )
  if weight_btn is None:
    weight_btn = jnp.ones_like(lse_btn)
  if lse_btn.shape != q_btnh.shape[:3] or weight_btn.shape != lse_btn.shape:
    raise ValueError(
      f'lse_btn {lse_btn.shape} and weight_btn {weight_btn.shape} must have '
      f'the shape {q_btnh.shape[:3]} of the query rows.'
    )
  scale = h**-0.5 if scale is None else float(scale)
  found = dispatch.choose(
    'column_sums',
    implementation,
    _AVAILABLE,
    lambda name: implementations.unsupported(
      name, q_btnh, k_bskh, k_bskh, mask
    ),
  )

  def call(name, q, k, lse, weight, mask):
    if name == 'reference':
      return reference.column_sums(
        q, k, lse, weight, mask, scale=scale, softcap=softcap
      )
    static = Static.here(name, Options(scale=scale, softcap=softcap))
    return implementations.column_sums(static, q, k, mask, lse, weight)

  operands = q_btnh, k_bskh, lse_btn, weight_btn, mask
  sums_bsn = dispatch.run(found, call, *jax.lax.stop_gradient(operands))
  if by_key_head:
    sums_bsn = sums_bsn.reshape(*sums_bsn.shape[:2], k, -1).sum(-1)
  return sums_bsn.swapaxes(1, 2)


def decode_scores(
  q_bnh: jax.Array,
  k_bskh: jax.Array,
  length_b: jax.Array | None = None,
  *,
  scale: float | None = None,
  softcap: float | None = None,
  implementation: str = 'auto',
) -> tuple[jax.Array, jax.Array]:
  """Scores of one query per sequence against all cached keys.

  Args:
    q_bnh: Queries.
    k_bskh: Cached keys.
    length_b: int32, valid keys; default all.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none; that of the model.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    Scores `[b, n, s]`, -inf past the length, and their log-sum-exp `[b, n]`
    (-inf without keys), both float32. No gradients.
  """
  b, n, h = q_bnh.shape
  s, k = k_bskh.shape[1:3]
  if k_bskh.shape != (b, s, k, h) or n % k:
    raise ValueError(
      f'k_bskh has shape {k_bskh.shape}; it must be [{b}, s, k, {h}] with k '
      f'dividing the {n} query heads.'
    )
  scale = h**-0.5 if scale is None else float(scale)
  length_b = jnp.full(b, s, jnp.int32) if length_b is None else length_b
  found = dispatch.choose(
    'decode_scores',
    implementation,
    _AVAILABLE,
    lambda name: (
      _module(name).unsupported_scores(q_bnh, k_bskh)
      if name in _PALLAS
      else None
    ),
  )
  interpret = dispatch.interpret()

  def call(name, *args):
    if name in _PALLAS:
      return _module(name).decode_scores(
        *args, scale=scale, softcap=softcap, interpret=interpret
      )
    form = reference if name == 'reference' else xla
    return form.decode_scores(*args, scale=scale, softcap=softcap)

  operands = jax.lax.stop_gradient((q_bnh, k_bskh, length_b))
  return dispatch.run(found, call, *operands)


def soft_vote(
  scores_bns: jax.Array,
  region_bs: jax.Array,
  *,
  implementation: str = 'auto',
) -> jax.Array:
  """Votes of all heads: each spreads one vote over the region by softmax.

  Wu et al. 2024, arXiv:2411.02886 (TokenSelect). With heads on several devices
  sum the votes over them before selecting.

  Args:
    scores_bns: Scores from `decode_scores`.
    region_bs: bool; tokens that may be selected.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    Float32 `[b, s]`, 0 outside the region. No gradients.
  """
  if region_bs.shape != (scores_bns.shape[0], scores_bns.shape[2]):
    raise ValueError(
      f'region_bs has shape {region_bs.shape}; it must be '
      f'{(scores_bns.shape[0], scores_bns.shape[2])}.'
    )
  found = dispatch.choose(
    'soft_vote', implementation, _AVAILABLE, lambda name: None
  )
  interpret = dispatch.interpret()

  def call(name, *args):
    if name in _PALLAS:
      return _module(name).soft_vote(*args, interpret=interpret)
    return (reference if name == 'reference' else xla).soft_vote(*args)

  operands = jax.lax.stop_gradient((scores_bns, region_bs))
  return dispatch.run(found, call, *operands)


def group_max(scores_bns: jax.Array, num_kv_heads: int) -> jax.Array:
  """Highest score of each token among the query heads of a key head.

  Args:
    scores_bns: Scores from `decode_scores`.
    num_kv_heads: Static; key heads k, which divide the query heads.

  Returns:
    `[b, k, s]`, for lists that differ between key heads.
  """
  b, n, s = scores_bns.shape
  if num_kv_heads < 1 or n % num_kv_heads:
    raise ValueError(
      f'num_kv_heads={num_kv_heads} must divide the {n} query heads of '
      f'scores_bns {scores_bns.shape}.'
    )
  return scores_bns.reshape(b, num_kv_heads, n // num_kv_heads, s).max(2)


def head_mean(scores_bns: jax.Array) -> jax.Array:
  """Mean score over all heads, `[b, s]`, for one list per sequence."""
  return scores_bns.mean(1)


def block_scores(q_bunh: jax.Array, k_bpkh: jax.Array) -> jax.Array:
  """Scores of pooled query blocks against pooled key blocks.

  One small matmul, which XLA serves everywhere.

  Args:
    q_bunh: Pooled queries, u blocks.
    k_bpkh: Pooled keys, p blocks.

  Returns:
    Float32 `[b, k, u, p]`, the mean over the query heads of a key head.
  """
  b, u, n, h = q_bunh.shape
  k = k_bpkh.shape[2]
  if n % k:
    raise ValueError(
      f'k_bpkh has {k} key heads; they must divide the {n} query heads of '
      f'q_bunh {q_bunh.shape}.'
    )
  return jnp.einsum(
    'bukgh,bpkh->bkup',
    q_bunh.reshape(b, u, k, n // k, h),
    k_bpkh,
    preferred_element_type=stats_dtype(q_bunh.dtype),
  ) / (n // k)


def topk_threshold(
  x_rs: jax.Array,
  k: int,
  valid_rs: jax.Array | None = None,
  *,
  recall_target: float | None = None,
  implementation: str = 'auto',
) -> jax.Array:
  """Indices of the k largest entries of each row, in ascending order.

  The same set as `jax.lax.top_k`, the lowest index winning ties, found by
  counting instead of sorting. NaN counts as -inf.

  Args:
    x_rs: Float32 or narrower.
    k: Static; entries to select.
    valid_rs: bool; entries that may be selected. Default all.
    recall_target: Static; if given, `jax.lax.approx_max_k` selects instead,
      which may miss the share `1 - recall_target` on TPUs (it is exact
      elsewhere). Only with `implementation='auto'`.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    int32 `[r, k]`, -1 padded at the end if fewer than k entries are valid.

  Raises:
    ValueError: If `k < 1`, shapes do not fit, or `recall_target` is combined
      with a named implementation.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  if k < 1:
    raise ValueError(f'k={k} must be at least 1.')
  if x_rs.ndim != 2:
    raise ValueError(
      f'x_rs has shape {x_rs.shape}; it must be [rows, entries]. For a single '
      'row pass x[None].'
    )
  if valid_rs is not None and valid_rs.shape != x_rs.shape:
    raise ValueError(
      f'valid_rs has shape {valid_rs.shape}; it must be {x_rs.shape}, as x_rs.'
    )
  if recall_target is not None:
    if implementation != 'auto':
      raise ValueError(
        f'recall_target={recall_target} and implementation={implementation!r} '
        'exclude each other: approx_max_k belongs to XLA.'
      )
    return xla.approximate_topk(x_rs, k, valid_rs, recall_target)
  found = dispatch.choose(
    'topk_threshold',
    implementation,
    _AVAILABLE,
    lambda name: (
      _module('tpu').unsupported_topk(x_rs) if name == 'tpu' else None
    ),
  )
  interpret = dispatch.interpret()

  def call(name, x, valid):
    if name in _PALLAS:
      return _module(name).topk(x, k, valid, interpret=interpret)
    if name == 'reference':
      return reference.topk(x, k, valid)
    return xla.topk_threshold(x, k, valid)

  ids = dispatch.run(found, call, *jax.lax.stop_gradient((x_rs, valid_rs)))
  return jnp.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)


def _module(name: str) -> Any:
  """Pallas is slow to import, so only what is used is."""
  return importlib.import_module(f'jaxtok_kernels.score_topk.{_PALLAS[name]}')

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention: the operation, and a layer around it.

Query head n reads key/value head `n // (n_heads / k_heads)`: Ainslie et al.
2023, arXiv:2305.13245. Softmax statistics are float32 and natural logarithms.
A query that sees no key returns zeros and a log-sum-exp of -inf, never NaN.

Axes: b batch, t queries, s keys, n query heads, k key/value heads, g query
heads per key/value head, h head width, d model width.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtok_kernels import AttentionState, dispatch
from jaxtyping import Array, Float

from jaxtok.config import configclass
from jaxtok.nn import (
  cpu_attention,
  dense_attention,
  linear,
  lowering,
  masks,
  norms,
  platform,
  rope,
  sharded_attention,
)

IMPLEMENTATIONS = ('dense', 'cpu', *dispatch.IMPLEMENTATIONS)

# Fewer queries than this (decoding) are not worth a loop over rows.
_MIN_CPU_QUERIES = 16


def attention(
  q_btnh: Float[Array, 'b t n h'],
  k_bskh: Float[Array, 'b s k h'],
  v_bskh: Float[Array, 'b s k hv'],
  *,
  mask: masks.Mask | None = None,
  layout: masks.Layout | None = None,
  bias: Float[Array, '#b #n t s'] | None = None,
  scale: float | None = None,
  soft_cap: float = 0.0,
  sink_n: Float[Array, 'n'] | None = None,
  return_lse: bool = False,
  implementation: str | None = None,
) -> Float[Array, 'b t n hv'] | AttentionState:
  """Softmax attention.

  Args:
    q_btnh: Queries.
    k_bskh: Keys; NaN in keys that nobody sees does not leak.
    v_bskh: Values; those that nobody sees must be finite.
    mask: Which keys each query sees; None means all.
    layout: Where queries and keys stand; None means tokens 0..t-1 and 0..s-1.
    bias: Added to the scores, after `scale` and `soft_cap`.
    scale: Multiplies the scores; None means 1/sqrt(h).
    soft_cap: If > 0, scores become `soft_cap * tanh(scores / soft_cap)`.
    sink_n: A logit per query head that takes part in the denominator only.
    return_lse: Whether to return an `AttentionState`.
    implementation: 'dense' (holds all scores) or 'cpu' (loops over rows), for
      any mask; or one of `jaxtok_kernels` ('auto', 'xla', 'tpu', 'triton',
      ...), which take masks that `lowering.lower` can express. None takes
      'cpu' or 'dense' on CPU, elsewhere 'auto' where mask and bias allow it and
      'dense' where not; `jaxtok_kernels.last_dispatch()` says why.

  Returns:
    The mixed values in the queries' dtype, or an `AttentionState`.

  Raises:
    ValueError: If shapes do not fit or the implementation is unknown.
    NotImplementedError: If a named implementation cannot serve the call.
  """
  mask = masks.Full() if mask is None else mask
  layout = layout or masks.Layout(q_btnh.shape[1], k_bskh.shape[1])
  _check(q_btnh, k_bskh, v_bskh, layout)
  scale = q_btnh.shape[-1] ** -0.5 if scale is None else scale
  name, refused = _choose(implementation, mask, layout, bias)
  if name in _HERE:
    dispatch.record(
      dispatch.Dispatch(
        'attention', implementation or 'auto', {'any': name}, refused
      )
    )
    state = _HERE[name](
      q_btnh,
      k_bskh,
      v_bskh,
      mask=mask,
      layout=layout,
      bias=bias,
      scale=scale,
      soft_cap=soft_cap,
      sink_n=sink_n,
    )
    return state if return_lse else state.out.astype(q_btnh.dtype)
  return sharded_attention.attention(
    q_btnh,
    k_bskh,
    v_bskh,
    mask=lowering.lower(mask, layout),
    bias=bias,
    sink_n=sink_n,
    scale=scale,
    softcap=soft_cap or None,
    return_state=return_lse,
    implementation=name,
  )


_HERE = {'dense': dense_attention.attention, 'cpu': cpu_attention.attention}


def _choose(implementation, mask, layout, bias) -> tuple[str, dict[str, str]]:
  """The implementation for a call, see `attention`, and why not 'auto'."""
  if implementation not in (None, *IMPLEMENTATIONS):
    raise ValueError(
      f'implementation={implementation!r} is unknown; use None or one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  if implementation is not None:
    return implementation, {}
  if dispatch.platforms() == ('cpu',):
    is_long = layout.num_queries >= _MIN_CPU_QUERIES
    here = 'cpu' if is_long and platform.is_single_cpu() else 'dense'
    return here, {}
  try:
    lowered = lowering.lower(mask, layout)
  except NotImplementedError as error:
    return 'dense', {'any/auto': str(error)}
  if bias is not None and lowered.block_lists is not None:
    return 'dense', {
      'any/auto': 'bias cannot be combined with a list of blocks'
    }
  return 'auto', {}


def _check(q_btnh, k_bskh, v_bskh, layout):
  t, n, h = q_btnh.shape[1:]
  if n % k_bskh.shape[2]:
    raise ValueError(
      f'{n} query heads are no multiple of {k_bskh.shape[2]} key/value heads.'
    )
  if k_bskh.shape[3] != h or k_bskh.shape[:3] != v_bskh.shape[:3]:
    raise ValueError(
      f'queries {q_btnh.shape}, keys {k_bskh.shape} and values '
      f'{v_bskh.shape} do not fit: need [b t n h], [b s k h], [b s k hv].'
    )
  if (layout.num_queries, layout.num_keys) != (t, k_bskh.shape[1]):
    raise ValueError(
      f'layout is for {layout.num_queries} queries and {layout.num_keys} '
      f'keys, but there are {t} and {k_bskh.shape[1]}.'
    )


@configclass
class Config:
  """Hyper-parameters of `Attention`."""

  dim: int = 128  # Model width d.
  num_heads: int = 4  # Query heads n.
  num_kv_heads: int = 4  # Key/value heads k; divides n.
  head_dim: int = 32
  qkv_bias: bool = False
  out_bias: bool = False
  qk_norm: bool = False  # RMSNorm of each query and key head (Qwen3).
  norm_eps: float = 1e-6
  scale: float = 0.0  # Of the scores; 0 means 1/sqrt(head_dim), T5 has 1.
  soft_cap: float = 0.0  # 0 means none.
  softmax_one: bool = False  # exp(s) / (1 + sum exp(s)): may see nothing.
  q_std: float = 0.0  # Of the initial query kernel; 0 means 1/sqrt(dim).
  out_std: float = 0.0  # Of the output kernel; 0 means 1/sqrt(n h).
  dtype: str = 'float32'
  implementation: str = ''  # See `attention`; '' takes the best.

  def __post_init__(self):
    if self.implementation not in ('', *IMPLEMENTATIONS):
      raise ValueError(
        f'implementation={self.implementation!r} is unknown; use one of '
        f"'', {', '.join(IMPLEMENTATIONS)}."
      )
    if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'num_heads={self.num_heads} must be a multiple of num_kv_heads='
        f'{self.num_kv_heads}.'
      )


class Attention(nnx.Module):
  """Projections, optional rotation, attention, output projection."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    d, n, k, h = (
      config.dim,
      config.num_heads,
      config.num_kv_heads,
      config.head_dim,
    )

    def project(heads, axis, std=0.0):
      return linear.Linear(
        (d,),
        (heads, h),
        axes=('embed', axis, 'head_dim'),
        use_bias=config.qkv_bias,
        std=std,
        dtype=config.dtype,
        rngs=rngs,
      )

    self.q = project(n, 'heads', config.q_std)
    self.k = project(k, 'kv')
    self.v = project(k, 'kv')
    self.out = linear.Linear(
      (n, h),
      (d,),
      axes=('heads', 'head_dim', 'embed'),
      use_bias=config.out_bias,
      std=config.out_std,
      dtype=config.dtype,
      rngs=rngs,
    )
    norm = lambda: norms.Norm(h, eps=config.norm_eps, axis='head_dim')
    self.q_norm = norm() if config.qk_norm else None
    self.k_norm = norm() if config.qk_norm else None

  def queries(
    self, x_btd: Float[Array, 'b t d'], rotation: Any = None
  ) -> Float[Array, 'b t n h']:
    """Queries, rotated if `rotation` (see `rope.rotation`) is given."""
    q_btnh = self.q(x_btd)
    if self.q_norm is not None:
      q_btnh = self.q_norm(q_btnh)
    return q_btnh if rotation is None else rope.rotate(q_btnh, rotation)

  def keys_values(
    self, x_bsd: Float[Array, 'b s d'], rotation: Any = None
  ) -> tuple[Float[Array, 'b s k h'], Float[Array, 'b s k h']]:
    """Keys (rotated if `rotation` is given) and values."""
    k_bskh, v_bskh = self.k(x_bsd), self.v(x_bsd)
    if self.k_norm is not None:
      k_bskh = self.k_norm(k_bskh)
    return (
      k_bskh if rotation is None else rope.rotate(k_bskh, rotation),
      v_bskh,
    )

  def attend(
    self,
    q_btnh: Float[Array, 'b t n h'],
    k_bskh: Float[Array, 'b s k h'],
    v_bskh: Float[Array, 'b s k h'],
    *,
    mask: masks.Mask | None = None,
    layout: masks.Layout | None = None,
    bias: Float[Array, '#b #n t s'] | None = None,
  ) -> Float[Array, 'b t d']:
    """Attention, then the output projection."""
    y_btnh = attention(
      q_btnh,
      k_bskh.astype(q_btnh.dtype),
      v_bskh.astype(q_btnh.dtype),
      mask=mask,
      layout=layout,
      bias=bias,
      scale=self.config.scale or None,
      soft_cap=self.config.soft_cap,
      sink_n=self._sink(),
      implementation=self.config.implementation or None,
    )
    return self.out(y_btnh)

  def _sink(self) -> Any:
    """Softmax over the scores and a 0 that nobody stands behind."""
    if not self.config.softmax_one:
      return None
    return jnp.zeros(self.config.num_heads)

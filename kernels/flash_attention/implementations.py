# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of flash attention by the name of the implementation.

Other kernels (rings, trees, shared prefixes) are built on these.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import xla
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.state import AttentionState, merge

_MODULES = {'tpu': 'tpu', 'triton': 'gpu_triton', 'mosaic_gpu': 'gpu_mosaic'}
NAMES = ('xla', *_MODULES)


@dataclasses.dataclass(frozen=True)
class Static:
  """What is static in a call, also for its backward pass.

  Attributes:
    name: Implementation, one of `NAMES`.
    options: Scale, soft cap, tiles, type of the output.
    interpret: As for `pallas_call`.
  """

  name: str
  options: Options
  interpret: Any = False

  @classmethod
  def here(cls, name: str, options: Options) -> 'Static':
    """With the interpret mode of the current context."""
    return cls(name, options, dispatch.interpret())


def _module(name: str) -> Any:
  """Pallas is slow to import, so only what is used is."""
  return importlib.import_module(
    f'jaxtok_kernels.flash_attention.{_MODULES[name]}'
  )


def unsupported(
  name: str,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: masks.MaskSpec,
  bias: jax.Array | None = None,
  state_in: AttentionState | None = None,
) -> str | None:
  """Why an implementation cannot serve a call, or None."""
  if name in _MODULES:
    return _module(name).unsupported(q, k, v, mask, bias, state_in)
  if name == 'xla' and mask.block_lists is not None and bias is not None:
    return 'bias cannot be combined with mask.block_lists'
  return None


def unsuited(name: str, mask: masks.MaskSpec) -> str | None:
  """Why 'auto' leaves out an implementation that could serve, or None."""
  if name == 'mosaic_gpu' and mask.num_sinks and mask.left is not None:
    return (
      'mask.num_sinks with a window: it computes all that lies between them, '
      'and takes 2.5 times as long as triton on an H200'
    )
  return None


def forward(
  static: Static,
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  *,
  bias: jax.Array | None = None,
  sink: jax.Array | None = None,
  state_in: AttentionState | None = None,
  kv_batch: jax.Array | None = None,
) -> AttentionState:
  """Attention without a gradient rule.

  Args:
    static: Implementation and settings.
    q_btnh: Queries.
    k_bskh: Keys.
    v_bskh: Values.
    mask: Which keys a row sees.
    bias: As in `flash_attention`.
    sink: As in `flash_attention`.
    state_in: As in `flash_attention`.
    kv_batch: int32 `[b]`, which batch element of the keys each one of the
      queries reads; tpu and triton only.
  """
  if static.name == 'xla' or xla.is_empty(q_btnh, k_bskh):
    state = xla.forward(q_btnh, k_bskh, v_bskh, mask, bias, static.options)
    return _with_extras(state, sink, state_in)
  # Mosaic has no bias, see its `unsupported`.
  more = {} if bias is None else {'bias': bias}
  return _module(static.name).forward(
    q_btnh,
    k_bskh,
    v_bskh,
    mask,
    sink,
    state_in,
    static.options,
    kv_batch=kv_batch,
    interpret=static.interpret,
    **more,
  )


def _with_extras(state, sink, state_in) -> AttentionState:
  """Merges the sink (a key with value zero) and the incoming state."""
  parts = [state]
  if state_in is not None:
    parts.append(state_in)
  if sink is not None:
    lse_btn = jnp.broadcast_to(sink.astype(state.lse.dtype), state.lse.shape)
    parts.append(AttentionState(jnp.zeros_like(state.out), lse_btn))
  if len(parts) == 1:
    return state
  merged = merge(parts)
  return AttentionState(merged.out.astype(state.out.dtype), merged.lse)


def backward(
  static: Static,
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  mask: masks.MaskSpec,
  lse_btn: jax.Array,
  dout_btnh: jax.Array,
  delta_btn: jax.Array,
  *,
  bias: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
  """Cotangents of q, k, v and bias; `delta` as in `xla.backward`.

  With a bias the XLA form serves all: its cotangent is as large as the scores.
  """
  by_xla = static.name == 'xla' or bias is not None
  if by_xla or xla.is_empty(q_btnh, k_bskh):
    return xla.backward(
      q_btnh,
      k_bskh,
      v_bskh,
      mask,
      bias,
      lse_btn,
      dout_btnh,
      delta_btn,
      static.options,
    )
  # Mosaic GPU has no backward kernel: Triton serves the same devices.
  name = 'triton' if static.name == 'mosaic_gpu' else static.name
  grads = _module(name).backward(
    q_btnh,
    k_bskh,
    v_bskh,
    mask,
    lse_btn,
    dout_btnh,
    delta_btn,
    static.options,
    interpret=static.interpret,
  )
  return *grads, None


def column_sums(
  static: Static,
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  mask: masks.MaskSpec,
  lse_btn: jax.Array,
  weight_btn: jax.Array,
) -> jax.Array:
  """Attention mass of each key by 'xla', 'tpu' or 'triton', `[b, s, n]`."""
  operands = (q_btnh, k_bskh, mask, lse_btn, weight_btn, static.options)
  if static.name == 'xla' or xla.is_empty(q_btnh, k_bskh):
    return xla.column_sums(*operands)
  return _module(static.name).column_sums(*operands, interpret=static.interpret)

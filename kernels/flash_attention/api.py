# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public function: checks, defaults, dispatch, gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import implementations, reference, xla
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.state import AttentionState

_AVAILABLE = ('reference', *implementations.NAMES)


def flash_attention(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  *,
  mask: masks.MaskSpec,
  scale: float | None = None,
  softcap: float | None = None,
  sink: jax.Array | None = None,
  bias: jax.Array | None = None,
  q_pos: jax.Array | None = None,
  kv_pos: jax.Array | None = None,
  state_in: AttentionState | None = None,
  return_state: bool = False,
  implementation: str = 'auto',
) -> jax.Array | AttentionState:
  """Softmax attention that never holds all scores in memory.

  `score = softcap * tanh(scale * q.k / softcap) + bias`, softmax over the
  visible keys in float32 (float64 for float64 inputs). Query head `i` reads key
  head `i // (n // k)`. A row that sees nothing gets `out = 0`, `lse = -inf` and
  zero gradients.

  Gradients flow to q, k, v, sink, bias and state_in, through `out` and `lse`.
  Forward mode and second derivatives need `implementation='reference'`.

  Args:
    q_btnh: Queries `[b, t, n, h]`.
    k_bskh: Keys `[b, s, k, h]`; k divides n.
    v_bskh: Values `[b, s, k, hv]`.
    mask: Which keys a row sees; `masks.full()` for all.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    sink: `[n]`; logit per head that is added to the denominator only.
    bias: `[b|1, n|1, t, s]`, added after the soft cap. The backward pass of
      calls with a bias is the XLA form's for all implementations.
    q_pos: int32 `[b|1, t]`; sets `mask.q_pos`.
    kv_pos: int32 `[b|1, s]`; sets `mask.kv_pos`.
    state_in: State over other keys, merged into the result.
    return_state: Static; whether to return the log-sum-exp too. The output is
      then float32, as parts that will be merged must be.
    implementation: Static; 'auto', 'reference', 'xla', 'tpu', 'triton' or
      'mosaic_gpu'. `last_dispatch()` tells what auto chose.

  Returns:
    `out [b, t, n, hv]` of q's type, or an `AttentionState`.

  Raises:
    ValueError: If shapes or types do not fit.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  _check(q_btnh, k_bskh, v_bskh, sink, bias, state_in)
  check_is_mask(mask)
  mask = _with_positions(mask, q_pos, kv_pos)
  _check_mask(mask, q_btnh, k_bskh)
  options = xla.Options.of(
    q_btnh.shape[-1],
    scale,
    softcap,
    out_dtype=None if return_state else q_btnh.dtype.name,
    has_lse=return_state,
  )
  found = dispatch.choose(
    'flash_attention',
    implementation,
    _AVAILABLE,
    lambda name: implementations.unsupported(
      name, q_btnh, k_bskh, v_bskh, mask, bias, state_in
    ),
    lambda name: implementations.unsuited(name, mask),
  )
  call = lambda name, *arrays: _call(name, options, *arrays)
  state = dispatch.run(
    found, call, q_btnh, k_bskh, v_bskh, mask, bias, sink, state_in
  )
  return state if return_state else state.out.astype(q_btnh.dtype)


def _call(name, options, q, k, v, mask, bias, sink, state_in):
  if name == 'reference':
    state = reference.flash_attention(
      q,
      k,
      v,
      mask=mask,
      scale=options.scale,
      softcap=options.softcap,
      sink_n=sink,
      bias_bnts=bias,
      state_in=state_in,
    )
    return _result(options, state)
  static = Static.here(name, options)
  return _attend(static, q, k, v, mask, bias, sink, state_in)


def _with_positions(mask, q_pos, kv_pos) -> masks.MaskSpec:
  for name, value in (('q_pos', q_pos), ('kv_pos', kv_pos)):
    if value is None:
      continue
    if getattr(mask, name) is not None:
      raise ValueError(f'{name} is given twice: as argument and in mask.')
    mask = dataclasses.replace(mask, **{name: value})
  return mask


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static, q, k, v, mask, bias, sink, state_in):
  state = implementations.forward(
    static, q, k, v, mask, bias=bias, sink=sink, state_in=state_in
  )
  return _result(static.options, state)


def _result(options: xla.Options, state: AttentionState) -> AttentionState:
  """The log-sum-exp is None unless it was asked for."""
  return state if options.has_lse else AttentionState(state.out, None)


def _attend_fwd(static, q, k, v, mask, bias, sink, state_in):
  # The gradient needs the log-sum-exp, whatever the caller asked for.
  options = dataclasses.replace(static.options, has_lse=True)
  state = implementations.forward(
    dataclasses.replace(static, options=options),
    *(q, k, v, mask),
    bias=bias,
    sink=sink,
    state_in=state_in,
  )
  state = AttentionState(
    checkpoint_name(state.out, 'attn_out'),
    checkpoint_name(state.lse, 'attn_lse'),
  )
  residuals = q, k, v, mask, bias, sink, state_in, state
  return _result(static.options, state), residuals


def _attend_bwd(static, residuals, cotangent):
  q, k, v, mask, bias, sink, state_in, state = residuals
  dout = cotangent.out.astype(state.lse.dtype)
  delta = (state.out * dout).sum(-1)
  if static.options.has_lse:
    delta = delta - cotangent.lse
  dq, dk, dv, dbias = implementations.backward(
    static, q, k, v, mask, state.lse, dout, delta, bias=bias
  )
  dsink = dstate = None
  lse = jnp.where(jnp.isneginf(state.lse), jnp.inf, state.lse)
  if sink is not None:
    p_btn = jnp.exp(sink.astype(lse.dtype) - lse)
    dsink = (-p_btn * delta).sum((0, 1)).astype(sink.dtype)
  if state_in is not None:
    p_btn = jnp.exp(state_in.lse - lse)
    dp_btn = (state_in.out * dout).sum(-1)
    dstate = AttentionState(
      (p_btn[..., None] * dout).astype(state_in.out.dtype),
      (p_btn * (dp_btn - delta)).astype(state_in.lse.dtype),
    )
  return dq, dk, dv, None, dbias, dsink, dstate


_attend.defvjp(_attend_fwd, _attend_bwd)


def check_shapes(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  names: tuple[str, str, str] = ('q_btnh', 'k_bskh', 'v_bskh'),
) -> None:
  """Raises ValueError if queries, keys and values do not fit each other."""
  for name, x in zip(names, (q, k, v), strict=True):
    if x.ndim != 4:
      raise ValueError(f'{name} has shape {x.shape}; it must have 4 axes.')
  b, _, n, h = q.shape
  if k.shape[:3] != v.shape[:3] or k.shape[0] != b or k.shape[3] != h:
    raise ValueError(
      f'{names[0]} {q.shape}, {names[1]} {k.shape} and {names[2]} {v.shape} do '
      'not fit: the batch sizes, the widths of q and k, and the lengths and '
      'heads of k and v must be equal.'
    )
  if not k.shape[2] or n % k.shape[2]:
    raise ValueError(
      f'The {k.shape[2]} key heads must divide the {n} query heads.'
    )


def check_is_mask(mask: masks.MaskSpec) -> None:
  """Raises ValueError for anything but a mask."""
  if not isinstance(mask, masks.MaskSpec):
    raise ValueError(
      f'mask is {mask!r}; it must be a MaskSpec. masks.full() shows all keys.'
    )


def _check(q, k, v, sink, bias, state_in) -> None:
  check_shapes(q, k, v)
  b, t, n, _ = q.shape
  if not q.dtype == k.dtype == v.dtype:
    raise ValueError(
      f'q_btnh, k_bskh and v_bskh must have one type, got {q.dtype}, '
      f'{k.dtype} and {v.dtype}.'
    )
  if sink is not None and sink.shape != (n,):
    raise ValueError(f'sink has shape {sink.shape}; it must be ({n},).')
  if bias is not None:
    lead = (
      bias.ndim == 4 and bias.shape[0] in (1, b) and bias.shape[1] in (1, n)
    )
    if not lead or bias.shape[2:] != (t, k.shape[1]):
      raise ValueError(
        f'bias has shape {bias.shape}; it must be '
        f'[{b} or 1, {n} or 1, {t}, {k.shape[1]}].'
      )
  if state_in is None:
    return
  shapes = {'out': (b, t, n, v.shape[3]), 'lse': (b, t, n)}
  for name, shape in shapes.items():
    found = getattr(getattr(state_in, name), 'shape', None)
    if found != shape:
      raise ValueError(
        f'state_in.{name} has shape {found}; it must be {shape}. A state comes '
        'from a call with return_state=True.'
      )


def _check_mask(mask, q, k) -> None:
  mask.check(q.shape[1], k.shape[1])
  batches = {x.shape[0] for x in jax.tree.leaves(mask)} - {1, q.shape[0]}
  if batches:
    raise ValueError(
      f'mask is for batch {max(batches)}, but q_btnh has batch {q.shape[0]}.'
    )
  if (lists := mask.block_lists) is not None:
    if lists.ids.shape[1] not in (1, k.shape[2]):
      raise ValueError(
        f'mask.block_lists.ids has {lists.ids.shape[1]} head groups; it must '
        f'have 1 or {k.shape[2]}, one per key head.'
      )
    num = -(-q.shape[1] // lists.block_q)
    if lists.ids.shape[2] != num:
      raise ValueError(
        f'mask.block_lists.ids has {lists.ids.shape[2]} query blocks; '
        f'{q.shape[1]} queries in blocks of {lists.block_q} need {num}.'
      )

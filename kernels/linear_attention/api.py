# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public function: prefix, padding, normaliser, dispatch."""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch
from jaxtok_kernels.linear_attention import decay as decays
from jaxtok_kernels.linear_attention import features, reference, xla
from jaxtok_kernels.linear_attention.operands import Operands, Settings
from jaxtok_kernels.state import stats_dtype

_PALLAS = {'tpu': 'tpu', 'triton': 'gpu_triton'}
_AVAILABLE = ('reference', 'xla', *_PALLAS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LinearState:
  """Everything that later tokens need of earlier ones.

  Attributes:
    sums_bnfe: Float32 `sum phi(k) [v, 1]^T`; the last column is the normaliser.
  """

  sums_bnfe: jax.Array


def linear_attention(
  q_btnh: jax.Array,
  k_btnh: jax.Array,
  v_btne: jax.Array,
  *,
  feature: str = 'taylor2',
  k_enc: jax.Array | None = None,
  v_enc: jax.Array | None = None,
  prefix_len: jax.Array | None = None,
  valid_bt: jax.Array | None = None,
  decay: jax.Array | None = None,
  initial_state: LinearState | None = None,
  normalize: bool = True,
  eps: float = 1e-6,
  chunk: int = 128,
  implementation: str = 'auto',
) -> tuple[jax.Array, LinearState]:
  """Causal linear attention, optionally after a bidirectional prefix.

  `y_i = phi(q_i) S_i`, `S_i = exp(decay_i) S_{i-1} + phi(k_i) v_i^T`, divided
  by the same sum without values plus `eps`. With a prefix (Arora et al. 2024,
  arXiv:2407.05483), `S_0` holds all its keys, so that every row sees all of it.

  Differentiable, with xla also twice and in forward mode.

  Args:
    q_btnh: Queries.
    k_btnh: Keys.
    v_btne: Values.
    feature: Static; see `features`.
    k_enc: `[b, m, n, h]`, keys of the prefix.
    v_enc: `[b, m, n, e]`, values of the prefix.
    prefix_len: int32 `[b]`, valid entries of the prefix; default all. Others
      are not read, whatever they hold.
    valid_bt: bool; others neither add to the state nor decay it: their keys,
      values and decays may even be NaN. Their queries are served as any.
    decay: Log-decay <= 0, `[b, t, n]`, or per feature `[b, t, n, h]`
      (feature='identity' only, clamped at -5 per token). It also decays the
      prefix and the initial state. Per head any value is served as exactly as
      any other; -128 and less, -inf too, is a full reset, as at the start of a
      document, through which no gradient passes.
    initial_state: State after earlier tokens.
    normalize: Static; whether to divide by the normaliser.
    eps: Added to the normaliser.
    chunk: Static; tokens per chunk. Does not change the result.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    `y [b, t, n, e]` of q's type and the state after the last token.

  Raises:
    ValueError: If shapes do not fit or the feature map is unknown.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  _check(q_btnh, k_btnh, v_btne, feature, decay, valid_bt)
  _check_prefix(q_btnh, v_btne, k_enc, v_enc, prefix_len)
  state = _start(
    q_btnh, v_btne, feature, initial_state, k_enc, v_enc, prefix_len
  )
  decay = decays.log_decay(decay, valid_bt, state.dtype)
  # Both: 0 times a NaN would be one.
  k_btnh, v_btne = _zeroed(k_btnh, valid_bt), _zeroed(v_btne, valid_bt)
  operands = Operands(q_btnh, k_btnh, v_btne, state, decay, valid_bt)
  settings = Settings(feature, normalize, eps, chunk)
  return _run(implementation, settings, operands)


def _run(implementation: str, settings: Settings, x: Operands):
  found = dispatch.choose(
    'linear_attention',
    implementation,
    _AVAILABLE,
    lambda name: _unsupported(name, x, settings),
  )
  if x.q.shape[1] == 0:
    return jnp.zeros(x.v.shape, x.q.dtype), LinearState(x.state)
  call = lambda name, x: _attend(name, settings, x)
  y_btne, state = dispatch.run(found, call, x)
  return y_btne.astype(x.q.dtype), LinearState(state)


def _module(name: str) -> Any:
  """Pallas is slow to import, so only what is used is."""
  return importlib.import_module(
    f'jaxtok_kernels.linear_attention.{_PALLAS[name]}'
  )


def _unsupported(name: str, x: Operands, settings: Settings) -> str | None:
  if name not in _PALLAS:
    return None
  return _module(name).unsupported(x, settings)


def _attend(name: str, settings: Settings, x: Operands):
  if name in _PALLAS:
    x = _for_pallas(settings, x)
    return _attend_pallas((name, settings, dispatch.interpret()), x)
  v_btne, decay = _with_one(x.v, x.valid, x.state.dtype), x.decay
  if decay is not None and decay.ndim == 3:
    decay = decay[..., None]
  if name == 'reference':
    if decay is None:
      decay = jnp.zeros((*x.q.shape[:3], 1), x.state.dtype)
    out, state = reference.linear_attention(
      x.q, x.k, v_btne, decay, x.state, feature=settings.feature
    )
  else:
    out, state = xla.linear_attention(
      x.q,
      x.k,
      v_btne,
      decay,
      x.state,
      feature=settings.feature,
      chunk=settings.chunk,
    )
  y_btne = out[..., :-1]
  if settings.normalize:
    y_btne = y_btne / (out[..., -1:] + settings.eps)
  return y_btne, state


def _for_pallas(settings: Settings, x: Operands) -> Operands:
  """Applies elu, which kernels do not know."""
  if settings.feature != 'elu':
    return x
  apply = lambda y: features.feature_map(y, 'elu').astype(y.dtype)
  return dataclasses.replace(x, q=apply(x.q), k=apply(x.k))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_pallas(static, x: Operands):
  name, settings, interpret = static
  y, last, _ = _module(name).forward(
    x, settings, save=False, interpret=interpret
  )
  return y, last


def _attend_pallas_fwd(static, x: Operands):
  name, settings, interpret = static
  y, last, saved = _module(name).forward(
    x, settings, save=True, interpret=interpret
  )
  return (y, last), (x, saved, last)


def _attend_pallas_bwd(static, residuals, cotangents):
  name, settings, interpret = static
  x, saved, last = residuals
  dy, dlast = cotangents
  grads = _module(name).backward(
    x, settings, saved, dy, dlast, interpret=interpret
  )
  if x.decay is not None:
    # The last state grows with every decay; a decay acts on all later tokens.
    axes = (2, 3) if x.decay.ndim == 3 else 3
    tail = (dlast * last).sum(axes)[:, None]
    later = jax.lax.cumsum(grads.decay, axis=1, reverse=True)
    grads = dataclasses.replace(
      grads, decay=(later + tail).astype(x.decay.dtype)
    )
  return (dataclasses.replace(grads, valid=None),)


_attend_pallas.defvjp(_attend_pallas_fwd, _attend_pallas_bwd)


def _start(q, v, feature, initial, k_enc, v_enc, prefix_len) -> jax.Array:
  """State before the first token: earlier tokens and the prefix."""
  b, _, n, h = q.shape
  dtype = stats_dtype(q.dtype)
  size = features.feature_dim(feature, h)
  state = jnp.zeros((b, n, size, v.shape[-1] + 1), dtype)
  if initial is not None:
    if initial.sums_bnfe.shape != state.shape:
      raise ValueError(
        f'initial_state has shape {initial.sums_bnfe.shape}; it must be '
        f'{state.shape}.'
      )
    state = state + initial.sums_bnfe
  if k_enc is None:
    return state
  valid = None
  if prefix_len is not None:
    valid = jnp.arange(k_enc.shape[1]) < prefix_len[:, None]
  phi = features.feature_map(_zeroed(k_enc, valid), feature)
  return state + jnp.einsum(
    'bmnf,bmne->bnfe', phi, _with_one(v_enc, valid, dtype), precision='highest'
  )


def _zeroed(x_btnh, valid_bt) -> jax.Array:
  return (
    x_btnh
    if valid_bt is None
    else jnp.where(valid_bt[..., None, None], x_btnh, 0)
  )


def _with_one(v_btne, valid_bt, dtype) -> jax.Array:
  """Values with a column of ones for the normaliser; zeros if not valid."""
  one = jnp.ones_like(v_btne[..., :1])
  v = jnp.concatenate([v_btne, one], -1).astype(dtype)
  return _zeroed(v, valid_bt)


def _check(q, k, v, feature, decay, valid) -> None:
  features.check(feature)
  if q.shape != k.shape or v.shape[:3] != q.shape[:3]:
    raise ValueError(
      f'q_btnh {q.shape}, k_btnh {k.shape} and v_btne {v.shape} do not fit: q '
      'and k must be equal, v may differ in its width.'
    )
  if valid is not None and valid.shape != q.shape[:2]:
    raise ValueError(
      f'valid_bt has shape {valid.shape}; it must be {q.shape[:2]}.'
    )
  if decay is None:
    return
  if decay.shape not in (q.shape[:3], q.shape):
    raise ValueError(
      f'decay has shape {decay.shape}; it must be {q.shape[:3]} or {q.shape}.'
    )
  if decay.ndim == 4 and feature != 'identity':
    raise ValueError(
      f'decay per feature needs feature="identity", got {feature!r}.'
    )


def _check_prefix(q, v, k_enc, v_enc, prefix_len) -> None:
  if (k_enc is None) != (v_enc is None):
    raise ValueError('k_enc and v_enc must be given together.')
  if k_enc is None:
    if prefix_len is not None:
      raise ValueError(
        'prefix_len is given without a prefix: give k_enc and v_enc too.'
      )
    return
  b, _, n, h = q.shape
  for name, x, width in (('k_enc', k_enc, h), ('v_enc', v_enc, v.shape[-1])):
    want = b, k_enc.shape[1], n, width
    if x.shape != want:
      raise ValueError(
        f'{name} has shape {x.shape}; it must be {want}, with the sequences, '
        'heads and widths of the other operands.'
      )
  if prefix_len is not None and prefix_len.shape != (b,):
    raise ValueError(
      f'prefix_len has shape {prefix_len.shape}; it must be {(b,)}.'
    )

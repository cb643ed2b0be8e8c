# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The scan of Mamba-2: a linear recurrence, chunk by chunk.

Dao and Gu 2024, arXiv:2405.21060, section 6 (state space duality). Per head,

  h_t = exp(a_t) h_{t-1} + x_t b_t^T        y_t = h_t c_t

Inside a chunk this is a masked matrix product, as in attention; between chunks
one state is handed on. All exponents are sums of `a <= 0`, so nothing grows.

Axes: b rows, t positions, n heads, h head width, m state width, i chunks, q and
k positions of a chunk.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def scan(
  x_btnh: Float[Array, 'b t n h'],
  log_decay_btn: Float[Array, 'b t n'],
  b_btm: Float[Array, 'b t m'],
  c_btm: Float[Array, 'b t m'],
  segment_ids_bt: Int[Array, 'b t'],
  *,
  chunk: int = 64,
) -> Float[Array, 'b t n h']:
  """The outputs y, float32.

  Args:
    x_btnh: Inputs, times their step sizes.
    log_decay_btn: a, at most 0.
    b_btm: Where inputs go in the state, the same for all heads.
    c_btm: What is read from it.
    segment_ids_bt: Documents, contiguous; each begins with a state of zeros.
    chunk: Positions of a chunk; static.
  """
  if chunk < 1:
    raise ValueError(f'chunk={chunk} must be >= 1.')
  t = x_btnh.shape[1]

  def split(x):
    room = [(0, 0), (0, -t % chunk)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, room).reshape(x.shape[0], -1, chunk, *x.shape[2:])

  x, log_decay, b, c = (
    split(y.astype(jnp.float32)) for y in (x_btnh, log_decay_btn, b_btm, c_btm)
  )
  segments_biq = split(segment_ids_bt)
  y = _inside(x, log_decay, b, c, segments_biq)
  y = y + _handed_on(x, log_decay, b, c, segments_biq)
  return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :t]


def _inside(x_biqnh, log_decay_biqn, b_biqm, c_biqm, segments_biq):
  """What positions get from their own chunk."""
  same_biqk = segments_biq[..., :, None] == segments_biq[..., None, :]
  size = x_biqnh.shape[2]
  # Summed anew from each k on: differences of sums from the chunk's beginning
  # would be small numbers taken from large ones.
  is_later_qk1 = jnp.tri(size, k=-1, dtype=bool)[..., None]
  decay_biqkn = jnp.where(is_later_qk1, log_decay_biqn[:, :, :, None], 0.0)
  decay_biqkn = jnp.cumsum(decay_biqkn, axis=2)
  seen_biqk = same_biqk & jnp.tri(size, dtype=bool)
  decay_biqkn = jnp.where(seen_biqk[..., None], decay_biqkn, -jnp.inf)
  score_biqk = jnp.einsum('biqm,bikm->biqk', c_biqm, b_biqm)
  weight_biqkn = score_biqk[..., None] * jnp.exp(decay_biqkn)
  return jnp.einsum('biqkn,biknh->biqnh', weight_biqkn, x_biqnh)


def _handed_on(x_biqnh, log_decay_biqn, b_biqm, c_biqm, segments_biq):
  """What positions get from the state before their chunk."""
  last_bi = segments_biq[:, :, -1]
  before_bi = jnp.pad(last_bi, ((0, 0), (1, 0)))[:, :-1]
  is_last_biq = segments_biq == last_bi[..., None]
  sum_biqn = jnp.cumsum(log_decay_biqn, axis=2)
  after_biqn = jnp.flip(jnp.cumsum(jnp.flip(log_decay_biqn, 2), axis=2), 2)
  after_biqn = jnp.pad(after_biqn, ((0, 0), (0, 0), (0, 1), (0, 0)))[:, :, 1:]
  left_biqn = jnp.exp(after_biqn) * is_last_biq[..., None]
  add_binhm = jnp.einsum('biqn,biqnh,biqm->binhm', left_biqn, x_biqnh, b_biqm)
  is_same_bi = last_bi == before_bi
  keep_bin = jnp.exp(sum_biqn[:, :, -1]) * is_same_bi[..., None]

  def step(state_bnhm, inputs):
    keep_bn, add_bnhm = inputs
    return keep_bn[..., None, None] * state_bnhm + add_bnhm, state_bnhm

  chunks_first = lambda x: jnp.swapaxes(x, 0, 1)
  _, state_ibnhm = jax.lax.scan(
    step,
    jnp.zeros_like(add_binhm[:, 0]),
    (chunks_first(keep_bin), chunks_first(add_binhm)),
  )
  is_own_biq = segments_biq == before_bi[..., None]
  decay_biqn = jnp.exp(sum_biqn) * is_own_biq[..., None]
  return jnp.einsum(
    'biqn,biqm,binhm->biqnh', decay_biqn, c_biqm, chunks_first(state_ibnhm)
  )

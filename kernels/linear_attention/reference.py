# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear attention token by token, as a recurrence in plain JAX."""

import jax
import jax.numpy as jnp
from jaxtok_kernels.linear_attention.features import feature_map


def linear_attention(
  q_btnh: jax.Array,
  k_btnh: jax.Array,
  v_btne: jax.Array,
  decay_btnh: jax.Array,
  state_bnfe: jax.Array,
  *,
  feature: str,
) -> tuple[jax.Array, jax.Array]:
  """Runs `S = exp(decay) S + phi(k) v^T; o = phi(q) S` over the tokens.

  Args:
    q_btnh: Queries.
    k_btnh: Keys.
    v_btne: Values with the normaliser's 1 as last column; 0 for padding.
    decay_btnh: Log-decay, `[b, t, n, 1]` or one per feature.
    state_bnfe: Start state.
    feature: Static; the feature map.

  Returns:
    `o [b, t, n, e]` and the last state.
  """
  phi_q = feature_map(q_btnh, feature).swapaxes(0, 1)
  phi_k = feature_map(k_btnh, feature).swapaxes(0, 1)
  dtype = state_bnfe.dtype

  def step(state, xs):
    q, k, v, decay = xs
    state = jnp.exp(decay)[..., None] * state
    state = state + k[..., :, None] * v[..., None, :]
    return state, jnp.einsum('bnf,bnfe->bne', q, state, precision='highest')

  time_first = lambda x: x.astype(dtype).swapaxes(0, 1)
  state, out = jax.lax.scan(
    step,
    state_bnfe,
    (phi_q, phi_k, time_first(v_btne), time_first(decay_btnh)),
  )
  return out.swapaxes(0, 1), state

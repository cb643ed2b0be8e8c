# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention over part of the keys, and how parts are merged.

Every attention kernel of this package takes and returns `AttentionState`. Two
states over disjoint sets of keys merge into the state over their union, which
is what shared prefixes, split keys, rings and sparse selections are made of.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class AttentionState:
  """Attention output together with the weight of the keys it saw.

  A row that saw no key has `out = 0` and `lse = -inf`: the identity of `merge`.

  Attributes:
    out: `[b, t, n, h]`, softmax-weighted mean of the values.
    lse: `[b, t, n]`, float32, natural logarithm of the sum of `exp(score)`.
  """

  out: jax.Array
  lse: jax.Array

  def __iter__(self) -> Iterator[jax.Array]:
    """Allows `out, lse = state`."""
    yield self.out
    yield self.lse


def stats_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
  """Type of softmax statistics for inputs of `dtype`: at least float32."""
  return jnp.promote_types(dtype, jnp.float32)


def empty(
  shape: tuple[int, int, int, int], dtype: jax.typing.DTypeLike = jnp.float32
) -> AttentionState:
  """The state of `[b, t, n, h]` rows that saw no key.

  Returns:
    `out = 0` of `dtype`, `lse = -inf` in float32 or better.
  """
  lse_btn = jnp.full(shape[:-1], -jnp.inf, stats_dtype(dtype))
  return AttentionState(jnp.zeros(shape, dtype), lse_btn)


def merge(states: Sequence[AttentionState]) -> AttentionState:
  """Merges attention over disjoint sets of keys.

  Commutative and associative; rows that no state saw stay `(0, -inf)`.
  Differentiable, also where a part is empty. Keep the `out` of unmerged parts
  in float32: merging two rounded outputs doubles the rounding error.

  Args:
    states: At least one state, all of the same shape.

  Returns:
    The state over all keys; `out` has the promoted type of the parts.

  Raises:
    ValueError: If `states` is empty or shapes differ.
  """
  if not states:
    raise ValueError('states is empty: merge needs at least one state.')
  shapes = {(x.out.shape, x.lse.shape) for x in states}
  if len(shapes) > 1 or states[0].out.shape[:-1] != states[0].lse.shape:
    raise ValueError(
      f'states have shapes (out, lse) = {sorted(shapes)}; all must be the '
      'same [b, t, n, h] and [b, t, n].'
    )
  lses = [x.lse for x in states]
  max_btn = jax.lax.stop_gradient(jnp.stack(lses).max(0))
  max_btn = jnp.where(jnp.isneginf(max_btn), 0, max_btn)
  weights = [jnp.exp(lse - max_btn) for lse in lses]
  total_btn = sum(weights)
  seen_btn = total_btn > 0
  total_btn = jnp.where(seen_btn, total_btn, 1)
  out_btnh = sum(
    (w / total_btn)[..., None] * x.out
    for w, x in zip(weights, states, strict=True)
  )
  dtype = jnp.result_type(*(x.out.dtype for x in states))
  lse_btn = jnp.where(seen_btn, max_btn + jnp.log(total_btn), -jnp.inf)
  return AttentionState(out_btnh.astype(dtype), lse_btn)

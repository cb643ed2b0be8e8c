# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of one chunk, forward and backward, that kernels share.

Works on values in registers or VMEM. The state is kept transposed, `[e, f]`,
so that a decay per feature is a row. Axes: c tokens of a chunk, h head width,
f features, e values with the normaliser's 1 among them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtok_kernels.linear_attention import features

NN = (((1,), (0,)), ((), ()))  # a @ b
NT = (((1,), (1,)), ((), ()))  # a @ b.T
TN = (((0,), (0,)), ((), ()))  # a.T @ b


@functools.cache
def taylor_matrices(h: int, rows: int, columns: int) -> tuple[np.ndarray, ...]:
  """`phi(x) = (x @ left + bias[0]) * (x @ right + bias[1])`: no gathers.

  Returns:
    `left`, `right` `[rows, columns]` and `bias [2, columns]`, zero beyond the
    width h and the features.
  """
  first, second, weight = features.pair_matrices(h)
  zero, one = np.zeros((h, 1), np.float32), np.ones(1, np.float32)
  scaled = np.eye(h, dtype=np.float32) * h**-0.25
  left = np.concatenate([zero, scaled, first * weight], 1)
  right = np.concatenate([zero, np.zeros((h, h), np.float32), second], 1)
  number = left.shape[1]
  none = np.zeros(number - 1 - h, np.float32)
  bias = np.stack(
    [
      np.concatenate([one, np.zeros(h, np.float32), none]),
      np.concatenate([one, np.ones(h, np.float32), none]),
    ]
  )
  pad = lambda x, height: np.pad(
    x, ((0, height - x.shape[0]), (0, columns - number))
  ).astype(np.float32)
  return pad(left, rows), pad(right, rows), pad(bias, 2)


@dataclasses.dataclass(frozen=True)
class Decay:
  """Factors of a chunk; `b` is the log-decay summed from the chunk's start.

  Attributes:
    inside: `exp(b_i - b_j)` for `j <= i`, else 0, `[c, c]`; None if by feature.
    query: `exp(b_i - m)`, by feature only, m being b in the chunk's middle.
    key: `exp(m - b_j)`, by feature only.
    start: `exp(b_i)`, `[c, 1 or f]`.
    end: `exp(b_c - b_j)`, `[c, 1 or f]`.
    keep: `exp(b_c)`, `[1, 1 or f]` or a scalar.
  """

  start: Any
  end: Any
  keep: Any
  inside: Any = None
  query: Any = None
  key: Any = None


def decay_by_head(causal, coarse, fine, coarse_row, fine_row, last) -> Decay:
  """Factors from the two running sums of `decay.running_sums`.

  Args:
    causal: bool `[c, c]`.
    coarse: `[c, 1]`.
    fine: `[c, 1]`.
    coarse_row: The same as `coarse`, `[1, c]`.
    fine_row: The same as `fine`, `[1, c]`.
    last: The last entry of both, each `[1, 1]` or a scalar.
  """
  gap = coarse - coarse_row + (fine - fine_row)
  return Decay(
    inside=jnp.exp(jnp.where(causal, gap, -jnp.inf)),
    start=jnp.exp(coarse + fine),
    end=jnp.exp(last[0] - coarse + (last[1] - fine)),
    keep=jnp.exp(last[0] + last[1]),
  )


@dataclasses.dataclass(frozen=True)
class Chunk:
  """What forward and backward need of a chunk.

  Attributes:
    a: Similarities with decay, 0 for later tokens, `[c, c]`.
    slope: Derivative of `a` by the raw scores, `[c, c]`.
    phi_q: Features of the queries times the decay since the chunk's start.
    phi_k: Features of the keys times the decay up to the chunk's end.
    factors_q: What `Math.pullback` needs.
    factors_k: Likewise.
  """

  a: jax.Array
  slope: jax.Array
  phi_q: jax.Array
  phi_k: jax.Array
  factors_q: Any
  factors_k: Any


@dataclasses.dataclass(frozen=True)
class Math:
  """Feature map and products.

  Attributes:
    feature: 'taylor2', 'identity' or 'elu'; elu is applied before.
    head_dim: The width h that scales the scores (not its padding).
    dot: `dot(a, b, dims)` with a float32 result.
    matrices: From `taylor_matrices`, as values; bias as two rows.
  """

  feature: str
  head_dim: int
  dot: Callable[..., jax.Array]
  matrices: Any = None

  @property
  def factor(self) -> float:
    """Of the features that are not products."""
    return self.head_dim**-0.25 if self.feature == 'identity' else 1.0

  def features(self, x: jax.Array) -> tuple[jax.Array, Any]:
    """Features in float32 and the factors of the products."""
    if self.feature != 'taylor2':
      return x.astype(jnp.float32) * self.factor, None
    left, right, bias_left, bias_right = self.matrices
    first = self.dot(x, left, NN) + bias_left
    second = self.dot(x, right, NN) + bias_right
    return first * second, (first, second)

  def pullback(self, dphi: jax.Array, factors: Any) -> jax.Array:
    """Cotangent of `x` from that of its features."""
    if self.feature != 'taylor2':
      return dphi * self.factor
    left, right, *_ = self.matrices
    first, second = factors
    return self.dot(dphi * second, left, NT) + self.dot(dphi * first, right, NT)

  def similarity(
    self, scores: jax.Array
  ) -> tuple[jax.Array, jax.Array | float]:
    """`phi(q).phi(k)` from `q.k`, and its derivative."""
    if self.feature == 'elu':
      return scores, 1.0
    scale = self.head_dim**-0.5
    u = scores * scale
    if self.feature == 'identity':
      return u, scale
    return 1 + u + u * u * 0.5, scale * (1 + u)

  def similarities(self, q, k, causal, decay: Decay | None):
    """`a` and `slope` of a chunk."""
    if decay is not None and decay.inside is None:
      q, k = q * decay.query, k * decay.key
    a, slope = self.similarity(self.dot(q, k, NT))
    if decay is not None and decay.inside is not None:
      a, slope = a * decay.inside, slope * decay.inside
    # Multiplying would turn overflows of later tokens into NaN.
    return jnp.where(causal, a, 0.0), jnp.where(causal, slope, 0.0)

  def chunk(self, q, k, causal, decay: Decay | None) -> Chunk:
    """Similarities and features of a chunk.

    Args:
      q: `[c, h]`.
      k: `[c, h]`.
      causal: bool `[c, c]`.
      decay: None for none.
    """
    a, slope = self.similarities(q, k, causal, decay)
    phi_q, factors_q = self.features(q)
    phi_k, factors_k = self.features(k)
    if decay is not None:
      phi_q, phi_k = phi_q * decay.start, phi_k * decay.end
    return Chunk(a, slope, phi_q, phi_k, factors_q, factors_k)

  def output(self, chunk: Chunk, v, state) -> jax.Array:
    """Sums over all earlier tokens, `[c, e]`, of the state `[e, f]`."""
    return self.dot(chunk.a, v, NN) + self.dot(chunk.phi_q, state, NT)

  def next_state(self, chunk: Chunk, v, state, decay: Decay | None):
    """The state after the chunk."""
    kept = state if decay is None else decay.keep * state
    return kept + self.dot(v, chunk.phi_k, TN)

  def backward(self, chunk: Chunk, q, k, v, state, g, dstate, decay):
    """Cotangents of q, k, v and of the state before the chunk.

    Args:
      chunk: From `chunk`.
      q: `[c, h]`.
      k: `[c, h]`.
      v: `[c, e]`.
      state: Before the chunk, `[e, f]`.
      g: Cotangent of the output, `[c, e]`.
      dstate: Cotangent of the state after the chunk.
      decay: None for none.
    """
    inside = self._inside(chunk.a, chunk.slope, q, k, v, g, decay)
    through = self._through(chunk, v, g, state, dstate, decay)
    kept = dstate if decay is None else decay.keep * dstate
    return (
      *(x + y for x, y in zip(inside, through, strict=True)),
      kept + self.dot(g, chunk.phi_q, TN),
    )

  def inside(self, q, k, v, g, causal, decay: Decay | None):
    """Cotangents of q, k, v by the similarities within the chunk."""
    a, slope = self.similarities(q, k, causal, decay)
    return self._inside(a, slope, q, k, v, g, decay)

  def through_states(self, q, k, v, g, state, dstate, decay: Decay | None):
    """Cotangents of q, k, v by (some features of) the states."""
    phi_q, factors_q = self.features(q)
    phi_k, factors_k = self.features(k)
    if decay is not None:
      phi_q, phi_k = phi_q * decay.start, phi_k * decay.end
    chunk = Chunk(None, None, phi_q, phi_k, factors_q, factors_k)
    return self._through(chunk, v, g, state, dstate, decay)

  def _inside(self, a, slope, q, k, v, g, decay: Decay | None):
    ds = self.dot(g, v, NT) * slope
    dv = self.dot(a, g, TN)
    if decay is None or decay.inside is not None:
      return self.dot(ds, k, NN), self.dot(ds, q, TN), dv
    dq = decay.query * self.dot(ds, k * decay.key, NN)
    return dq, decay.key * self.dot(ds, q * decay.query, TN), dv

  def _through(self, chunk: Chunk, v, g, state, dstate, decay):
    dphi_q, dphi_k = self.dot(g, state, NN), self.dot(v, dstate, NN)
    if decay is not None:
      dphi_q, dphi_k = dphi_q * decay.start, dphi_k * decay.end
    return (
      self.pullback(dphi_q, chunk.factors_q),
      self.pullback(dphi_k, chunk.factors_k),
      self.dot(chunk.phi_k, dstate, NT),
    )


def dot(a, b, dims, *, exact: bool):
  """Float32 products of float32 (exact) or of bfloat16 operands."""
  if not exact:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  else:
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  return jax.lax.dot_general(
    a,
    b,
    dims,
    precision=jax.lax.Precision.HIGHEST if exact else None,
    preferred_element_type=jnp.float32,
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""From probabilities or integer logits to integer frequencies and CDFs.

The alphabet has 257 symbols: the bytes and `EOS`. A distribution is a vector of
frequencies f_x >= 1 with sum M = 2**16, or its CDF C_0 = 0 < ... < C_257 = M.
Everything after the model's logits is uint32, so that it is the same on every
device. Works on any leading axes.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

NUM_SYMBOLS = 257  # The bytes and EOS: A in the formulas.
EOS = 256
PRECISION = 16  # log2 of the total frequency M of every CDF: beta.
TOTAL = 1 << PRECISION

LOGIT_UNITS_PER_BIT = 64
_MAX_GAP = 20 * LOGIT_UNITS_PER_BIT  # Symbols further below the best get f = 1.
# 2**14 * 2**(-i / 64): one octave of the exponential.
_EXP2 = np.round(2.0 ** (14 - np.arange(LOGIT_UNITS_PER_BIT) / 64))


def mulshift16(r: Any, c: Any) -> Any:
  """`floor(r * c / 2**16)` without 64-bit arithmetic.

  Args:
    r: uint32, any value.
    c: uint32, at most 2**16.

  Returns:
    uint32; no intermediate overflows. Non-decreasing in `c`.
  """
  return (r >> 16) * c + (((r & 0xFFFF) * c) >> 16)


def _give_rest_to_best(f: Array, total: int) -> Array:
  """Adds `total - sum(f)` to the largest entry, the lowest index on ties."""
  rest = total - f.sum(-1, dtype=jnp.int32)
  best = jnp.argmax(f, axis=-1)
  hit = jnp.arange(f.shape[-1]) == best[..., None]
  return f + jnp.where(hit, rest[..., None], 0)


def quantize_pmf(
  p: Float[Any, '*b v'], precision: int = PRECISION, method: str = 'floor'
) -> UInt32[Any, '*b v']:
  """Probabilities to frequencies >= 1 with sum `2**precision`.

  Float results differ between devices and programs in the last bit, so the
  frequencies may too: see `determinism`.

  Args:
    p: Probabilities; they must sum to 1 within 1e-3.
    precision: Static, at most 16; the sum of the result is `2**precision`.
    method: 'floor' gives each symbol 1 and spreads the rest in proportion, in
      one pass (costs up to log2(1 / (1 - v / 2**precision)) bits per symbol);
      'optimal' minimises the expected code length, on the host, slowly.

  Returns:
    Frequencies; multiply by `2**(16 - precision)` before `freqs_to_cdf`.
  """
  num = p.shape[-1]
  if not num < 2**precision <= TOTAL:
    raise ValueError(
      f'precision={precision} must be at most {PRECISION} and 2**precision '
      f'larger than the alphabet ({num}).'
    )
  if method == 'optimal':
    rows = np.asarray(p, np.float64).reshape(-1, num)
    best = [_optimal_freqs(row, 2**precision) for row in rows]
    return np.stack(best).reshape(p.shape)
  if method != 'floor':
    raise ValueError(f"method={method!r} must be 'floor' or 'optimal'.")
  p = jnp.asarray(p, jnp.float32)
  f = jnp.floor(p * (2**precision - num)).astype(jnp.int32) + 1
  return _give_rest_to_best(f, 2**precision).astype(jnp.uint32)


def _optimal_freqs(p: np.ndarray, total: int) -> np.ndarray:
  """Frequencies that minimise sum(p * -log2 f), by greedy unit moves.

  The objective is separable and concave in each f, so moves that each gain the
  most and lose the least end at the optimum.
  """
  f = np.maximum(1, np.floor(p * total)).astype(np.int64)

  def gain():  # Bits saved by one more unit, and lost by one less.
    up = p * np.log2((f + 1) / f)
    down = np.where(f > 1, p * np.log2(f / np.maximum(f - 1, 1)), np.inf)
    return up, down

  while True:
    up, down = gain()
    rest = total - f.sum()
    if rest > 0:
      f[np.argmax(up)] += 1
    elif rest < 0:
      f[np.argmin(down)] -= 1
    elif up.max() > down.min():
      f[np.argmax(up)] += 1
      f[np.argmin(down)] -= 1
    else:
      return f.astype(np.uint32)


def freqs_from_logits(logits: Int[Array, '*b v']) -> UInt32[Array, '*b v']:
  """Integer softmax to base 2: frequencies >= 1 with sum 2**16.

  Args:
    logits: int32, in units of 1/64 bit. Any offset per row.

  Returns:
    1 + floor(e * (2**16 - v) / sum e) with e = 2**(logits / 64), relative to
    the row's maximum; what is missing to 2**16 goes to the most likely symbol.
  """
  num = logits.shape[-1]
  # The gap is taken in uint32, where it cannot overflow.
  gap = logits.max(-1, keepdims=True).astype(jnp.uint32) - logits.astype(
    jnp.uint32
  )
  gap = jnp.minimum(gap, _MAX_GAP)
  e = jnp.asarray(_EXP2, jnp.uint32)[gap & 63] >> (gap >> 6)
  sum_e = e.sum(-1, keepdims=True, dtype=jnp.uint32)  # < 2**23
  f = e * jnp.uint32(TOTAL - num) // sum_e + 1
  return _give_rest_to_best(f.astype(jnp.int32), TOTAL).astype(jnp.uint32)


def freqs_to_cdf(freqs: UInt32[Any, '*b v']) -> UInt32[Array, '*b v1']:
  """Frequencies that sum to 2**16, to the CDF `[0, f_0, f_0 + f_1, ..., M]`."""
  cdf = jnp.cumsum(jnp.asarray(freqs), axis=-1, dtype=jnp.uint32)
  return jnp.pad(cdf, [(0, 0)] * (cdf.ndim - 1) + [(1, 0)])


def check_cdf(cdf: np.ndarray, name: str = 'cdf') -> None:
  """Raises ValueError unless `cdf` can be coded with; on the host.

  Args:
    cdf: uint32 of shape `(..., 258)`.
    name: What to call it in the message.
  """
  cdf = np.asarray(cdf)
  if cdf.dtype != np.uint32 or cdf.shape[-1] != NUM_SYMBOLS + 1:
    raise ValueError(
      f'{name} is {cdf.dtype} with last axis {cdf.shape[-1]}; it must be '
      f'uint32 with {NUM_SYMBOLS + 1} entries.'
    )
  if (cdf[..., 0] != 0).any() or (cdf[..., -1] != TOTAL).any():
    raise ValueError(f'{name} must start at 0 and end at 2**16 = {TOTAL}.')
  if (np.diff(cdf.astype(np.int64), axis=-1) < 1).any():
    raise ValueError(
      f'{name} has a symbol of frequency 0, which could not be coded. Every '
      'symbol needs a frequency of at least 1: use quantize_pmf.'
    )

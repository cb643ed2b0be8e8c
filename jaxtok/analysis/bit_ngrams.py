# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How far the bits of compressed text are from coin tosses.

Lester et al. 2024, arXiv:2404.03626: the KL divergence of bit n-grams from the
uniform distribution, which is n bits less their entropy. What a good compressor
emits looks uniform for every n; where it does not, there is something to learn
even without context. Entropies of samples are too low; the correction of Miller
1955 adds (K - 1) / (2 m) nats for K different n-grams among m.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

PERCENTILES = (5, 50, 95)


@dataclasses.dataclass(frozen=True)
class Divergence:
  """KL from uniform, in bits per n-gram, in disjoint parts of the bits.

  Attributes:
    sizes: n [k].
    plug_in: From the frequencies themselves [k, parts].
    corrected: With Miller's correction [k, parts]; about 0 for coin tosses.
  """

  sizes: np.ndarray
  plug_in: np.ndarray
  corrected: np.ndarray

  def percentiles(self) -> Float[np.ndarray, 'k 3']:
    """The 5th, 50th and 95th percentile of `corrected` over parts."""
    return np.percentile(self.corrected, PERCENTILES, axis=1).T


def bits_of(
  ids: Int[np.ndarray, 'n'], token_bits: int
) -> UInt8[np.ndarray, 'm']:
  """The bits of tokens, the most significant of each first.

  Raises:
    ValueError: If an id has more bits than that.
  """
  if ids.size and not 0 <= ids.min() <= ids.max() < 1 << token_bits:
    raise ValueError(
      f'ids {ids.min()}..{ids.max()} do not all have {token_bits} bits. Leave '
      'special ids out; dense ids have no bits.'
    )
  shifts = np.arange(token_bits - 1, -1, -1)
  return (ids[:, None] >> shifts & 1).astype(np.uint8).reshape(-1)


def text_bits(tokenizer: Any, documents: Sequence[bytes]) -> np.ndarray:
  """The bits of documents under a tokenizer of `tokenizers.coded`."""
  ids = tokenizer.encode_batch(documents).values
  return bits_of(ids, tokenizer.token_bits)


def random_bits(num_bits: int, seed: int = 0) -> UInt8[np.ndarray, 'n']:
  """Coin tosses, the control."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 2, num_bits, dtype=np.uint8)


def divergence(
  bits: UInt8[np.ndarray, 'n'],
  sizes: Sequence[int] = tuple(range(1, 17)),
  *,
  num_parts: int = 100,
  overlapping: bool = True,
) -> Divergence:
  """KL of n-grams of bits from the uniform distribution.

  Args:
    bits: Zeros and ones. Each part has the same number, a multiple of 16;
      what is left over is not used.
    sizes: n; at most 24.
    num_parts: Disjoint parts, one after the other.
    overlapping: Whether n-grams begin at every bit. Otherwise at every n-th:
      they are tokens, which line up with windows where n divides 16.

  Raises:
    ValueError: If a part would have fewer bits than an n-gram.
  """
  length = len(bits) // num_parts // 16 * 16
  if length < max(sizes) or max(sizes) > 24:
    raise ValueError(
      f'{len(bits)} bits make {num_parts} parts of {length}: not enough for '
      f'n-grams of {max(sizes)} bits (at most 24). Give more text or lower '
      'num_parts.'
    )
  parts = bits[: length * num_parts].reshape(num_parts, length)
  found = np.array(
    [[_part(row, n, overlapping) for row in parts] for n in sizes]
  )
  return Divergence(np.asarray(sizes), found[..., 0], found[..., 1])


def _part(bits: np.ndarray, n: int, overlapping: bool) -> tuple[float, float]:
  """KL without and with correction, in bits."""
  codes = np.zeros(len(bits) - n + 1, np.int64)
  for i in range(n):
    codes = codes << 1 | bits[i : len(bits) - n + 1 + i]
  if not overlapping:
    codes = codes[::n]
  counts = np.bincount(codes)
  counts = counts[counts > 0]
  total = counts.sum()
  entropy = math.log(total) - (counts * np.log(counts)).sum() / total
  correction = (len(counts) - 1) / (2 * total)
  plain = n - entropy / math.log(2)
  return plain, plain - correction / math.log(2)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pseudo-random order without a table: a bijection computed point by point.

A Feistel network over the bits of the index, walked until it lands in range.
It needs no memory, so that the order of billions of windows costs nothing,
and integers only, so that it is the same on every machine and version.
"""

import numpy as np
from jaxtyping import Int

_ROUNDS = 6


def mix(x):
  """The finalizer of splitmix64 on uint64 arrays (Steele et al. 2014)."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


class Permutation:
  """A bijection of `range(size)` chosen by integer keys.

  Args:
    size: Number of elements, at least 1.
    *keys: Integers; each tuple of keys gives an unrelated order.
  """

  def __init__(self, size: int, *keys: int):
    if size < 1:
      raise ValueError(f'size must be >= 1, got {size}.')
    self.size = size
    bits = max(2, (size - 1).bit_length())
    self._low_bits = np.uint64(bits // 2)
    self._low_mask = np.uint64((1 << (bits // 2)) - 1)
    self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    state = np.zeros(1, np.uint64)
    for key in keys:
      word = np.array([key & 0xFFFFFFFFFFFFFFFF], np.uint64)
      state = mix(state + word + np.uint64(0x9E3779B97F4A7C15))
    rounds = np.arange(1, _ROUNDS + 1, dtype=np.uint64)
    self._round_keys = mix(state + rounds * np.uint64(0x9E3779B97F4A7C15))

  def _scramble(self, x):
    low, high = x & self._low_mask, x >> self._low_bits
    for number, key in enumerate(self._round_keys):
      if number % 2:
        low = low ^ (mix(high + key) & self._low_mask)
      else:
        high = high ^ (mix(low + key) & self._high_mask)
    return (high << self._low_bits) | low

  def __call__(self, indices: Int[np.ndarray, 'n']) -> Int[np.ndarray, 'n']:
    """The images of indices in `range(size)`, as int64."""
    x = self._scramble(np.asarray(indices).astype(np.uint64))
    outside = np.flatnonzero(x >= self.size)
    while outside.size:
      x[outside] = self._scramble(x[outside])
      outside = outside[x[outside] >= self.size]
    return x.astype(np.int64)

  def all(self) -> Int[np.ndarray, 'size']:
    """The whole order as an array, int32 where that is wide enough."""
    dtype = np.int32 if self.size < 2**31 else np.int64
    order = np.empty(self.size, dtype)
    for start in range(0, self.size, 1 << 20):
      stop = min(start + (1 << 20), self.size)
      order[start:stop] = self(np.arange(start, stop))
    return order

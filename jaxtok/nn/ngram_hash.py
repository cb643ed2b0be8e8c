# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hashes of the last n tokens, in the arithmetic of BLT's checkpoints.

Pagnoni et al. 2024, arXiv:2412.09871, section 3.2.1. The released code takes
`sum_i token_i * prime**i` in signed 64-bit integers, which wrap, and its
remainder, never negative, by the number of rows of a table. JAX has 32-bit
integers unless told otherwise, so the sum is kept in four limbs of 16 bits: the
same rows, on the device, hence also in the loop that generates.

Axes: b rows, t positions.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

# One of the code's, for each hash function in turn.
PRIMES = (
  *(1000000007, 5915587277, 1500450271, 3267000013, 5754853343, 4093082899),
  *(9576890767, 3628273133, 2860486313, 5463458053, 3367900313),
)

_BITS = 16
_MASK = (1 << _BITS) - 1
MAX_TOKENS = 1 << _BITS  # Ids, exclusive: products stay below 2**32.
MAX_ROWS = 1 << 24  # Rows, inclusive: remainders times 2**8 stay below 2**32.


def rows(
  window_bt: list[Int[Array, 'b t']], prime: int, num_rows: int
) -> Int[Array, 'b t']:
  """The row of a table for each n-gram.

  Args:
    window_bt: The tokens of each n-gram, the oldest first: n arrays of ids
      below `MAX_TOKENS`.
    prime: One of `PRIMES`; static.
    num_rows: Rows of the table, at most `MAX_ROWS`; static.
  """
  limbs = [jnp.zeros(window_bt[0].shape, jnp.uint32) for _ in range(4)]
  for i, token_bt in enumerate(window_bt):
    token_bt = token_bt.astype(jnp.uint32)
    factor, carry_bt = pow(prime, i, 1 << 64), jnp.uint32(0)
    for j in range(4):
      digit = jnp.uint32((factor >> (_BITS * j)) & _MASK)
      # (2**16 - 1)**2 + 2 (2**16 - 1) = 2**32 - 1.
      total_bt = token_bt * digit + limbs[j] + carry_bt
      limbs[j], carry_bt = total_bt & _MASK, total_bt >> _BITS
  rest_bt = jnp.zeros_like(limbs[0])
  for limb_bt in reversed(limbs):
    for shift in (8, 0):
      rest_bt = (rest_bt * 256 + ((limb_bt >> shift) & 255)) % num_rows
  # As a signed number it is less by 2**64 if the highest bit is set.
  wrap = jnp.uint32(num_rows - pow(2, 64, num_rows))
  is_negative_bt = limbs[3] >> (_BITS - 1) == 1
  signed_bt = jnp.where(is_negative_bt, rest_bt + wrap, rest_bt) % num_rows
  return signed_bt.astype(jnp.int32)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact equality with 64-bit integers, and with `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.nn import ngram_hash


def windows(tokens, n):
  padded = np.pad(tokens, ((0, 0), (n - 1, 0)))
  return [padded[:, i : i + tokens.shape[1]] for i in range(n)]


def in_numpy(tokens, n, prime, num_rows):
  with np.errstate(over='ignore'):  # It is meant to wrap.
    total, power = np.zeros(tokens.shape, np.int64), np.int64(1)
    for part in windows(tokens, n):
      total = total + part.astype(np.int64) * power
      power = power * np.int64(prime)
  return total % num_rows


CASES = [(3, 0, 500_002), (8, 0, 500_002), (8, 1, 500_002), (5, 6, 1 << 24)]


@pytest.mark.parametrize('n, which, num_rows', CASES)
@pytest.mark.parametrize('vocab', [260, 65_536])
def test_rows_equal_those_of_64_bit_integers(n, which, num_rows, vocab):
  tokens = np.random.default_rng(n).integers(0, vocab, (2, 500))
  tokens[:, :20] = vocab - 1
  prime = ngram_hash.PRIMES[which]
  window = [jnp.asarray(x, jnp.int32) for x in windows(tokens, n)]
  call = jax.jit(lambda w: ngram_hash.rows(w, prime, num_rows))
  want = in_numpy(tokens, n, prime, num_rows)
  np.testing.assert_array_equal(call(window), want)
  assert 0 <= want.min() < want.max() < num_rows


@pytest.mark.torch
def test_rows_equal_those_of_transformers():
  torch = pytest.importorskip('torch')
  blt = pytest.importorskip('transformers.models.blt.modeling_blt')
  tokens = np.random.default_rng(0).integers(0, 260, (2, 300))
  for n in range(3, 9):
    for prime in ngram_hash.PRIMES[:3]:
      want = blt.byte_group_hash_function(
        torch.tensor(tokens), n, prime, 500_002
      )
      window = [jnp.asarray(x, jnp.int32) for x in windows(tokens, n)]
      got = ngram_hash.rows(window, prime, 500_002)
      np.testing.assert_array_equal(got, want.numpy())

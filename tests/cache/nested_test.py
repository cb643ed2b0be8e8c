# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The cache of two levels: what it counts, forgets and copies."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.cache import kv, nested


def make(max_len=6, max_units=6):
  level = lambda n: kv.KVCache.empty(
    num_layers=1, batch_size=2, max_len=n, num_kv_heads=1, head_dim=2
  )
  return nested.NestedCache.empty((level(max_len),), level(max_units))


def extend(cache, tokens, is_unit):
  """Tokens whose units are stored one by one, as a model does."""
  tokens, is_unit = jnp.asarray(tokens), jnp.asarray(is_unit, bool)
  t, trunk = tokens.shape[1], cache.trunk
  longer, slots = cache.reserve(tokens)
  local = longer.local[0].reserve(None, None, t)[0]
  trunk = trunk.reserve(None, None, t)[0]  # Room for a unit per token.
  longer = longer.add_units(is_unit, slots, trunk)
  return dataclasses.replace(longer, local=(local,))


def test_units_are_counted_per_row_and_rolled_back_by_bytes():
  cache = extend(make(), [[5, 6, 7], [8, 9, 4]], [[1, 0, 1], [0, 0, 1]])
  np.testing.assert_array_equal(cache.length_b, [3, 3])
  np.testing.assert_array_equal(cache.trunk.length_b, [2, 1])
  cache = extend(cache, [[1], [2]], [[0], [1]])
  np.testing.assert_array_equal(cache.trunk.length_b, [2, 2])
  np.testing.assert_array_equal(
    cache.tokens_bs[:, :4], [*([5, 6, 7, 1], [8, 9, 4, 2])]
  )
  back = cache.truncate(jnp.array([2, 3]))
  np.testing.assert_array_equal(back.length_b, [2, 3])
  np.testing.assert_array_equal(back.local[0].length_b, [2, 3])
  np.testing.assert_array_equal(back.trunk.length_b, [1, 1])
  empty = cache.truncate(0)
  np.testing.assert_array_equal(empty.trunk.length_b, [0, 0])


def test_rows_are_copied_with_all_levels():
  cache = extend(make(), [[5, 6], [8, 9]], [[1, 0], [1, 1]])
  forked = cache.fork(2)
  np.testing.assert_array_equal(forked.trunk.length_b, [1, 1, 2, 2])
  picked = cache.gather(jnp.array([1]))
  np.testing.assert_array_equal(picked.tokens_bs[0, :2], [8, 9])
  assert picked.local[0].batch_size == 1


def test_what_finds_no_room_is_said():
  cache = extend(make(max_units=3), [[1, 2, 3]] * 2, [[1, 1, 1], [0, 0, 1]])
  assert not cache.overflow_b.any()
  cache = extend(cache, [[1, 2]] * 2, [[1, 0], [1, 0]])
  np.testing.assert_array_equal(cache.overflow_b, [True, False])
  cache = extend(make(), [[1] * 4] * 2, [[0] * 4] * 2)
  assert extend(cache, [[1] * 3] * 2, [[0] * 3] * 2).overflow_b.all()
  with pytest.raises(ValueError, match='7 tokens do not fit into a cache of'):
    make().reserve(jnp.zeros((2, 7), jnp.int32))

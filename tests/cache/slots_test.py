# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.cache import slots


def add(cache, value, num):
  cache, slots_bt = cache.reserve(jnp.full((2, num), 1 + value % 3))
  new = jnp.broadcast_to(value + jnp.arange(num)[:, None] / 10, (2, num, 3))
  return cache.put('x', slots_bt, new)


def test_rows_are_filled_rolled_back_and_chosen_on_their_own():
  cache = slots.SlotCache.empty({'x': jnp.zeros((2, 6, 3))})
  cache = add(cache, 1, 4).truncate(jnp.asarray([1, 3]))
  cache = add(cache, 5, 2)
  np.testing.assert_array_equal(cache.length_b, [3, 5])
  np.testing.assert_allclose(
    cache.states['x'][..., 0],
    [[1, 5, 5.1, 1.3, 0, 0], [1, 1.1, 1.2, 5, 5.1, 0]],
    rtol=1e-6,
  )
  # Behind the end there is no document, whatever stands there.
  np.testing.assert_array_equal(
    cache.documents_bs, [[2, 3, 3, 0, 0, 0], [2, 2, 2, 3, 3, 0]]
  )
  forked = cache.gather(jnp.asarray([1])).fork(2)
  np.testing.assert_array_equal(forked.length_b, [5, 5])
  np.testing.assert_array_equal(forked.states['x'][1], cache.states['x'][1])


def test_overflow_is_reported_and_overwrites_nothing():
  cache = slots.SlotCache.empty({'x': jnp.zeros((2, 6, 3))})
  cache = add(add(cache, 1, 4), 5, 3)
  assert cache.overflow_b.all()
  np.testing.assert_allclose(
    cache.states['x'][0, :, 0], [1, 1.1, 1.2, 1.3, 5, 5.1], rtol=1e-6
  )
  assert not cache.truncate(6).overflow_b.any()
  with pytest.raises(ValueError, match='7 tokens do not fit into a cache of'):
    cache.reserve(jnp.ones((2, 7), jnp.int32))

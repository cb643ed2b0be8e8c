# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import cache_write
from jaxtok_kernels.cache_write import reference


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


SLOTS = jnp.array([[4, 0, -1], [2, 6, 9]])  # -1 and 9 (of 7) are dropped.


def test_new_tokens_land_in_their_slots_and_nowhere_else():
  args = draw(2, 7, 2, 4), draw(2, 7, 2, 4, seed=1)
  new = draw(2, 3, 2, 4, seed=2), draw(2, 3, 2, 4, seed=3)
  got = jax.jit(cache_write.write_kv)(*args, *new, SLOTS)
  want = reference.write_kv(*args, *new, SLOTS)
  for x, y in zip(got, want, strict=True):
    np.testing.assert_array_equal(x, y)


def test_rows_of_a_pool_interleave_keys_and_values():
  rows = draw(7, 4, 4)
  new = draw(2, 3, 2, 4, seed=2), draw(2, 3, 2, 4, seed=3)
  got = jax.jit(cache_write.write_rows)(rows, *new, SLOTS)
  want = reference.write_rows(rows, *new, np.asarray(SLOTS))
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('layers', [0, 3])
def test_accepted_drafts_move_behind_the_cache(layers):
  cache = draw(2, 9, 2, 4)
  length = jnp.array([3, 1])
  # The first sequence overlaps: slot 4 is read after 3 was written.
  accept = jnp.array([[1, 2, 5], [0, 7, -1]])
  want = reference.compact_kv(cache, length, accept)
  if layers:
    cache = jnp.stack([cache + i for i in range(layers)])
    want = np.stack([want + i for i in range(layers)])
  got = jax.jit(cache_write.compact_kv)(cache, length, accept)
  np.testing.assert_array_equal(got, want)


def test_ring_keeps_the_sinks_and_the_latest_tokens():
  positions = jnp.arange(23)
  slots = cache_write.ring_slots(positions, 2, 5)
  np.testing.assert_array_equal(slots, reference.ring_slots(positions, 2, 5))
  last = {int(s): int(p) for p, s in zip(positions, slots, strict=True)}
  assert sorted(last.values()) == [0, 1, 18, 19, 20, 21, 22]


def test_a_donated_cache_is_updated_without_a_copy():
  cache = jax.ShapeDtypeStruct((4, 512, 2, 16), jnp.float32)
  new = jax.ShapeDtypeStruct((4, 1, 2, 16), jnp.float32)
  slots = jax.ShapeDtypeStruct((4, 1), jnp.int32)
  step = jax.jit(cache_write.write_kv, donate_argnums=(0, 1))
  compiled = step.lower(cache, cache, new, new, slots).compile()
  size = 4 * 512 * 2 * 16 * 4
  stats = compiled.memory_analysis()
  assert stats.alias_size_in_bytes == 2 * size
  assert stats.temp_size_in_bytes < size // 4
  whole = 'f32[4,512,2,16]'
  copies = [x for x in compiled.as_text().splitlines() if ' copy(' in x]
  assert not [x for x in copies if whole in x.split(' copy(')[0]]


def test_wrong_shapes_are_named():
  cache, new = draw(2, 7, 2, 4), draw(2, 2, 2, 4)
  with pytest.raises(ValueError, match='k_new_btkh has shape'):
    cache_write.write_kv(cache, cache, new, new, SLOTS)
  with pytest.raises(ValueError, match=r'rows must be \[r, 4, 4\]'):
    cache_write.write_rows(cache[0], new, new, SLOTS)
  with pytest.raises(ValueError, match='must have 2 rows'):
    cache_write.compact_kv(cache, jnp.zeros(3), SLOTS)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache writes, XLA and interpreted Pallas, against one token at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import _compat, cache_write, last_dispatch
from jaxtok_kernels.cache_write import cost, tpu

from tests.kernels import cache_oracle, interpreted


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


SLOTS = jnp.array([[4, 0, -1], [2, 6, 9]])  # -1 and 9 (of 7) are dropped.


IMPLEMENTATIONS = ['reference', 'xla', 'tpu', 'triton']
# Where Pallas runs the same kernel as elsewhere.
SELDOM = [
  'reference',
  'xla',
  *(pytest.param(x, marks=pytest.mark.slow) for x in IMPLEMENTATIONS[2:]),
]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
  """Two steps for six tokens; heads of three need two pieces on GPUs."""
  monkeypatch.setattr(cost, 'tokens_per_step', lambda: 4)
  monkeypatch.setattr(cost, 'triton_columns', lambda: 4)


def run(implementation, fn, *args, params=True, **static):
  fn = functools.partial(fn, implementation=implementation, **static)
  return interpreted.run(fn, *args, params=params)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_new_tokens_land_in_their_slots_and_nowhere_else(implementation):
  args = draw(2, 7, 2, 3), draw(2, 7, 2, 3, seed=1)
  new = draw(2, 3, 2, 3, seed=2), draw(2, 3, 2, 3, seed=3)
  got = run(implementation, cache_write.write_kv, *args, *new, SLOTS)
  want = cache_oracle.write_kv(*args, *new, SLOTS)
  for x, y in zip(got, want, strict=True):
    np.testing.assert_array_equal(x, y)
  assert last_dispatch().kernel == 'write_kv'
  assert last_dispatch().chosen == {'any': implementation}


@pytest.mark.parametrize('implementation', SELDOM)
def test_rows_of_a_pool_interleave_keys_and_values(implementation):
  rows = draw(7, 4, 4)
  new = draw(2, 3, 2, 4, seed=2), draw(2, 3, 2, 4, seed=3)
  got = run(implementation, cache_write.write_rows, rows, *new, SLOTS)
  want = cache_oracle.write_rows(rows, *new, np.asarray(SLOTS))
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
  ('layers', 'implementation'),
  [(2, x) for x in IMPLEMENTATIONS] + [(0, 'reference'), (0, 'xla')],
)
def test_accepted_drafts_move_behind_the_cache(layers, implementation):
  cache = draw(2, 9, 2, 4)
  length = jnp.array([3, 1])
  # The first sequence overlaps: slot 4 is read after 3 was written.
  accept = jnp.array([[1, 2, 5], [0, 7, -1]])
  want = cache_oracle.compact_kv(cache, length, accept)
  if layers:
    cache = jnp.stack([cache + i for i in range(layers)])
    want = np.stack([want + i for i in range(layers)])
  got = run(implementation, cache_write.compact_kv, cache, length, accept)
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('implementation', ['reference', 'xla'])
def test_writes_pass_gradients_to_what_stays_and_to_what_is_written(
  implementation,
):
  """Compared with the derivatives of the scatters themselves."""
  cache, new = draw(2, 7, 2, 4), draw(2, 3, 2, 4, seed=1)
  cotangent = draw(2, 7, 2, 4, seed=2)

  def written(cache, new):
    return cache_write.write_kv(
      cache, 2 * cache, new, 3 * new, SLOTS, implementation=implementation
    )

  def plain(cache, new):
    row = jnp.arange(2)[:, None]
    put = lambda x, y: x.at[row, SLOTS % 16].set(y, mode='drop')
    return put(cache, new), put(2 * cache, 3 * new)

  def loss(write, cache, new):
    k, v = write(cache, new)
    if write is written:
      accept = jnp.array([[1, 2, -1], [0, 4, -1]])
      k = cache_write.compact_kv(
        k, jnp.array([3, 1]), accept, implementation=implementation
      )
    else:
      k = k.at[0, 3:5].set(k[0, 4:6])
      k = k.at[1, 1:3].set(k[1, jnp.array([1, 5])])
    return ((k + v) * cotangent).sum()

  got, want = (
    jax.jit(jax.grad(functools.partial(loss, x), argnums=(0, 1)))(cache, new)
    for x in (written, plain)
  )
  for x, y in zip(got, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-6)


def with_races(mode):
  params = pltpu.InterpretParams(
    detect_races=True, uninitialized_memory='nan', dma_execution_mode=mode
  )
  cache, accept = draw(1, 9, 1, 4), jnp.array([[1, 3]])
  length = jnp.array([3])
  got = run('tpu', cache_write.compact_kv, cache, length, accept, params=params)
  races = _compat.tpu_races()
  pltpu.reset_tpu_interpret_mode_state()
  return got, cache_oracle.compact_kv(cache, length, accept), races


@pytest.mark.parametrize(
  'mode', ['on_wait', pytest.param('eager', marks=pytest.mark.slow)]
)
def test_rows_are_read_before_they_are_written(mode):
  got, want, races = with_races(mode)
  assert not races
  np.testing.assert_array_equal(got, want)


def test_the_race_detector_finds_a_missing_wait(monkeypatch):
  """Without it the test above would prove nothing."""
  monkeypatch.setattr(tpu, '_wait', lambda copy: None)
  jax.clear_caches()  # Of the kernel with its waits.
  assert with_races('eager')[2]
  jax.clear_caches()


def test_ring_keeps_the_sinks_and_the_latest_tokens():
  positions = jnp.arange(23)
  slots = cache_write.ring_slots(positions, 2, 5)
  np.testing.assert_array_equal(slots, cache_oracle.ring_slots(positions, 2, 5))
  last = {int(s): int(p) for p, s in zip(positions, slots, strict=True)}
  assert sorted(last.values()) == [0, 1, 18, 19, 20, 21, 22]


def test_the_latest_tokens_of_a_long_write_stay_in_the_ring():
  cache = jnp.zeros((2, 7, 1, 2))
  positions = jnp.arange(13) + jnp.array([[0], [40]])
  new = positions[:, :, None, None] * jnp.ones((1, 1, 1, 2))
  k, v = cache_write.ring_write(
    cache, cache, new, -new, positions, num_sinks=2, window=5
  )
  assert sorted(k[0, :, 0, 0].tolist()) == [0, 1, 8, 9, 10, 11, 12]
  assert sorted(k[1, :, 0, 0].tolist()) == [0, 0, 48, 49, 50, 51, 52]
  np.testing.assert_array_equal(v, -k)
  with pytest.raises(ValueError, match=r'num_sinks \+ window = 8'):
    cache_write.ring_write(
      cache, cache, new, new, positions, num_sinks=2, window=6
    )


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
  # Slots of the longer cache would be rows of its next sequence.
  longer = draw(2, 9, 2, 4)
  for caches in ((cache, longer), (longer, cache)):
    with pytest.raises(ValueError, match='the same sequences and slots'):
      cache_write.write_kv(*caches, new, new, SLOTS[:, :2])
  with pytest.raises(ValueError, match='must have 2 rows'):
    cache_write.write_kv(cache, cache, new[:1], new[:1], SLOTS[:1, :2])
  with pytest.raises(ValueError, match=r'rows must be \[r, 4, 4\]'):
    cache_write.write_rows(cache[0], new, new, SLOTS)
  with pytest.raises(ValueError, match='must have 2 rows'):
    cache_write.compact_kv(cache, jnp.zeros(3), SLOTS)

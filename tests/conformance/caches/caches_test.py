# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every KV cache promises: to do what lists in Python do.

A cache joins with one line in `CACHES`: a function that makes an empty one.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.cache import kv

B, SLOTS, K, H, LAYERS = 3, 16, 2, 4, 2
SIZES = dict(
  num_layers=LAYERS, batch_size=B, max_len=SLOTS, num_kv_heads=K, head_dim=H
)
CACHES = {
  'contiguous': lambda: kv.KVCache.empty(**SIZES),
}


class Lists:
  """The oracle: per row a list of (keys, values, position), all layers."""

  def __init__(self):
    self.rows = [[] for _ in range(B)]

  def append(self, k, v, positions):
    for b, row in enumerate(self.rows):
      for t in range(k.shape[2]):
        row.append((k[:, b, t], v[:, b, t], positions[b, t]))

  def truncate(self, lengths):
    self.rows = [r[:n] for r, n in zip(self.rows, lengths, strict=True)]

  def gather(self, rows):
    self.rows = [list(self.rows[r]) for r in rows]

  def evict(self, keep):
    self.rows = [
      [x for x, kept in zip(row, keeps, strict=False) if kept]
      for row, keeps in zip(self.rows, keep, strict=True)
    ]

  def check(self, cache):
    lengths = [len(row) for row in self.rows]
    np.testing.assert_array_equal(cache.length_b, lengths)
    assert not np.asarray(cache.overflow_b).any()
    for layer in range(LAYERS):
      k, v, positions, valid = map(np.asarray, cache.view(layer))
      np.testing.assert_array_equal(valid.sum(axis=1), lengths)
      for b, row in enumerate(self.rows):
        seen = valid[b]
        stack = lambda i, row=row: [x[i] for x in row]
        if row:
          np.testing.assert_array_equal(
            k[b, seen], [x[layer] for x in stack(0)]
          )
          np.testing.assert_array_equal(
            v[b, seen], [x[layer] for x in stack(1)]
          )
          np.testing.assert_array_equal(positions[b, seen], stack(2))


def _append(cache, lists, rng, num):
  k, v = rng.normal(size=(2, LAYERS, B, num, K, H)).astype(np.float32)
  positions = rng.integers(0, 100, (B, num))
  lists.append(k, v, positions)
  return cache.append(
    [jnp.asarray(x) for x in k],
    [jnp.asarray(x) for x in v],
    jnp.asarray(positions),
  )


@pytest.mark.parametrize('name', CACHES)
def test_any_sequence_of_operations_equals_lists(name):
  rng = np.random.default_rng(0)
  for _ in range(3):
    cache, lists = CACHES[name](), Lists()
    for _ in range(12):
      lengths = np.array([len(row) for row in lists.rows])
      choice = rng.choice(['append', 'append', 'truncate', 'gather', 'evict'])
      if choice == 'append' and lengths.max() + 3 <= SLOTS:
        cache = _append(cache, lists, rng, int(rng.choice([1, 3])))
      elif choice == 'truncate':
        to = rng.integers(0, SLOTS + 1, B)
        cache = cache.truncate(jnp.asarray(to))
        lists.truncate(to)
      elif choice == 'gather':
        rows = rng.integers(0, B, B)
        cache = cache.gather(jnp.asarray(rows))
        lists.gather(rows)
      elif choice == 'evict':
        keep = rng.random((B, SLOTS)) < 0.7
        cache = cache.evict(jnp.asarray(keep))
        lists.evict(keep)
      lists.check(cache)


@pytest.mark.parametrize('name', CACHES)
def test_fork_copies_rows_side_by_side(name):
  rng = np.random.default_rng(1)
  cache, lists = CACHES[name](), Lists()
  cache = _append(cache, lists, rng, 3)
  cache = cache.truncate(jnp.array([1, 2, 3])).fork(2)
  lists.truncate([1, 2, 3])
  lists.gather([0, 0, 1, 1, 2, 2])
  lists.check(cache)


@pytest.mark.parametrize('name', CACHES)
def test_operations_leave_the_old_cache_as_it_was(name):
  rng = np.random.default_rng(2)
  cache, lists = CACHES[name](), Lists()
  cache = _append(cache, lists, rng, 3)
  _append(cache, Lists(), rng, 1)
  cache.truncate(0)
  cache.evict(jnp.zeros((B, SLOTS), bool))
  lists.check(cache)


@pytest.mark.parametrize('name', CACHES)
def test_overflow_is_reported_and_overwrites_nothing(name):
  rng = np.random.default_rng(3)
  cache, lists = CACHES[name](), Lists()
  cache = _append(cache, lists, rng, SLOTS - 1)
  cache = cache.truncate(jnp.array([SLOTS - 1, SLOTS - 2, SLOTS - 3]))
  lists.truncate([SLOTS - 1, SLOTS - 2, SLOTS - 3])
  cache = _append(cache, lists, rng, 3)
  np.testing.assert_array_equal(cache.overflow_b, [True, True, False])
  np.testing.assert_array_equal(cache.length_b, [SLOTS + 2, SLOTS + 1, SLOTS])
  # Rolled back into what was stored, nothing is lost.
  lists.truncate([SLOTS] * B)
  lists.check(cache.truncate(SLOTS))


@pytest.mark.parametrize('name', CACHES)
def test_more_tokens_than_slots_are_refused_at_once(name):
  x = [jnp.zeros((B, SLOTS + 1, K, H))] * LAYERS
  with pytest.raises(ValueError, match=f'{SLOTS + 1} tokens do not fit'):
    CACHES[name]().append(x, x)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache writes in NumPy, one token at a time."""

import numpy as np


def write_kv(k_bskh, v_bskh, k_new_btkh, v_new_btkh, slots_bt):
  """Copies of the caches with the new tokens written to their slots."""
  k, v = np.array(k_bskh), np.array(v_bskh)
  for b, t in np.ndindex(*np.shape(slots_bt)):
    slot = int(slots_bt[b, t])
    if 0 <= slot < k.shape[1]:
      k[b, slot], v[b, slot] = k_new_btkh[b, t], v_new_btkh[b, t]
  return k, v


def write_rows(rows_rch, k_new_btkh, v_new_btkh, slots_bt):
  """A copy of the interleaved rows with the new tokens written."""
  rows = np.array(rows_rch)
  for b, t in np.ndindex(*np.shape(slots_bt)):
    slot = int(slots_bt[b, t])
    if 0 <= slot < rows.shape[0]:
      rows[slot, 0::2] = k_new_btkh[b, t]
      rows[slot, 1::2] = v_new_btkh[b, t]
  return rows


def compact_kv(cache_bskh, cache_len_b, accept_bg):
  """A copy of the cache with accepted drafts moved behind the cache."""
  cache = np.array(cache_bskh)
  for b, row in enumerate(np.asarray(accept_bg)):
    start = int(cache_len_b[b])
    kept = [int(x) for x in row if x >= 0]
    cache[b, start : start + len(kept)] = np.asarray(cache_bskh)[
      b, [start + x for x in kept]
    ]
  return cache


def ring_slots(positions, num_sinks, window):
  """Slot of each position in a cache of sinks followed by a ring."""
  return np.array(
    [
      p if p < num_sinks else num_sinks + (p - num_sinks) % window
      for p in np.ravel(positions)
    ]
  ).reshape(np.shape(positions))

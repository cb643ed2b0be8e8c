# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps a function over inputs in threads, for code that releases the GIL."""

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Below this, starting threads costs more than it saves.
_MIN_BYTES_PER_THREAD = 1 << 18


def usable_cores() -> int:
  """Cores that this process may run on."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def map_bytes(
  function: Callable[[bytes], Any],
  inputs: Sequence[bytes],
  num_threads: int | None,
) -> list[Any]:
  """`[function(x) for x in inputs]`, in threads of about equal bytes.

  Args:
    function: Called once per input.
    inputs: Byte strings.
    num_threads: None: as many as there are cores and work for.
  """
  if num_threads is not None and num_threads < 1:
    raise ValueError(f'num_threads must be >= 1 or None, got {num_threads}.')
  ends = np.cumsum([len(x) for x in inputs], dtype=np.int64)
  total = int(ends[-1]) if len(ends) else 0
  if num_threads is None:
    num_threads = min(usable_cores(), 1 + total // _MIN_BYTES_PER_THREAD)
  num_threads = min(num_threads, len(inputs))
  if num_threads <= 1:
    return [function(x) for x in inputs]
  targets = np.arange(1, num_threads) * total / num_threads
  cuts = [0, *np.searchsorted(ends, targets), len(inputs)]
  shards = [inputs[a:b] for a, b in itertools.pairwise(cuts)]
  work = lambda shard: [function(x) for x in shard]
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    return [row for rows in pool.map(work, shards) for row in rows]

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


def cut(sizes: Sequence[int], num: int) -> list[int]:
  """Cuts inputs into `num` neighbourhoods of about equal size.

  Returns:
    `num + 1` rising indices, from 0 to the number of inputs; each cut is at
    the edge of an input that is nearest to equal shares.
  """
  ends = np.cumsum(sizes, dtype=np.int64)
  middles = ends - np.asarray(sizes) / 2
  targets = np.arange(1, num) * ends[-1] / num
  return [0, *np.searchsorted(middles, targets).tolist(), len(sizes)]


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
  sizes = [len(x) for x in inputs]
  total = sum(sizes)
  if num_threads is None:
    num_threads = min(usable_cores(), 1 + total // _MIN_BYTES_PER_THREAD)
  num_threads = min(num_threads, len(inputs))
  if num_threads <= 1:
    return [function(x) for x in inputs]
  cuts = cut(sizes, num_threads)
  shards = [inputs[a:b] for a, b in itertools.pairwise(cuts)]
  work = lambda shard: [function(x) for x in shard]
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    return [row for rows in pool.map(work, shards) for row in rows]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Work of shared-prefix attention and its tile sizes."""

from collections.abc import Sequence

from jaxtok_kernels.hardware import Work


def sequences_per_tile(b: int, t: int, rows: int = 256) -> int:
  """Sequences whose queries share a tile of about `rows` rows per head."""
  return max(1, min(b, rows // t))


def prefix_splits(p: int, programs: int, processors: int = 132) -> int:
  """Parts of a prefix that are read side by side on a GPU.

  The fewest that leave at most a sixth of the processors' time unused, of parts
  of at least 1024 keys; the best there are if none does.

  Args:
    p: Keys of a prefix.
    programs: Programs without splitting.
    processors: Of the GPU; the default is that of an H100 and an H200.
  """

  def used(splits: int) -> float:
    waves = -(-programs * splits // processors)
    return programs * splits / (waves * processors)

  fits = [x for x in (1, 2, 4, 8, 16) if p % x == 0 and p // x >= 1024] or [1]
  good = [x for x in fits if used(x) >= 5 / 6]
  return good[0] if good else max(fits, key=used)


def forward(
  *,
  prefix_lens: Sequence[int],
  prefix_rows: Sequence[int],
  suffix_lens: Sequence[int],
  t: int,
  num_heads: int,
  num_kv_heads: int,
  head_dim: int,
  itemsize: int = 2,
) -> Work:
  """Work of one call.

  Args:
    prefix_lens: Keys of each prefix, over all levels.
    prefix_rows: Sequences that use it.
    suffix_lens: Keys of each sequence's suffix.
    t: New tokens per sequence.
    num_heads: Query heads.
    num_kv_heads: Key heads.
    head_dim: Width of a head.
    itemsize: Bytes per element.
  """
  pairs = sum(suffix_lens) + sum(
    p * rows for p, rows in zip(prefix_lens, prefix_rows, strict=True)
  )
  keys = sum(suffix_lens) + sum(prefix_lens)
  queries = len(suffix_lens) * t * num_heads * (2 * head_dim * itemsize + 4)
  return Work(
    flops=4.0 * t * num_heads * head_dim * pairs,
    num_bytes=2.0 * num_kv_heads * head_dim * itemsize * keys + queries,
    exps=float(t * num_heads * pairs),
  )


def unshared(**sizes) -> Work:
  """The same attention with every sequence reading its prefix itself."""
  shared = forward(**sizes)
  pairs = shared.exps / (sizes['t'] * sizes['num_heads'])
  per_key = (
    2.0 * sizes['num_kv_heads'] * sizes['head_dim'] * sizes.get('itemsize', 2)
  )
  keys = sum(sizes['suffix_lens']) + sum(sizes['prefix_lens'])
  return Work(
    shared.flops, shared.num_bytes + per_key * (pairs - keys), shared.exps
  )

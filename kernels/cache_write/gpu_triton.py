# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache writes for NVIDIA GPUs (Pallas Triton), in place by aliasing.

Grid (tokens, columns / 1024): a program copies a piece of one token.
Bytes: the new tokens twice. Moving rows within a cache is a gather by XLA
before the write: the programs of one launch have no order.

docs/kernels.md says what was verified how, and the times on an H200.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtok_kernels.cache_write import cost


def unsupported(pools: tuple[jax.Array, ...]) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  del pools
  return None


def scatter(
  pools: tuple[jax.Array, ...],
  news: tuple[jax.Array, ...],
  rows_m: jax.Array,
  *,
  interpret: Any = False,
) -> tuple[jax.Array, ...]:
  """Writes `new[i]` to `pool[rows[i]]` of each pair; as the TPU form."""
  flat = lambda x: x.reshape(x.shape[0], -1)
  wide, tall = [flat(x) for x in news], [flat(x) for x in pools]
  num, m = len(pools), rows_m.shape[0]
  size = max(x.shape[1] for x in wide)
  block = min(cost.triton_columns(), 1 << (size - 1).bit_length())
  # Row numbers are data, so a program sees all rows of its columns.
  columns = [
    pl.BlockSpec((x.shape[0], block), lambda i, j: (0, j)) for x in tall
  ]
  token = pl.BlockSpec((None, block), lambda i, j: (i, j))
  out = pl.pallas_call(
    functools.partial(_kernel, num, block, [x.shape[1] for x in wide]),
    grid=(m, -(-size // block)),
    in_specs=[
      pl.BlockSpec((None,), lambda i, j: (i,)),
      *(token for _ in wide),
      *columns,
    ],
    out_specs=columns,
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in tall],
    input_output_aliases={1 + num + i: i for i in range(num)},
    compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
    interpret=interpret,
    name='write_kv',
  )(rows_m, *wide, *tall)
  return tuple(x.reshape(y.shape) for x, y in zip(out, pools, strict=True))


def _kernel(num: int, block: int, sizes, row, *refs) -> None:
  news, pools = refs[:num], refs[2 * num :]
  row = row[...]
  column = pl.program_id(1) * block + jnp.arange(block)
  for new, pool, size in zip(news, pools, sizes, strict=True):
    inside = column < size
    x = plt.load(new, mask=inside, other=0)
    target = pool.at[jnp.maximum(row, 0), pl.ds(0, block)]
    plt.store(target, x, mask=inside & (row >= 0))


def compact(
  pool: jax.Array,
  source_xg: jax.Array,
  target_xg: jax.Array,
  *,
  interpret: Any = False,
) -> jax.Array:
  """Moves rows within a pool; as the TPU form."""
  moved = pool[source_xg.ravel()]
  (pool,) = scatter((pool,), (moved,), target_xg.ravel(), interpret=interpret)
  return pool

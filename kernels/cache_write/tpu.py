# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache writes for TPU: one DMA per token into caches that stay in HBM.

The caches are aliased with the outputs, so that donated ones are updated in
place. A token of all heads `[c, h]` is a whole number of tiles, however many
heads there are, so that no tile is read to be written.
scatter: grid (token tiles); rows in SMEM, new tokens in VMEM.
compact: grid (pieces); all rows of a piece are read before one is written.
Bytes: the new tokens twice.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels.cache_write import cost


def unsupported(pools: tuple[jax.Array, ...]) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  del pools
  return None


def _in_smem(tile: int):
  return pl.BlockSpec(
    (1, 1, tile), lambda i: (i, 0, 0), memory_space=pltpu.SMEM
  )


_HBM = pl.BlockSpec(memory_space=pl.ANY)


def scatter(
  pools: tuple[jax.Array, ...],
  news: tuple[jax.Array, ...],
  rows_m: jax.Array,
  *,
  interpret: Any = False,
) -> tuple[jax.Array, ...]:
  """Writes `new[i]` to `pool[rows[i]]` of each pair.

  Args:
    pools: `[r, c, h]` each.
    news: `[m, c, h]` each, of the pools' types.
    rows_m: int32, distinct; negative ones are dropped.
    interpret: As for `pallas_call`.
  """
  m = rows_m.shape[0]
  tile = min(m, cost.tokens_per_step())
  number = -(-m // tile)
  rows = jnp.pad(rows_m, (0, number * tile - m), constant_values=-1)
  block = lambda x: pl.BlockSpec((tile, *x.shape[1:]), lambda i: (i, 0, 0))
  return tuple(
    pl.pallas_call(
      functools.partial(_scatter_kernel, len(pools)),
      grid=(number,),
      in_specs=[_in_smem(tile), *map(block, news), *(_HBM for _ in pools)],
      out_specs=[_HBM for _ in pools],
      out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in pools],
      input_output_aliases={1 + len(pools) + i: i for i in range(len(pools))},
      scratch_shapes=[pltpu.SemaphoreType.DMA],
      compiler_params=pltpu.CompilerParams(dimension_semantics=('arbitrary',)),
      interpret=interpret,
      name='write_kv',
    )(rows.reshape(number, 1, tile), *news, *pools)
  )


def _wait(copy) -> None:
  """A function of its own, so that a test can leave it out."""
  copy.wait()


def _scatter_kernel(num: int, rows, *refs) -> None:
  news, pools, sem = refs[:num], refs[2 * num : 3 * num], refs[-1]

  def each(use):
    @pl.loop(0, rows.shape[2])
    def _(i):
      row = rows[0, 0, i]

      @pl.when(row >= 0)
      def _():
        for new, pool in zip(news, pools, strict=True):
          use(pltpu.make_async_copy(new.at[i], pool.at[row], sem))

  each(lambda copy: copy.start())
  each(_wait)


def compact(
  pool: jax.Array,
  source_xg: jax.Array,
  target_xg: jax.Array,
  *,
  interpret: Any = False,
) -> jax.Array:
  """Moves rows within a pool, those of a piece at once.

  Args:
    pool: `[r, c, h]`.
    source_xg: int32, rows of `x` pieces; pieces do not touch each other's.
    target_xg: int32; negative ones are dropped.
    interpret: As for `pallas_call`.
  """
  x, g = source_xg.shape
  return pl.pallas_call(
    _compact_kernel,
    grid=(x,),
    in_specs=[_in_smem(g), _in_smem(g), _HBM],
    out_specs=_HBM,
    out_shape=jax.ShapeDtypeStruct(pool.shape, pool.dtype),
    input_output_aliases={2: 0},
    scratch_shapes=[
      pltpu.VMEM((g, *pool.shape[1:]), pool.dtype),
      pltpu.SemaphoreType.DMA,
    ],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('arbitrary',)),
    interpret=interpret,
    name='compact_kv',
  )(source_xg[:, None], target_xg[:, None], pool)


def _compact_kernel(source, target, pool_in, pool, buffer, sem) -> None:
  del pool_in  # Aliased with `pool`.

  def each(use):
    @pl.loop(0, source.shape[2])
    def _(i):
      @pl.when(target[0, 0, i] >= 0)
      def _():
        use(i)

  read = lambda i: pltpu.make_async_copy(
    pool.at[source[0, 0, i]], buffer.at[i], sem
  )
  write = lambda i: pltpu.make_async_copy(
    buffer.at[i], pool.at[target[0, 0, i]], sem
  )
  for copy in (read, write):
    each(lambda i, copy=copy: copy(i).start())
    each(lambda i, copy=copy: _wait(copy(i)))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A stack of blocks with the position information they share."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxtok.nn import block, norms, relative_bias


class Stack(nnx.Module):
  """Blocks one after the other, then a norm (pre-norm stacks only).

  T5's relative bias, if there is one, belongs to the stack: all layers of T5
  share the table of the first.
  """

  def __init__(
    self,
    config: block.Config,
    *,
    num_layers: int,
    bias: relative_bias.RelativeBias | None = None,
    remat: bool = False,
    has_norm: bool = True,
    rngs: nnx.Rngs,
  ):
    """Creates the blocks.

    Args:
      config: Of each block.
      num_layers: How many.
      bias: A relative position bias, or None.
      remat: Whether the backward pass recomputes each block, which then
        keeps only its input.
      has_norm: Whether pre-norm blocks are followed by a norm; not where
        another stack goes on with the residual stream.
      rngs: Source of randomness.
    """
    self.config, self.remat, self.bias = config, remat, bias
    self.blocks = nnx.List(
      block.Block(config, rngs=rngs) for _ in range(num_layers)
    )
    norm = lambda: norms.Norm(
      config.attention.dim, kind=config.norm, eps=config.norm_eps
    )
    self.norm = norm() if config.is_pre_norm and has_norm else None

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    context: block.Context,
    *,
    cache: Any = None,
    cross_kvs: list[Any] | None = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """Returns the states, normalised if there is a norm, and the cache.

    Args:
      x_btd: Embeddings.
      context: What the blocks share; see `block.Context`.
      cache: A `cache.kv.KVCache` with slots reserved, or None.
      cross_kvs: Keys, values and bias of the encoder's states, per block.
      rng: Turns dropout on.
    """
    x_btd, cache = self.run(
      x_btd, context, cache=cache, cross_kvs=cross_kvs, rng=rng
    )
    return (x_btd if self.norm is None else self.norm(x_btd)), cache

  def run(
    self,
    x_btd: Float[Array, 'b t d'],
    context: block.Context,
    *,
    start: int = 0,
    stop: int | None = None,
    cache: Any = None,
    cross_kvs: list[Any] | None = None,
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Any]:
    """The blocks from `start` up to `stop` (static), without the norm."""
    for layer in range(*slice(start, stop).indices(len(self.blocks))):
      key = None if rng is None else jax.random.fold_in(rng, layer)
      cross_kv = None if cross_kvs is None else cross_kvs[layer]
      run = _recomputed if self.remat and cache is None else _run
      x_btd, cache = run(
        self.blocks[layer], x_btd, context, layer, cache, cross_kv, key
      )
    return x_btd, cache


def _run(blk, x_btd, context, layer, cache, cross_kv, rng):
  return blk(
    x_btd, context, layer=layer, cache=cache, cross_kv=cross_kv, rng=rng
  )


def _recomputed(blk, x_btd, context, layer, cache, cross_kv, rng):
  graph, params = nnx.split(blk)

  @jax.checkpoint
  def run(params, x_btd, context, cross_kv, rng):
    merged = nnx.merge(graph, params)
    return _run(merged, x_btd, context, layer, None, cross_kv, rng)[0]

  return run(params, x_btd, context, cross_kv, rng), cache

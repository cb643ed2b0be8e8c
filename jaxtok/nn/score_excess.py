# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How far attention scores exceed a limit: a penalty that keeps them small.

Kallini et al. 2025, arXiv:2410.20771 (the option of MrT5's training code): the
mean of `max(s, 5) - 5` over scores s. With softmax1 a score of a few units is
as much as all others together, so larger ones are not needed; a gate of -30 has
to outweigh them.

The states of each block are computed as without the penalty, and its queries
and keys once more; a compiler that sees both merges them, unless blocks are
recomputed in the backward pass (`remat`).

Axes: b rows, t queries, s keys, n query heads, k key heads, h head width.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtok.nn import attention, block, masks, stack


def excess(
  q_btnh: Float[Array, 'b t n h'],
  k_bskh: Float[Array, 'b s k h'],
  *,
  mask: masks.Mask,
  layout: masks.Layout,
  bias: Float[Array, '#b #n t s'] | None = None,
  scale: float,
  soft_cap: float = 0.0,
  limit: float,
) -> Float[Array, 'b']:
  """Mean of `max(s, limit) - limit` over heads and visible pairs of each row.

  Args:
    q_btnh: Queries.
    k_bskh: Keys.
    mask: Pairs that it hides do not count.
    layout: Where queries and keys stand.
    bias: Part of the scores.
    scale: Multiplies the products.
    soft_cap: See `attention.attention`.
    limit: Scores up to it cost nothing.

  Returns:
    float32; 0 for rows in which no query sees a key.
  """
  b, t, n, h = q_btnh.shape
  k = k_bskh.shape[2]

  @jax.checkpoint  # The scores need not be kept.
  def compute(q_btnh, k_bskh, bias):
    q_btkgh = (q_btnh * scale).reshape(b, t, k, n // k, h)
    score_bkgts = jnp.einsum(
      'btkgh,bskh->bkgts', q_btkgh, k_bskh, preferred_element_type=jnp.float32
    )
    score_bnts = score_bkgts.reshape(b, n, t, -1)
    if soft_cap:
      score_bnts = soft_cap * jnp.tanh(score_bnts / soft_cap)
    if bias is not None:
      score_bnts = score_bnts + bias
    seen_b1ts = masks.visible(mask, layout)[:, None]
    over_bnts = jnp.where(seen_b1ts, jnp.maximum(score_bnts - limit, 0.0), 0.0)
    num_b = jnp.broadcast_to(seen_b1ts, (b, 1, *seen_b1ts.shape[2:])).sum(
      axis=(1, 2, 3), dtype=jnp.float32
    )
    return over_bnts.sum(axis=(1, 2, 3)) / jnp.maximum(n * num_b, 1.0)

  return compute(q_btnh, k_bskh, bias)


def run(
  blocks: stack.Stack,
  x_btd: Float[Array, 'b t d'],
  context: block.Context,
  *,
  bias: Any = None,
  start: int = 0,
  cross_kvs: list[Any] | None = None,
  rng: Array | None = None,
  limit: float,
) -> tuple[Float[Array, 'b t d'], Float[Array, 'b']]:
  """The blocks from `start` on, like `Stack.run`, and the sum of their excess.

  Of blocks with cross-attention that is the one that counts, without the bias
  of its keys; of others self-attention.

  Args:
    blocks: The stack.
    x_btd: Residual stream.
    context: What the blocks share.
    bias: What counts as a part of the scores of self-attention.
    start: First block; static.
    cross_kvs: Keys, values and bias of the encoder's states, per block.
    rng: Turns dropout on.
    limit: See `excess`.

  Returns:
    The residual stream, without the stack's norm, and float32 [b].
  """
  total_b = jnp.zeros(x_btd.shape[0])
  for i, blk in enumerate(blocks.blocks):
    if i < start:
      continue
    if cross_kvs is None:
      total_b += _own(blk, x_btd, context, bias, limit)
    else:
      key = None if rng is None else jax.random.fold_in(rng, i)
      total_b += _cross(blk, x_btd, context, cross_kvs[i], key, limit)
    x_btd, _ = blocks.run(
      x_btd, context, start=i, stop=i + 1, cross_kvs=cross_kvs, rng=rng
    )
  return x_btd, total_b


def _own(blk, x_btd, context, bias, limit):
  layer = blk.attention
  y_btd = blk.attention_norm(x_btd) if blk.config.is_pre_norm else x_btd
  k_bskh, _ = layer.keys_values(y_btd, context.rotation)
  return excess(
    layer.queries(y_btd, context.rotation),
    k_bskh,
    mask=context.mask,
    layout=context.layout,
    bias=bias,
    limit=limit,
    **_scaling(layer),
  )


def _cross(blk, x_btd, context, cross_kv, rng, limit):
  x_btd, _ = blk.attend(x_btd, context, rng=rng)
  y_btd = blk.cross_norm(x_btd) if blk.config.is_pre_norm else x_btd
  return excess(
    blk.cross.queries(y_btd),
    cross_kv[0],
    mask=masks.Segments(),
    layout=context.cross_layout,
    limit=limit,
    **_scaling(blk.cross),
  )


def _scaling(layer: attention.Attention) -> dict[str, float]:
  c = layer.config
  return {'scale': c.scale or c.head_dim**-0.5, 'soft_cap': c.soft_cap}

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a decoder looks at: an encoder's states, as keys and values per block.

With a cache they are computed once, stored in it, and found there later.

Axes: b rows, t positions of the decoder, s positions of the encoder, d width.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxtok.models.base import Source
from jaxtok.nn import block, masks


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
  """States of an encoder and their documents.

  Attributes:
    hidden_bsd: Final states.
    segment_ids_bs: Document of each state; document i of the decoder's row
      sees document i of the context, 0 is padding. None: all see everything.
    bias_bs: Added to the scores of each state in cross-attention, or None.
  """

  hidden_bsd: Any
  segment_ids_bs: Any = None
  bias_bs: Any = None


def encoded(
  context: Any, encode: Callable[..., Encoded], rng: Array | None
) -> Encoded | None:
  """The encoder's states, whatever form the context has.

  Args:
    context: Tokens [b, s], a `Source`, `Encoded`, or None.
    encode: `Transformer.encode`.
    rng: Turns the encoder's dropout on.
  """
  if context is None or isinstance(context, Encoded):
    return context
  source = context if isinstance(context, Source) else Source(context)
  return encode(
    source.tokens_bs,
    positions=source.positions_bs,
    segment_ids=source.segment_ids_bs,
    rng=rng,
  )


def connect(
  blocks: Sequence[block.Block],
  encoded: Encoded | None,
  cache: Any,
  num_queries: int,
  segment_ids_bt: Int[Array, '#b t'] | None,
) -> tuple[Any, list[Any], masks.Layout]:
  """Keys and values of the context for each block.

  Args:
    blocks: The decoder's blocks.
    encoded: The context; None takes what the cache has stored.
    cache: A `cache.kv.KVCache` or None.
    num_queries: t, static.
    segment_ids_bt: Documents of the decoder's row.

  Returns:
    The cache (holding the context), one (keys, values, bias) per block, and
    the layout of queries and context.

  Raises:
    ValueError: If there is neither a context nor a cache that has seen it.
  """
  heads_first = lambda xs: tuple(x.swapaxes(1, 2) for x in xs)
  if encoded is not None:
    kvs = [blk.cross.keys_values(encoded.hidden_bsd) for blk in blocks]
    segments_bs, bias_bs = encoded.segment_ids_bs, encoded.bias_bs
    if cache is not None:
      k, v = map(heads_first, zip(*kvs, strict=True))
      cache = dataclasses.replace(
        cache,
        cross_k=k,
        cross_v=v,
        cross_segment_ids_bs=segments_bs,
        cross_bias_bs=bias_bs,
      )
  elif cache is not None and cache.cross_k:
    stored = map(heads_first, (cache.cross_k, cache.cross_v))
    kvs = list(zip(*stored, strict=True))
    segments_bs, bias_bs = cache.cross_segment_ids_bs, cache.cross_bias_bs
  else:
    raise ValueError(
      'an encoder-decoder needs context: the tokens [b, s] of its encoder, or '
      'what model.encode(tokens) returned. Only a cache that has seen the '
      'context can replace it.'
    )
  layout = masks.Layout(
    num_queries,
    kvs[0][0].shape[1],
    q_segments_bt=None if segments_bs is None else segment_ids_bt,
    kv_segments_bs=segments_bs,
  )
  bias_b1ts = None
  if bias_bs is not None:
    b, num_keys = bias_bs.shape
    bias_b1ts = jnp.broadcast_to(
      bias_bs[:, None, None], (b, 1, num_queries, num_keys)
    )
  return cache, [(*kv, bias_b1ts) for kv in kvs], layout

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A layer of MergeDNA's local encoder or decoder.

arXiv:2511.14806, section 3.2; see `models.mergedna`. Axes: b rows, p windows, t
slots of a window, w tokens, d width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtok.nn import attention, block, linear, masks, merge, mlp, norms, rope


class LocalLayer(nnx.Module):
  """Attention in windows, then (in the encoder) a merge, then an MLP."""

  def __init__(self, config: Any, *, merges: bool, rngs: nnx.Rngs):
    """Creates the parameters.

    Args:
      config: A `mergedna.Config`.
      merges: Whether `join` will be called.
      rngs: Source of randomness.
    """
    self.config = config
    block_config = config.level(1).block()
    dim = config.dim
    norm = lambda: norms.Norm(dim)
    self.attention_norm, self.mlp_norm = norm(), norm()
    self.attention = attention.Attention(block_config.attention, rngs=rngs)
    self.mlp = mlp.Mlp(
      dim,
      block_config.mlp_dim,
      activation='silu',
      gated=True,
      out_std=block_config.out_std,
      dtype=config.dtype,
      rngs=rngs,
    )
    self.group = (
      linear.Linear(
        (dim,), (config.group_dim,), axes=('embed', 'mlp'), rngs=rngs
      )
      if merges and config.learns_groups
      else None
    )

  def attend(self, tokens: merge.Tokens, rng: Any) -> merge.Tokens:
    """Adds attention within windows of slots."""
    c, window = self.config, self.config.window
    b, w, d = tokens.x_bwd.shape
    pad = -w % window

    def split(x):
      x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
      return x.reshape(-1, window, *x.shape[2:])

    x_ptd = split(self.attention_norm(tokens.x_bwd))
    segment_pt = split(tokens.segment_bw)
    layout = masks.Layout(
      window, window, q_segments_bt=segment_pt, kv_segments_bs=segment_pt
    )
    rotation = rope.rotation(
      split(tokens.first_bw), d // c.num_heads, rope.Config()
    )
    y_ptd = self.attention.attend(
      self.attention.queries(x_ptd, rotation),
      *self.attention.keys_values(x_ptd, rotation),
      mask=masks.Segments(),
      layout=layout,
    )
    y_bwd = y_ptd.reshape(b, w + pad, d)[:, :w]
    y_bwd = block.dropout(y_bwd, c.dropout, rng)
    return dataclasses.replace(tokens, x_bwd=tokens.x_bwd + y_bwd)

  def join(
    self, tokens: merge.Tokens, num_b: Any, number: int, length: int, rng: Any
  ) -> tuple[merge.Tokens, Any, Any]:
    """See `nn.merge.merge_adjacent`.

    Args:
      tokens: What to merge.
      num_b: Pairs in each row.
      number: Of the layer; its parity is that of the left slots.
      length: Of the row, in bases; static.
      rng: Of random pairs (`learns_groups=False`); None takes fixed ones.
    """
    c, room = self.config, self.config.rooms(length)[number + 1]
    where = dict(window=c.window, scope=c.scope)
    can_bw = merge.candidates(tokens, c.window, number % 2)
    if self.group is None:
      key = jax.random.key(number) if rng is None else rng
      score_bw = jax.random.uniform(key, can_bw.shape)
    else:
      is_apart = c.relaxation == 'top_k'  # As DTEM: groups alone learn from it.
      x_bwd = tokens.x_bwd
      g_bwd = self.group(jax.lax.stop_gradient(x_bwd) if is_apart else x_bwd)
      score_bw = merge.cosine(g_bwd, jnp.roll(g_bwd, -1, axis=1))
    pairs_bw = merge.adjacent_pairs(
      jax.lax.stop_gradient(score_bw), can_bw, num_b, **where
    )
    if c.relaxation == 'top_k':
      weight_bw = merge.soft_top_k(
        score_bw,
        can_bw,
        num_b,
        rounds=c.most_pairs(length, number),
        temperature=c.temperature,
        **where,
      )
      return merge.merge_adjacent(tokens, pairs_bw, weight_bw, room, can_bw)
    edge_bw = merge.threshold(score_bw, pairs_bw, can_bw, **where)
    soft_bw = jax.nn.sigmoid(
      (score_bw - jax.lax.stop_gradient(edge_bw)) / c.temperature
    )
    weight_bw = 1 + soft_bw - jax.lax.stop_gradient(soft_bw)
    return merge.merge_adjacent(tokens, pairs_bw, weight_bw, room)

  def think(self, tokens: merge.Tokens, rng: Any) -> merge.Tokens:
    """Adds the MLP."""
    y_bwd = self.mlp(self.mlp_norm(tokens.x_bwd))
    y_bwd = block.dropout(y_bwd, self.config.dropout, rng)
    return dataclasses.replace(tokens, x_bwd=tokens.x_bwd + y_bwd)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masks of block diffusion: causal over blocks, full inside a block.

Arriola et al. 2025, arXiv:2503.09573. Axes: b batch (or 1), t queries, s keys.
"""

import dataclasses

import jax

from jaxtok.nn import masks


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockCausal(masks.Mask):
  """A query sees its own block of `size` tokens and all blocks before it.

  Blocks are counted from the first token of the row.
  """

  size: int = dataclasses.field(metadata=dict(static=True))

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f'BlockCausal size={self.size} must be >= 1 tokens.')

  def dense(self, layout):
    q_bt, kv_bs = layout.q_index(), layout.kv_index()
    return q_bt[:, :, None] // self.size >= kv_bs[:, None, :] // self.size

  def ranges(self, layout):
    [(_, end_bt)] = masks.Causal().ranges(layout)
    return [(None, -(-end_bt // self.size) * self.size)]

  def span(self, layout, start, stop):
    _, end = masks.Causal().span(layout, start, stop)
    return 0, min(layout.num_keys, -(-end // self.size) * self.size)

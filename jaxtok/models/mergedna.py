# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MergeDNA: an autoencoder that learns its tokens by merging bases.

arXiv:2511.14806, section 3. A local encoder alternates attention in windows
with merging of neighbours, until about half as many tokens are left; a latent
encoder and decoder work on those; they are spread over their bases again, and a
local decoder restores the bases. Nothing of the input but its tokens reaches
the decoder. The objective is `objectives.merged_tokens`.

A merge: `s = cos(g_i, g_(i+1))` with `g = x W`, between neighbours of a window;
the best pairs of a row become averages weighted by size. So that W learns, the
weight of the second of a pair is, by `relaxation`,

  straight  1, with the gradient of `sigmoid((s - threshold) / T)`
  top_k     how much s is among the best (`merge.soft_top_k`), as DTEM does;
            then pairs that are not merged mix too, by their weight, and g is
            of states without their gradient. It is as soft in evaluation and
            `features`, which are of the model that was trained; a hard choice
            would leave those pairs as they are

How many tokens are left is drawn for each training step (`nn.rate_control`);
evaluation and `features` take the mean. There is room for the most that can be
drawn; pairs are counted per row, so documents that share a row share them.

Where the paper leaves it open, and what differs from it: pairs alternate
between even and odd slots from layer to layer; similar tokens of the latent
encoder are merged after each block, by their states; when tokens are spread,
the place of a base in its token is embedded; RoPE turns by the first base of a
token. A token has one neighbour to join in each layer, so that DTEM's choice
among the three best partners has nothing to choose.

Axes: b rows, t bases, w tokens, d width, v vocabulary.
"""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.models import base, level, merge_layer
from jaxtok.nn import (
  block,
  embed,
  masks,
  merge,
  norms,
  ragged,
  rate_control,
  rope,
)
from jaxtok.objectives.base import Mean

RELAXATIONS = ('straight', 'top_k')


@configclass
class Config:
  """Hyper-parameters of `MergeDna`; the defaults are the paper's (380 M)."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8
  mask_id: int = 4  # The mask token; ids below it are never merged.
  dim: int = 1024  # Width d.
  num_heads: int = 16
  num_local: int = 4  # Layers of the local encoder; each merges.
  num_latent: int = 20  # Layers of the latent encoder.
  num_latent_decoder: int = 4
  num_local_decoder: int = 2
  window: int = 16  # Tokens that local attention and merges see.
  group_dim: int = 64  # Width of g.
  scope: str = 'sequence'  # Or 'window': as many merges in each window.
  relaxation: str = 'straight'  # Of the choice of pairs; see the module.
  temperature: float = 0.1  # T.
  learns_groups: bool = True  # False: random pairs, the ablation.
  latent_share: float = 0.5  # Tokens that latent merging leaves.
  max_offset: int = 16  # Places in a token that are told apart.
  target: rate_control.Random = dataclasses.field(
    default_factory=rate_control.Random
  )  # Tokens per base.
  embed_std: float = 0.02
  dropout: float = 0.0
  remat: bool = False  # Of the latent blocks.
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    level.check_sizes(self, 'num_local', 'num_latent', 'num_local_decoder')
    if self.window < 2 or self.window % 2:
      raise ValueError(f'window={self.window} must be even and >= 2.')
    if self.scope not in merge.SCOPES:
      raise ValueError(
        f'scope={self.scope!r} must be one of {", ".join(merge.SCOPES)}.'
      )
    if self.relaxation not in RELAXATIONS:
      raise ValueError(
        f'relaxation={self.relaxation!r} must be one of '
        f'{", ".join(RELAXATIONS)}.'
      )
    if not 0.5 <= self.latent_share <= 1:
      raise ValueError(
        f'latent_share={self.latent_share} must be in [0.5, 1]: tokens at even '
        'slots join ones at odd slots.'
      )
    if self.temperature <= 0:
      raise ValueError(f'temperature={self.temperature} must be > 0.')
    self.level(1)

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def level(self, num_layers: int) -> level.Config:
    """The config of a stack."""
    return level.Config(
      dim=self.dim,
      num_layers=num_layers,
      num_heads=self.num_heads,
      dropout=self.dropout,
      dtype=self.dtype,
      implementation=self.implementation,
    )

  def rooms(self, length: int) -> tuple[int, ...]:
    """Slots for tokens before and after each local layer."""
    return _between(
      length, math.ceil(self.target.high * length), self.num_local
    )

  def latent_rooms(self, width: int) -> tuple[int, ...]:
    """Slots before and after each block of a latent encoder that merges."""
    return _between(
      width, math.ceil(self.latent_share * width), self.num_latent
    )

  def most_pairs(self, length: int, layer: int) -> int:
    """Pairs of a row (or window, by `scope`) that a local layer may merge.

    No more than all layers up to it are to merge: it catches up with the ones
    before it.

    Args:
      length: Bases of the row.
      layer: Number of the local layer.
    """
    width = self.rooms(length)[layer]
    if self.scope == 'window':
      width = min(width, self.window)
    gone = math.ceil((1 - self.target.low) * length)
    return min(width // 2, gone * (layer + 1) // self.num_local)

  def make(self, rngs: nnx.Rngs) -> 'MergeDna':
    """Builds the model with random parameters."""
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. Set it '
        "to the tokenizer's vocab_size."
      )
    return MergeDna(self, rngs=rngs)


def _between(start: int, stop: int, steps: int) -> tuple[int, ...]:
  """Sizes from `start` to `stop` in even steps, rounded up."""
  return tuple(
    stop + -(-(start - stop) * (steps - i) // steps) for i in range(steps + 1)
  )


class Local(NamedTuple):
  """A row after the local encoder.

  Attributes:
    tokens: The tokens.
    owner_bt: The token of each base; -1 in padding.
    overflow_b: Tokens that found no room.
  """

  tokens: merge.Tokens
  owner_bt: Any
  overflow_b: Any


class Latent(NamedTuple):
  """A row after the latent encoder.

  Attributes:
    states_bwd: Of each token, normalised.
    group_bw: Which group of tokens each was merged into; its own slot without
      merging, -1 in empty slots.
    num_b: Groups of each row.
    overflow_b: Groups that found no room; their tokens have zeros.
  """

  states_bwd: Any
  group_bw: Any
  num_b: Any
  overflow_b: Any


class MergeDna(nnx.Module):
  """Local encoder, latent encoder and decoder, local decoder."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    self.embed = embed.Embed(
      c.vocab_rows, c.dim, std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    self.offsets = embed.Embed(
      c.max_offset,
      c.dim,
      axis='position',
      std=c.embed_std,
      dtype=c.dtype,
      rngs=rngs,
    )
    local = lambda num, merges: nnx.List(
      merge_layer.LocalLayer(c, merges=merges, rngs=rngs) for _ in range(num)
    )
    latent = lambda num: nnx.List(
      block.Block(c.level(num).block(), rngs=rngs) for _ in range(num)
    )
    norm = lambda: norms.Norm(c.dim)
    self.local_encoder = local(c.num_local, True)
    self.latent_encoder = latent(c.num_latent)
    self.latent_norm = norm()
    self.latent_decoder = latent(c.num_latent_decoder)
    self.local_decoder = local(c.num_local_decoder, False)
    self.norm = norm()
    self.head = embed.Head(
      c.dim, c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
    )
    self.target = c.target.make()

  def advance(self, metrics: dict[str, Any]) -> None:
    """Draws the next share of tokens; see `nn.rate_control`."""
    del metrics
    self.target.update(jnp.zeros(()))

  def share(self, is_training: bool) -> Float[Array, '']:
    """Tokens per base of this call."""
    if is_training:
      return self.target.coef()
    return jnp.float32(self.config.target.mean)

  def encode(
    self,
    tokens_bt: Int[Array, 'b t'],
    segment_ids: Int[Array, '#b t'] | None,
    share: Any,
    rng: Array | None = None,
  ) -> Local:
    """The local encoder: from bases to tokens."""
    c, (b, t) = self.config, tokens_bt.shape
    segment_bt = jnp.ones((b, t), jnp.int32)
    if segment_ids is not None:
      segment_bt = jnp.broadcast_to(segment_ids, (b, t)).astype(jnp.int32)
    valid_bt = segment_bt > 0
    place_bt = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), (b, t))
    tokens = merge.Tokens(
      self.embed(tokens_bt),
      valid_bt.astype(jnp.float32),
      place_bt,
      segment_bt,
      (tokens_bt >= c.mask_id) & valid_bt,
    )
    owner_bt = jnp.where(valid_bt, place_bt, -1)
    overflow_b = jnp.zeros(b, jnp.int32)
    removed_b = jnp.round((1 - share) * tokens.num_b).astype(jnp.int32)
    gone_b = jnp.zeros(b, jnp.int32)
    for i, layer in enumerate(self.local_encoder):
      rng, *rngs = block.split(rng, 3)
      tokens = layer.attend(tokens, rngs[0])
      # Catches up where a layer before found fewer pairs.
      num_b = removed_b * (i + 1) // c.num_local - gone_b
      before_b = tokens.num_b
      tokens, index_bw, lost_b = layer.join(tokens, num_b, i, t, rng)
      gone_b += before_b - tokens.num_b - lost_b
      owner_bt = merge.follow(owner_bt, index_bw)
      overflow_b += lost_b
      tokens = layer.think(tokens, rngs[1])
    return Local(tokens, owner_bt, overflow_b)

  def latent(
    self, tokens: merge.Tokens, *, merges: bool = False, rng: Any = None
  ) -> Latent:
    """The latent encoder.

    Args:
      tokens: From the local encoder.
      merges: Whether similar tokens are merged on the way.
      rng: Turns dropout on.
    """
    c, w = self.config, tokens.x_bwd.shape[1]
    group_bw = jnp.where(tokens.valid_bw, jnp.arange(w), -1)
    now, num_b = tokens, tokens.num_b
    removed_b = num_b - jnp.ceil(c.latent_share * num_b).astype(jnp.int32)
    rooms = c.latent_rooms(w)
    gone_b = overflow_b = jnp.zeros_like(num_b)
    for i, blk in enumerate(self.latent_encoder):
      rng, key = block.split(rng, 2)
      now = dataclasses.replace(now, x_bwd=self._run(blk, now, key))
      if merges:
        want_b = removed_b * (i + 1) // c.num_latent - gone_b
        before_b = now.num_b
        now, index_bw, lost_b = merge.merge_similar(now, want_b, rooms[i + 1])
        gone_b += before_b - now.num_b - lost_b
        overflow_b += lost_b
        group_bw = merge.follow(group_bw, index_bw)
    states_bwd = self.latent_norm(now.x_bwd)
    if merges:
      states_bwd = ragged.expand(states_bwd, group_bw)
    return Latent(states_bwd, group_bw, now.num_b, overflow_b)

  def _run(self, blk, tokens, rng):
    w = tokens.x_bwd.shape[1]
    layout = masks.Layout(
      w,
      w,
      q_segments_bt=tokens.segment_bw,
      kv_segments_bs=tokens.segment_bw,
    )
    c = self.config
    rotation = rope.rotation(
      tokens.first_bw, c.dim // c.num_heads, rope.Config()
    )
    context = block.Context(masks.Segments(), layout, rotation)
    if not c.remat:
      return blk(tokens.x_bwd, context, rng=rng)[0]
    graph, params = nnx.split(blk)
    run = lambda p, x: nnx.merge(graph, p)(x, context, rng=rng)[0]
    return jax.checkpoint(run)(params, tokens.x_bwd)

  def decode(
    self,
    states_bwd: Float[Array, 'b w d'],
    local: Local,
    segment_ids: Any,
    rng: Any = None,
  ) -> Float[Array, 'b t d']:
    """Latent decoder, spreading over bases, local decoder; normalised."""
    tokens = dataclasses.replace(local.tokens, x_bwd=states_bwd)
    for blk in self.latent_decoder:
      rng, key = block.split(rng, 2)
      tokens = dataclasses.replace(tokens, x_bwd=self._run(blk, tokens, key))
    b, t = local.owner_bt.shape
    place_bt = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), (b, t))
    offset_bt = place_bt - ragged.expand(tokens.first_bw, local.owner_bt)
    offset_bt = jnp.clip(offset_bt, 0, self.config.max_offset - 1)
    x_btd = ragged.expand(tokens.x_bwd, local.owner_bt)
    segment_bt = (local.owner_bt >= 0).astype(jnp.int32)
    if segment_ids is not None:
      segment_bt = jnp.broadcast_to(segment_ids, (b, t)).astype(jnp.int32)
    bases = merge.Tokens(
      x_btd + self.offsets(offset_bt),
      (segment_bt > 0).astype(jnp.float32),
      place_bt,
      segment_bt,
      segment_bt > 0,
    )
    for layer in self.local_decoder:
      rng, first, second = block.split(rng, 3)
      bases = layer.think(layer.attend(bases, first), second)
    return self.norm(bases.x_bwd)

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: Any = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> base.Output:
    """States that restore the bases; see `models.base`.

    `positions` is not read: RoPE turns by places in the row.
    """
    del positions
    level.refuse('MergeDna', context=context, cache=cache, mask=mask)
    rngs = block.split(rng, 3)
    local = self.encode(
      tokens_bt, segment_ids, self.share(rng is not None), rngs[0]
    )
    states_bwd = self.latent(local.tokens, rng=rngs[1]).states_bwd
    hidden_btd = self.decode(states_bwd, local, segment_ids, rngs[2])
    return base.Output(hidden_btd, aux=self.aux(local))

  def aux(self, local: Local) -> dict[str, Any]:
    """Metrics of the merges, and which bases have a token."""
    room = local.tokens.size_bw.shape[1]
    has_token_bt = ragged.within(local.owner_bt, room)
    valid_b = (local.owner_bt >= 0).sum(axis=1).astype(jnp.float32)
    num_b = (local.tokens.num_b + local.overflow_b).astype(jnp.float32)
    lost_b = local.overflow_b.astype(jnp.float32)
    return {
      'target_mask_bt': has_token_bt,
      'metrics': {
        'tokens_per_base': Mean(num_b, valid_b),
        'overflow': Mean(lost_b, num_b),
      },
    }

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  def features(
    self,
    tokens_bt: Int[Array, 'b t'],
    segment_ids: Int[Array, 'b t'],
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b w d'], Bool[Array, 'b w']]:
    """What `models.classifier` reads: latent states, and which are real."""
    rngs = block.split(rng, 2)
    local = self.encode(tokens_bt, segment_ids, self.share(False), rngs[0])
    states_bwd = self.latent(local.tokens, rng=rngs[1]).states_bwd
    return states_bwd, local.tokens.valid_bw

  def flops(
    self, shape: base.Shape, *, merges: bool = False
  ) -> dict[str, float]:
    """Matmul FLOPs of one reconstruction, forward, by part; rooms are full.

    Args:
      shape: Sizes of the call.
      merges: Whether the latent encoder merges; 'matching' is then the
        comparison of all its tokens.
    """
    c, b = self.config, shape.b
    rooms = c.rooms(shape.t)
    part = lambda room: c.level(1).block().flops(b * room, c.window)
    # The MLP comes after the merge.
    local = sum(
      sum(part(before).values())
      - part(before)['mlp']
      + part(after)['mlp']
      + 2.0 * b * before * c.dim * c.group_dim * c.learns_groups
      for before, after in itertools.pairwise(rooms)
    )
    rows, width = b * shape.t, rooms[-1]
    widths = [width] * c.num_latent
    if merges:
      widths = c.latent_rooms(width)[:-1]
    latent = sum(c.level(1).flops(b * w, w) for w in widths)
    latent += c.level(c.num_latent_decoder).flops(b * width, width)
    parts = {
      'local': float(local),
      'latent': float(latent),
      'local_decoder': float(
        c.level(c.num_local_decoder).flops(rows, c.window)
      ),
      'head': 2.0 * rows * c.dim * c.vocab_rows,
    }
    if merges:
      pairs = sum(-(-w // 2) * (w // 2) for w in widths)
      parts['matching'] = 2.0 * b * pairs * c.dim
    return parts

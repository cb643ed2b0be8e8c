# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SpaceByte: large blocks at the bytes where words begin.

Slagle 2024, arXiv:2404.14408, section 3. Small blocks run on all bytes, large
ones on the spacelike bytes that begin a word, between two halves of the small
ones, in one residual stream:

  bytes -> local blocks --------------------(+)-> local blocks -> next byte
                 \\ at starts of units       /
                  -> pad to D -> global blocks

With `segmenters.Stride` units are of fixed length (the paper's control).

Differs from the paper: RoPE on both levels instead of learned positions. What
the global blocks add to the stream is added to it, so that blocks that do
nothing leave the local model as it is.

Axes: b rows, t bytes, s stored bytes, w units, d local width, D global width.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, level
from jaxtok.nn import block, embed, linear, masks, ragged, segmenters


@configclass
class Config:
  """Hyper-parameters of `SpaceByte`; 0 means "derived"."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 256  # Width D of the global blocks.
  local_dim: int = 0  # 0 means dim / 2.
  head_dim: int = 64  # Of both levels.
  num_layers: int = 4  # Global blocks.
  num_local_layers: int = 4  # Local blocks, half of them before.
  window: int = 0  # Bytes that a local block sees; 0 means all.
  segmenter: Any = dataclasses.field(default_factory=segmenters.Spacelike)
  # Room for units in training; beyond it, targets are left out. Otherwise
  # there is always enough, at the cost of a second program.
  capacity: ragged.Capacity = dataclasses.field(
    default_factory=lambda: ragged.Capacity(policy='ratio', ratio=1 / 4)
  )
  embed_std: float = 0.02
  dropout: float = 0.0
  remat: bool = False
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    level.check_sizes(self, 'dim', 'head_dim', 'num_layers')
    if self.local_width > self.dim:
      raise ValueError(
        f'local_dim={self.local_dim} must not exceed dim={self.dim}.'
      )
    if self.num_local_layers < 2 or self.num_local_layers % 2:
      raise ValueError(
        f'num_local_layers={self.num_local_layers} must be even and >= 2: half '
        'of the blocks come before the global ones.'
      )
    if self.window < 0:
      raise ValueError(f'window={self.window} must be >= 0 (0 sees all).')
    for width in (self.dim, self.local_width):
      if width % self.head_dim:
        raise ValueError(
          f'widths dim={self.dim} and local_dim={self.local_width} must be '
          f'multiples of head_dim={self.head_dim}.'
        )
    linear.check_dtype(self.dtype)

  @property
  def local_width(self) -> int:
    return self.local_dim or self.dim // 2

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def level(self, dim: int, num_layers: int, has_norm: bool) -> level.Config:
    """The config of one stack."""
    return level.Config(
      dim=dim,
      num_layers=num_layers,
      num_heads=dim // self.head_dim,
      dropout=self.dropout,
      has_norm=has_norm,
      remat=self.remat,
      dtype=self.dtype,
      implementation=self.implementation,
    )

  def check_tokenizer(self, tokenizer: Any) -> None:
    """Raises a ValueError if ids are other bytes than `segmenter` reads."""
    segmenters.check_offset('model.segmenter', self.segmenter, tokenizer)

  def make(self, rngs: nnx.Rngs) -> 'SpaceByte':
    """Builds the model with random parameters."""
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. Set it '
        "to the tokenizer's vocab_size."
      )
    return SpaceByte(self, rngs=rngs)


class SpaceByte(nnx.Module):
  """A language model over bytes; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    half = c.num_local_layers // 2
    self.embed = embed.Embed(
      c.vocab_rows, c.local_width, std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    make = lambda *args: level.Level(c.level(*args), rngs=rngs)
    self.before = make(c.local_width, half, False)
    self.trunk = make(c.dim, c.num_layers, False)
    self.after = make(c.local_width, half, True)
    self.head = embed.Head(
      c.local_width, c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
    )

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: nested.NestedCache | None = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions; see `models.base`.

    Without an `rng` (evaluation, generation) no unit is lost. With one, units
    beyond the capacity are, and `aux['target_mask_bt']` is False from there
    on.
    """
    level.refuse('SpaceByte', context=context, mask=mask)
    rngs = block.split(rng, 4)
    start_bt, cache, slots_bt = self._starts(tokens_bt, segment_ids, cache)
    if positions is None:
      positions = jnp.arange(tokens_bt.shape[1])[None]
      positions = positions if slots_bt is None else slots_bt
    local = dict(
      positions_bt=positions, segment_ids_bt=segment_ids, mask=self._mask()
    )
    x_btd = self.embed(tokens_bt)
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    x_btd = block.dropout(x_btd, self.config.dropout, rngs[0])
    caches = (None, None) if cache is None else cache.local
    x_btd, first = self.before(x_btd, cache=caches[0], rng=rngs[1], **local)
    x_btd, trunk = self._global(
      x_btd, start_bt, segment_ids, cache, rng, rngs[2]
    )
    x_btd, second = self.after(x_btd, cache=caches[1], rng=rngs[3], **local)
    if cache is not None:
      cache = cache.add_units(start_bt, slots_bt, trunk)
      cache = dataclasses.replace(cache, local=(first, second))
    aux = self._aux(start_bt, segment_ids, rng is not None)
    return base.Output(x_btd, cache, aux)

  def _starts(self, tokens_bt, segment_ids, cache):
    """Where units begin, the cache with the new tokens, and their slots."""
    if cache is None:
      return self.config.segmenter(tokens_bt, segment_ids), None, None
    cache, slots_bt = cache.reserve(tokens_bt, segment_ids)
    start_bs = self.config.segmenter(cache.tokens_bs, cache.segment_ids_bs)
    return ragged.gather(start_bs, slots_bt), cache, slots_bt

  def _mask(self) -> masks.Mask:
    window = self.config.window
    return masks.Causal() & masks.Window(window) if window else masks.Causal()

  def _global(self, x_btd, start_bt, segment_ids, cache, rng, key):
    """The global blocks at the starts of units; the trunk's cache too."""
    t = x_btd.shape[1]
    trunk = None if cache is None else cache.trunk
    documents_bt = (
      jnp.ones_like(start_bt, jnp.int32)
      if segment_ids is None
      else jnp.broadcast_to(segment_ids, start_bt.shape)
    )
    width = self.config.dim - x_btd.shape[2]

    def call(size):
      if size == 0:
        return x_btd, trunk
      kept = ragged.compact(x_btd, start_bt, size)
      u_bwd = jnp.pad(kept.values_bwd, ((0, 0), (0, 0), (width, 0)))
      positions_bw = jnp.arange(size)[None]
      if trunk is not None:
        positions_bw = trunk.length_b[:, None] + positions_bw
      v_bwd, longer = self.trunk(
        u_bwd,
        positions_bt=positions_bw,
        segment_ids_bt=ragged.gather(documents_bt, kept.index_bw),
        mask=masks.Causal(),
        cache=trunk,
        rng=key,
      )
      change_bwd = (v_bwd - u_bwd)[..., width:]
      return ragged.scatter_add(x_btd, kept.index_bw, change_bwd), longer

    sizes = level.unit_sizes(self.config.capacity, t, rng is not None, cache)
    return ragged.dispatch(call, sizes, start_bt.sum(axis=1))

  def _aux(self, start_bt, segment_ids, is_training) -> dict[str, Any]:
    capacity = self.config.capacity.sizes(start_bt.shape[1])[-1]
    return level.unit_aux(
      ragged.segment_ids(start_bt), start_bt, segment_ids, capacity, is_training
    )

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache for `max_len` bytes per row, all of which may be units."""
    make = lambda part: part.config.init_cache(batch_size, max_len)
    local = make(self.before), make(self.after)
    return nested.NestedCache.empty(local, make(self.trunk))

  def flops(
    self, shape: base.Shape, kept: float | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Local attention counts the keys of the window, global blocks the room for
    units, `capacity` of the positions; with `kept` that many per position.
    """
    c, rows = self.config, shape.b * shape.t
    keys = shape.kv or shape.t
    room = c.capacity.room(shape.t, kept)
    room_kv = c.capacity.room(keys, kept)
    local = 2 * self.before.config.flops(rows, min(keys, c.window or keys))
    return {
      'local': float(local),
      'global': float(self.trunk.config.flops(shape.b * room, room_kv)),
      'head': 2.0 * rows * c.local_width * c.vocab_rows,
    }

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BLT: patches of bytes, short where the next byte is hard to predict.

Pagnoni et al. 2024, arXiv:2412.09871, sections 2 and 3:

  bytes, hashed n-grams -> local encoder ---- x --------> local decoder -> bytes
                             | patches attend to             | before each layer
                             | their bytes                   | bytes attend to
                             global transformer -> last patch that has ended

A patch becomes `num_parts` vectors of the width of bytes: the maximum of its
bytes' states, mapped, is the query that looks at these states. Where patches
end a patcher says, of the tokens so far: a rule of `nn.segmenters` for tokens,
whose positions are then the last ones of patches (`Stride`; `Spacelike`, the
paper's space patching), or `patcher.Entropy`, a language model whose entropy of
the next byte decides. The first byte of a document is a patch, so each byte has
one behind it.

`double_residual` adds the input of cross-attention twice, as both published
code bases do; their checkpoints need it.

Axes: b rows, t bytes, s stored ones, w patches, j parts of a patch, d width of
bytes, D of patches, n heads, h width of a head.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok import partition
from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, level, patcher
from jaxtok.nn import (
  block,
  embed,
  linear,
  masks,
  ngram_hash,
  patch_attention,
  ragged,
  rope,
  segmenters,
)


@configclass
class Config:
  """Hyper-parameters of `Blt`; 0 means "derived"."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 256  # Width D of the global transformer.
  byte_dim: int = 128  # Width d of encoder and decoder.
  num_parts: int = 2  # Vectors of a patch, each of width d.
  num_layers: int = 4  # Of the global transformer.
  num_encoder_layers: int = 1
  num_decoder_layers: int = 2
  num_heads: int = 4  # Of the global transformer.
  num_byte_heads: int = 2  # Of encoder and decoder, and between levels.
  mlp_dim: int = 0  # Of the global transformer; 0 means 8/3 dim.
  encoder_mlp_dim: int = 0
  decoder_mlp_dim: int = 0
  window: int = 512  # Bytes seen by encoder and decoder; 0 means all.
  ngrams: tuple[int, ...] = (3, 4, 5, 6, 7, 8)  # Lengths; () for none.
  num_hashes: int = 1  # Hash functions of each n-gram.
  hash_rows: int = 4096  # Rows of each table; the paper has 500,002.
  patcher: Any = dataclasses.field(
    default_factory=lambda: segmenters.Stride(size=4)
  )
  # Room for patches in training; beyond it, targets are left out. Otherwise
  # there is always enough, at the cost of a second program.
  capacity: ragged.Capacity = dataclasses.field(
    default_factory=lambda: ragged.Capacity(policy='ratio', ratio=1 / 3)
  )
  double_residual: bool = False  # Around cross-attention; see the module.
  rotary: rope.Config = dataclasses.field(
    default_factory=lambda: rope.Config(theta=500_000.0)
  )
  norm_eps: float = 1e-5
  embed_std: float = 0.02
  dropout: float = 0.0
  remat: bool = False
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    level.check_sizes(
      self,
      *('num_byte_heads', 'num_heads', 'num_parts', 'num_layers'),
      *('num_encoder_layers', 'num_decoder_layers', 'num_hashes', 'hash_rows'),
    )
    if self.byte_dim % self.num_byte_heads or self.dim % self.num_heads:
      raise ValueError(
        f'byte_dim={self.byte_dim} must be a multiple of num_byte_heads='
        f'{self.num_byte_heads}, and dim={self.dim} of num_heads='
        f'{self.num_heads}.'
      )
    if self.window < 0:
      raise ValueError(f'window={self.window} must be >= 0 (0 sees all).')
    if self.hash_rows > ngram_hash.MAX_ROWS or min(self.ngrams, default=1) < 1:
      raise ValueError(
        f'hash_rows={self.hash_rows} must be at most {ngram_hash.MAX_ROWS}, '
        f'and ngrams={self.ngrams} >= 1.'
      )
    linear.check_dtype(self.dtype)

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  @property
  def num_tables(self) -> int:
    """Hash tables, which lie one behind the other."""
    return self.num_hashes * len(self.ngrams)

  def level(self, dim: int, num_layers: int, **fields: Any) -> level.Config:
    """The config of one stack."""
    return level.Config(
      dim=dim,
      num_layers=num_layers,
      rotary=self.rotary,
      norm_eps=self.norm_eps,
      dropout=self.dropout,
      remat=self.remat,
      dtype=self.dtype,
      implementation=self.implementation,
      **fields,
    )

  def check_tokenizer(self, tokenizer: Any) -> None:
    """Raises a ValueError if ids are other bytes than `patcher` reads."""
    segmenters.check_offset('model.patcher', self.patcher, tokenizer)

  def make(self, rngs: nnx.Rngs) -> 'Blt':
    """Builds the model with random parameters, and its patcher."""
    if not 1 <= self.vocab_size <= ngram_hash.MAX_TOKENS:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be 1 to {ngram_hash.MAX_TOKENS} to '
        "build a model. Set it to the tokenizer's vocab_size."
      )
    return Blt(self, rngs=rngs)


class Blt(nnx.Module):
  """A language model over bytes; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    d, heads = c.byte_dim, c.num_byte_heads
    table = lambda num, axis: embed.Embed(
      num, d, axis=axis, std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    self.embed = table(c.vocab_rows, 'vocab')
    rows = c.num_tables * c.hash_rows
    self.hashes = table(rows, 'buckets') if rows else None
    make = lambda *args, **fields: level.Level(
      c.level(*args, **fields), rngs=rngs
    )
    project = lambda i, o: linear.Linear(
      (i,), (o,), axes=('embed', 'mlp'), dtype=c.dtype, rngs=rngs
    )
    cross = lambda: patch_attention.Cross(
      d,
      heads,
      eps=c.norm_eps,
      double_residual=c.double_residual,
      dtype=c.dtype,
      rngs=rngs,
    )
    self.encoder = make(
      d,
      c.num_encoder_layers,
      num_heads=heads,
      mlp_dim=c.encoder_mlp_dim,
      has_norm=False,
    )
    wide = c.num_parts * d
    self.parts = project(d, wide)
    self.encoder_cross = cross()
    self.up = project(wide, c.dim) if wide != c.dim else None
    self.trunk = make(
      c.dim,
      c.num_layers,
      num_heads=c.num_heads,
      mlp_dim=c.mlp_dim,
      has_norm=False,
    )
    self.down = project(c.dim, wide)
    self.decoder_cross = nnx.List(cross() for _ in range(c.num_decoder_layers))
    self.decoder = nnx.List(
      make(
        d,
        1,
        num_heads=heads,
        mlp_dim=c.decoder_mlp_dim,
        has_norm=i + 1 == c.num_decoder_layers,
      )
      for i in range(c.num_decoder_layers)
    )
    self.head = embed.Head(
      d, c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
    )
    self.patcher = patcher.make(c.patcher, c.vocab_size, rngs)

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Bool[Array, 'b t'] | None = None,
    cache: nested.NestedCache | None = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions; see `models.base`.

    Without an `rng` (evaluation, generation) no patch is lost. With one,
    patches beyond the capacity are, and `aux['target_mask_bt']` is False from
    there on.

    Args:
      tokens_bt: Token ids.
      positions: Positions within the document, for the rotation of bytes.
      segment_ids: Documents; 0 is padding.
      context: Where patches end, in place of what the patcher says; see
        `patcher.ends_of_lengths`. Not with a cache.
      cache: From `init_cache`.
      mask: Must be None.
      rng: Turns dropout, and the limit of room, on.
    """
    level.refuse('Blt', mask=mask)
    if context is not None and cache is not None:
      raise ValueError('Blt takes context or cache, not both.')
    rngs = block.split(rng, 4)
    documents_bt = jnp.ones(tokens_bt.shape, jnp.int32)
    if segment_ids is not None:
      documents_bt = jnp.broadcast_to(segment_ids, tokens_bt.shape)
    slots_bt = None
    if cache is not None:
      cache, slots_bt = cache.reserve(tokens_bt, documents_bt)
    end_bt, cache = self.patcher(tokens_bt, documents_bt, cache, slots_bt)
    if context is not None:
      is_first_bt = segmenters.first(documents_bt, documents_bt)
      end_bt = (context | is_first_bt) & (documents_bt != 0)
    if positions is None:
      positions = jnp.arange(tokens_bt.shape[1])[None]
      positions = positions if slots_bt is None else slots_bt
    local = dict(positions_bt=positions, segment_ids_bt=documents_bt)
    x_btd = self._embed(tokens_bt, documents_bt, cache, slots_bt, rngs[0])
    x_btd, cache = self._encode(x_btd, local, cache, slots_bt, rngs[1])
    unit_bt, parts_bwf, cache = self._global(
      x_btd, end_bt, documents_bt, cache, slots_bt, rngs[2]
    )
    x_btd, cache = self._decode(
      x_btd, unit_bt, parts_bwf, local, cache, rngs[3]
    )
    capacity = self.config.capacity.sizes(tokens_bt.shape[1])[-1]
    aux = level.unit_aux(
      ragged.segment_ids(end_bt),
      end_bt,
      documents_bt,
      capacity,
      rng is not None,
    )
    return base.Output(x_btd, cache, aux)

  def _mask(self) -> masks.Mask:
    window = self.config.window
    return masks.Causal() & masks.Window(window) if window else masks.Causal()

  def _embed(self, tokens_bt, documents_bt, cache, slots_bt, rng):
    """Vectors of the tokens plus those of the n-grams that end with them."""
    c, x_btd = self.config, self.embed(tokens_bt)
    index_bt = jnp.arange(tokens_bt.shape[1])[None]
    tokens_bs, documents_bs = tokens_bt, documents_bt
    if cache is not None:
      index_bt = slots_bt
      tokens_bs, documents_bs = cache.tokens_bs, cache.segment_ids_bs
    index_bt = jnp.broadcast_to(index_bt, tokens_bt.shape)

    def back(num):
      # 0, as in front of a row, where another document stands.
      is_own_bt = ragged.gather(documents_bs, index_bt - num) == documents_bt
      return jnp.where(is_own_bt, ragged.gather(tokens_bs, index_bt - num), 0)

    history = [back(num) for num in range(max(c.ngrams, default=0))]
    table = 0
    for prime in (ngram_hash.PRIMES * c.num_hashes)[: c.num_hashes]:
      for n in c.ngrams:
        row_bt = ngram_hash.rows(history[:n][::-1], prime, c.hash_rows)
        x_btd = x_btd + self.hashes(row_bt + table * c.hash_rows)
        table += 1
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    return block.dropout(x_btd, c.dropout, rng)

  def _encode(self, x_btd, local, cache, slots_bt, rng):
    caches = (None,) if cache is None else cache.local
    x_btd, longer = self.encoder(
      x_btd, mask=self._mask(), cache=caches[0], rng=rng, **local
    )
    if cache is not None:
      cache = cache.put('hidden', slots_bt, x_btd)
      cache = dataclasses.replace(cache, local=(longer, *caches[1:]))
    return x_btd, cache

  def _global(self, x_btd, end_bt, documents_bt, cache, slots_bt, rng):
    """Which patch each byte sees, the patches' parts, and the cache."""
    c, (b, t) = self.config, end_bt.shape
    trunk, start_b1 = None, jnp.zeros((b, 1), jnp.int32)
    num_bs, x_bsd, documents_bs = (
      jnp.cumsum(end_bt, axis=1),
      x_btd,
      documents_bt,
    )
    unit_bt = num_bs - 1
    if cache is not None:
      trunk, start_b1 = cache.trunk, cache.trunk.length_b[:, None]
      unit_bt, x_bsd = unit_bt + start_b1, cache.states['hidden']
      num_bs = cache.add_units(end_bt, slots_bt, trunk).num_units_bs
      is_there_bs = jnp.arange(cache.max_len) < cache.length_b[:, None]
      documents_bs = jnp.where(is_there_bs, cache.segment_ids_bs, 0)
    # The patch of each byte, counted from the first new one.
    unit_bs = jnp.pad(num_bs, ((0, 0), (1, 0)))[:, :-1] - start_b1

    sizes = level.unit_sizes(c.capacity, t, rng is not None, cache)

    def call(size):
      if size == 0:
        return cache.states['parts'], trunk
      ends = ragged.compact(documents_bt, end_bt, size)
      u_bwf = self._patches(x_bsd, unit_bs, documents_bs, ends)
      place_bw = start_b1 + jnp.arange(size)
      u_bwd, longer = self.trunk(
        u_bwf if self.up is None else self.up(u_bwf),
        positions_bt=place_bw,
        segment_ids_bt=ends.values_bwd,
        mask=masks.Causal(),
        cache=trunk,
        rng=rng,
      )
      parts_bwf = self.down(u_bwd)
      if cache is None:
        room = ((0, 0), (0, sizes[-1] - size), (0, 0))
        return jnp.pad(parts_bwf, room), None
      return cache.put('parts', place_bw, parts_bwf).states['parts'], longer

    parts_bwf, trunk = ragged.dispatch(call, sizes, end_bt.sum(axis=1))
    if cache is not None:
      cache = cache.add_units(end_bt, slots_bt, trunk)
      states = cache.states | {'parts': parts_bwf}
      cache = dataclasses.replace(cache, states=states)
    return unit_bt, parts_bwf, cache

  def _patches(self, x_bsd, unit_bs, documents_bs, ends):
    """The parts of new patches, side by side [b, w, j d].

    Args:
      x_bsd: States of all bytes that may be in them.
      unit_bs: Which patch each byte would be in, by counting ends.
      documents_bs: Documents of the bytes.
      ends: The documents of the patches, see `ragged.compact`.
    """
    c, (b, size) = self.config, ends.index_bw.shape
    # What a document leaves behind its last end is in no patch.
    is_in_bs = ragged.expand(ends.values_bwd, unit_bs) == documents_bs
    unit_bs = jnp.where(is_in_bs & (documents_bs != 0), unit_bs, -1)
    pooled = ragged.segment_pool(x_bsd, unit_bs, size, 'max')
    q_bqd = self.parts(pooled.values_bwd).reshape(b, -1, c.byte_dim)
    number_q = jnp.repeat(1 + jnp.arange(size), c.num_parts)
    layout = masks.Layout(
      q_bqd.shape[1],
      x_bsd.shape[1],
      q_segments_bt=jnp.broadcast_to(number_q, q_bqd.shape[:2]),
      kv_segments_bs=unit_bs + 1,
    )
    q_bqd = self.encoder_cross(q_bqd, x_bsd, masks.Segments(), layout)
    return q_bqd.reshape(b, size, -1)

  def _decode(self, x_btd, unit_bt, parts_bwf, local, cache, rng):
    """Final states; each layer looks at the parts of a patch first."""
    c, num = self.config, len(self.decoder)
    parts_bwjd = parts_bwf.reshape(
      *parts_bwf.shape[:2], c.num_parts, c.byte_dim
    )
    caches = (None,) * num if cache is None else cache.local[1 : num + 1]
    longer = []
    for i, (cross, layer) in enumerate(
      zip(self.decoder_cross, self.decoder, strict=True)
    ):
      x_btd = cross.look(x_btd, parts_bwjd, unit_bt)
      key = None if rng is None else jax.random.fold_in(rng, i)
      x_btd, own = layer(
        x_btd, mask=self._mask(), cache=caches[i], rng=key, **local
      )
      longer.append(own)
    if cache is not None:
      first, rest = cache.local[:1], cache.local[num + 1 :]
      cache = dataclasses.replace(cache, local=(*first, *longer, *rest))
    return x_btd, cache

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache for `max_len` bytes per row, all may be patches."""
    make = lambda part: part.config.init_cache(batch_size, max_len)
    c = self.config
    caches, states = self.patcher.init_cache(batch_size, max_len)
    local = (make(self.encoder), *map(make, self.decoder), *caches)
    empty = lambda width: jnp.zeros((batch_size, max_len, width), c.dtype)
    own = {
      'hidden': empty(c.byte_dim),
      'parts': empty(c.num_parts * c.byte_dim),
    }
    return nested.NestedCache.empty(local, make(self.trunk), own | states)

  def flops(
    self, shape: base.Shape, kept: float | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Bytes' attention counts the keys of the window, the global transformer the
    room for patches, `capacity` of the positions; patches looking at bytes
    count all bytes of the row. With `kept` there are that many patches per
    position. A patcher with a language model is the part 'patcher'; training
    runs it forward only.
    """
    c, rows = self.config, shape.b * shape.t
    keys, d = shape.kv or shape.t, c.byte_dim
    sight = min(keys, c.window or keys)
    room = c.capacity.room(shape.t, kept)
    room_kv = c.capacity.room(keys, kept)
    units, parts = shape.b * room, shape.b * room * c.num_parts
    layers = sum(layer.config.flops(rows, sight) for layer in self.decoder)
    looks = 4 * d * d * (rows + parts) + 4 * d * rows * c.num_parts
    between = 2.0 * c.dim * c.num_parts * d * (1 if self.up is None else 2)
    pooling = 2 * units * d * c.num_parts * d
    found = {
      'encoder': float(self.encoder.config.flops(rows, sight)),
      'patches': float(
        pooling + 4 * d * d * (rows + parts) + 4.0 * parts * keys * d
      ),
      'global': float(self.trunk.config.flops(units, room_kv)),
      'between': float(units * between),
      'decoder': float(layers + len(self.decoder) * looks),
      'head': 2.0 * rows * d * c.vocab_rows,
    }
    patching = self.patcher.flops(shape)
    return found | ({'patcher': patching} if patching else {})

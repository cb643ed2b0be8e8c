# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""HAT of 2026: words of a stream of bytes, without marks between them.

arXiv:2603.15953, the successor of `models.hat` (arXiv:2501.10322). Encoder and
decoder go over the whole text in a sliding window; only the backbone knows
words, and its prediction reaches all bytes of the next word:

  bytes -> causal encoder --- x -------------------> causal decoder -> next byte
             | one query looks at                      | before each layer, or
             | the bytes of a word                     | the first, + A u_i
             e_i -> backbone over words -> u_i --------- in word i + 1

No token says that a word is complete: it is when a segmenter lets another begin
(`nn.segmenters`; `Words` is HAT's rule). A byte that begins a word is predicted
with the vector of the word before it, and is read with that of its own; in the
first word of a document that is a learned vector.

A byte sees one vector, so that attention to it has a weight of 1 whatever
queries and keys are: what remains of cross-attention is a linear map A.

Differs from the paper: the splitter of its code is asked again after each byte
and may change its mind about the newest ones, which are then computed again. A
segmenter decides when a byte is there, so none has to be, and no byte knows of
those behind it. Blocks are those of `models.level`; the sizes of encoder and
decoder are ours.

Axes: b rows, t bytes, s stored ones, w words, d width of bytes, D of words.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, level
from jaxtok.nn import (
  block,
  embed,
  linear,
  masks,
  ragged,
  segmenters,
  word_query,
)

LOOKS = ('each', 'first')


@configclass
class Config:
  """Hyper-parameters of `Hat2`; 0 means "derived"."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 256  # Width D of the backbone.
  char_dim: int = 128  # Width d of encoder and decoder.
  head_dim: int = 64  # Of all three.
  num_kv_heads: int = 0  # Of the backbone; 0 means as many as heads.
  mlp_dim: int = 0  # Of the backbone; 0 means 8/3 dim.
  char_mlp_dim: int = 0  # Of encoder and decoder; 0 means 8/3 char_dim.
  num_layers: int = 4  # Of the backbone.
  num_encoder_layers: int = 2
  num_decoder_layers: int = 2
  looks: str = 'each'  # Layers of the decoder that get u_i; or 'first'.
  window: int = 768  # Bytes that encoder and decoder see; 0 means all.
  segmenter: Any = dataclasses.field(default_factory=segmenters.Words)
  max_word: int = 100  # Bytes of a word; longer ones are cut at characters.
  # Room for words in training; beyond it, targets are left out. Otherwise
  # there is always enough, at the cost of a second program.
  capacity: ragged.Capacity = dataclasses.field(
    default_factory=lambda: ragged.Capacity(policy='ratio', ratio=1 / 3)
  )
  embed_std: float = 0.02
  dropout: float = 0.0
  remat: bool = False
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    level.check_sizes(
      self,
      *('dim', 'char_dim', 'head_dim', 'max_word'),
      *('num_layers', 'num_encoder_layers', 'num_decoder_layers'),
    )
    for width in (self.dim, self.char_dim):
      if width % self.head_dim:
        raise ValueError(
          f'widths dim={self.dim} and char_dim={self.char_dim} must be '
          f'multiples of head_dim={self.head_dim}.'
        )
    heads = self.dim // self.head_dim
    if self.num_kv_heads < 0 or heads % (self.num_kv_heads or heads):
      raise ValueError(
        f'num_kv_heads={self.num_kv_heads} must divide the {heads} heads of '
        f'the backbone, dim={self.dim} / head_dim={self.head_dim} (0 means as '
        'many).'
      )
    if self.looks not in LOOKS:
      raise ValueError(
        f'looks={self.looks!r} must be one of {", ".join(LOOKS)}.'
      )
    if self.window < 0:
      raise ValueError(f'window={self.window} must be >= 0 (0 sees all).')
    linear.check_dtype(self.dtype)
    self.level(self.dim, 1)  # Checks that heads can be rotated.

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  @property
  def num_looks(self) -> int:
    """Layers of the decoder that get a word's vector."""
    return self.num_decoder_layers if self.looks == 'each' else 1

  def level(self, dim: int, num_layers: int, **fields: Any) -> level.Config:
    """The config of one stack."""
    return level.Config(
      dim=dim,
      num_layers=num_layers,
      num_heads=dim // self.head_dim,
      dropout=self.dropout,
      remat=self.remat,
      dtype=self.dtype,
      implementation=self.implementation,
      **fields,
    )

  def check_tokenizer(self, tokenizer: Any) -> None:
    """Raises a ValueError if ids are other bytes than `segmenter` reads."""
    segmenters.check_offset('model.segmenter', self.segmenter, tokenizer)

  def make(self, rngs: nnx.Rngs) -> 'Hat2':
    """Builds the model with random parameters."""
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. Set it '
        "to the tokenizer's vocab_size."
      )
    return Hat2(self, rngs=rngs)


class _Words(NamedTuple):
  """Where words are; s is t without a cache.

  Attributes:
    is_end_bt: New bytes that begin a word, and so complete the one before.
    unit_bs: Words that are complete, up to each byte: the number of its own.
    seen_bt: The word whose vector each new byte gets; -1 in first words.
    documents_bt: Documents of the new bytes; 0 is padding.
    documents_bs: Of all bytes.
  """

  is_end_bt: Any
  unit_bs: Any
  seen_bt: Any
  documents_bt: Any
  documents_bs: Any


class Hat2(nnx.Module):
  """A language model over bytes and words; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    d, looks = c.char_dim, c.num_looks
    self.embed = embed.Embed(
      c.vocab_rows, d, std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    make = lambda *args, **fields: level.Level(
      c.level(*args, **fields), rngs=rngs
    )
    chars = lambda num, has_norm: make(
      d, num, mlp_dim=c.char_mlp_dim, has_norm=has_norm
    )
    self.encoder = chars(c.num_encoder_layers, False)
    self.pool = word_query.WordQuery(
      d, c.dim, num_heads=d // c.head_dim, dtype=c.dtype, rngs=rngs
    )
    self.backbone = make(
      c.dim, c.num_layers, num_kv_heads=c.num_kv_heads, mlp_dim=c.mlp_dim
    )
    first = jax.random.normal(rngs.params(), (c.dim,))
    self.first = nnx.Param(first, axes=('embed',))
    self.down = linear.Linear(
      (c.dim,),
      (looks * d,),
      axes=('embed', 'mlp'),
      dtype=c.dtype,
      # At first like embeddings, as in HAT.
      std=c.embed_std / c.dim**0.5,
      rngs=rngs,
    )
    # One stack, cut where a word's vector is added.
    rest = c.num_decoder_layers - looks + 1
    self.decoder = nnx.List(
      chars(rest if i + 1 == looks else 1, i + 1 == looks) for i in range(looks)
    )
    self.head = embed.Head(
      d, c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
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

    Without an `rng` (evaluation, generation) no word is lost. With one, words
    beyond the capacity are, and `aux['target_mask_bt']` is False from there
    on.
    """
    level.refuse('Hat2', context=context, mask=mask)
    c, rngs = self.config, block.split(rng, 4)
    documents_bt = jnp.ones(tokens_bt.shape, jnp.int32)
    if segment_ids is not None:
      documents_bt = jnp.broadcast_to(segment_ids, tokens_bt.shape)
    slots_bt = None
    if cache is not None:
      cache, slots_bt = cache.reserve(tokens_bt, documents_bt)
    words = self._words(tokens_bt, documents_bt, cache, slots_bt)
    if positions is None:
      positions = jnp.arange(tokens_bt.shape[1])[None]
      positions = positions if slots_bt is None else slots_bt
    window = masks.Window(c.window) if c.window else masks.Full()
    local = dict(
      positions_bt=positions,
      segment_ids_bt=documents_bt,
      mask=masks.Causal() & window,
    )
    x_btd = partition.constrain(self.embed(tokens_bt), 'batch', 'length', None)
    x_btd = block.dropout(x_btd, c.dropout, rngs[0])
    x_btd, own = self.encoder(
      x_btd,
      cache=None if cache is None else cache.local[0],
      rng=rngs[1],
      **local,
    )
    if cache is not None:
      cache = cache.put('hidden', slots_bt, x_btd)
      cache = dataclasses.replace(cache, local=(own, *cache.local[1:]))
    parts_bwf, cache = self._backbone(x_btd, words, cache, slots_bt, rngs[2])
    x_btd, cache = self._decode(x_btd, parts_bwf, words, cache, rngs[3], local)
    aux = level.unit_aux(
      ragged.segment_ids(words.is_end_bt),
      words.is_end_bt,
      documents_bt,
      c.capacity.sizes(tokens_bt.shape[1])[-1],
      rng is not None,
    )
    return base.Output(x_btd, cache, aux)

  def _words(self, tokens_bt, documents_bt, cache, slots_bt) -> _Words:
    """Splits the row, or all that a cache has stored, into words."""
    tokens_bs, documents_bs, own = tokens_bt, documents_bt, lambda x: x
    if cache is not None:
      is_there_bs = jnp.arange(cache.max_len) < cache.length_b[:, None]
      only = lambda x: jnp.where(is_there_bs, x, 0)
      tokens_bs = only(cache.tokens_bs)
      documents_bs = only(cache.segment_ids_bs)
      own = lambda x: ragged.gather(x, slots_bt)
    start_bs = self.config.segmenter(tokens_bs, documents_bs)
    is_first_bs = segmenters.first(tokens_bs, documents_bs)
    start_bs = segmenters.limit_characters(
      start_bs | is_first_bs,
      self.config.max_word,
      tokens_bs,
      getattr(self.config.segmenter, 'offset', 0),
    )
    is_end_bs = start_bs & ~is_first_bs & (documents_bs != 0)
    num_bs = jnp.cumsum(is_end_bs, axis=1, dtype=jnp.int32)
    before_bs = jax.lax.cummax(jnp.where(is_first_bs, num_bs, 0), axis=1)
    seen_bs = jnp.where(num_bs > before_bs, num_bs - 1, -1)
    return _Words(
      own(is_end_bs), num_bs, own(seen_bs), documents_bt, documents_bs
    )

  def _backbone(self, x_btd, words, cache, slots_bt, rng):
    """What words give to each look [b, w, looks d], and the cache."""
    b, t = words.is_end_bt.shape
    trunk, start_b1, x_bsd = None, jnp.zeros((b, 1), jnp.int32), x_btd
    if cache is not None:
      trunk, x_bsd = cache.trunk, cache.states['hidden']
      start_b1 = trunk.length_b[:, None]
    sizes = level.unit_sizes(self.config.capacity, t, rng is not None, cache)

    def call(size):
      if size == 0:
        return cache.states['parts'], trunk
      ends = ragged.compact(words.documents_bt, words.is_end_bt, size)
      # Counted from the first new word. The last word of a document is not
      # completed: its bytes would be in the first word of the next one.
      unit_bs = words.unit_bs - start_b1
      is_in_bs = ragged.expand(ends.values_bwd, unit_bs) == words.documents_bs
      is_in_bs &= words.documents_bs != 0
      place_bw = start_b1 + jnp.arange(size)
      u_bwd, longer = self.backbone(
        self.pool(x_bsd, jnp.where(is_in_bs, unit_bs, -1), size),
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

    parts_bwf, trunk = ragged.dispatch(call, sizes, words.is_end_bt.sum(axis=1))
    if cache is not None:
      cache = cache.add_units(words.is_end_bt, slots_bt, trunk)
      states = cache.states | {'parts': parts_bwf}
      cache = dataclasses.replace(cache, states=states)
    return parts_bwf, cache

  def _decode(self, x_btd, parts_bwf, words, cache, rng, local):
    """Final states; what words give is added before layers."""
    look_btf = ragged.expand(parts_bwf, words.seen_bt)
    first_f = self.down(self.first[...].astype(x_btd.dtype))
    look_btf = jnp.where((words.seen_bt < 0)[..., None], first_f, look_btf)
    looks, stored = jnp.split(look_btf, len(self.decoder), axis=-1), []
    for i, (layers, look_btd) in enumerate(
      zip(self.decoder, looks, strict=True)
    ):
      key = None if rng is None else jax.random.fold_in(rng, i)
      own = None if cache is None else cache.local[1 + i]
      x_btd, own = layers(
        x_btd + look_btd.astype(x_btd.dtype), cache=own, rng=key, **local
      )
      stored.append(own)
    if cache is not None:
      cache = dataclasses.replace(cache, local=(cache.local[0], *stored))
    return x_btd, cache

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache for `max_len` bytes per row, all may begin words."""
    c = self.config
    make = lambda part: part.config.init_cache(batch_size, max_len)
    empty = lambda width: jnp.zeros((batch_size, max_len, width), c.dtype)
    local = (make(self.encoder), *map(make, self.decoder))
    states = {
      'hidden': empty(c.char_dim),
      'parts': empty(c.num_looks * c.char_dim),
    }
    return nested.NestedCache.empty(local, make(self.backbone), states)

  def flops(
    self, shape: base.Shape, kept: float | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Attention of bytes counts the keys of the window, the backbone the room for
    words, `capacity` of the positions; with `kept` that many words per
    position.
    """
    c, rows = self.config, shape.b * shape.t
    keys = shape.kv or shape.t
    sight = min(keys, c.window or keys)
    room = c.capacity.room(shape.t, kept)
    room_kv = c.capacity.room(keys, kept)
    units = shape.b * room
    decoder = sum(part.config.flops(rows, sight) for part in self.decoder)
    return {
      'encoder': self.encoder.config.flops(rows, sight),
      'words': self.pool.flops(rows, units),
      'backbone': self.backbone.config.flops(units, room_kv),
      'between': 2.0 * units * c.dim * c.num_looks * c.char_dim,
      'decoder': decoder,
      'head': 2.0 * rows * c.char_dim * c.vocab_rows,
    }

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learn Your Tokens: words pooled into a few vectors, and spelled from them.

Thawani et al. 2023, arXiv:2310.11628, section 3. Each word is read together
with p prefix tokens, whose states are its vectors; a causal transformer goes
over the vectors of all words, and from its p states at a word the next one is
spelled, byte by byte, with attention to them and to the bytes before:

  <1> .. <p>, bytes of word i    -> encoder, both ways -> z_i1 .. z_ip
  z_11 .. z_1p, z_21 .. z_ip     -> backbone, causal   -> u_i1 .. u_ip
  u_i1 .. u_ip, bytes of i + 1   -> decoder, causal    -> bytes of i + 1, <word>

The tokens are those of `tokenizers.word_bytes`, and the layout is flat, as in
`hat`, which has one vector per word: a mark <word> takes the room of the p
prefixes, and words need no padding to the longest one. The end of a word is
the mark and counts once; the code of the authors takes the padding for it, and
so for many easy targets. Before the first word stands BOS, one vector.

Differs from the paper: RMSNorm and RoPE in all three transformers (the authors
have a post-norm encoder and learned positions); bytes are the units.

Axes: b rows, t tokens, s stored tokens, l places (tokens, and p for each mark),
x slots (p for each token), w vectors of words, d width.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import nested
from jaxtok.config import configclass
from jaxtok.models import base, level, word_layout
from jaxtok.nn import block, embed, linear, masks, ragged


@configclass
class Config:
  """Hyper-parameters of `WordPooled`; the defaults are the authors'."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 512  # Width d of all three transformers.
  num_heads: int = 8
  num_layers: int = 8  # Of the backbone.
  num_char_layers: int = 2  # Of the encoder, and of the decoder.
  num_vectors: int = 4  # Of a word, p.
  max_word: int = 64  # Bytes of a word, as in the tokenizer.
  word_id: int = 259  # The mark; ids as in `tokenizers.word_bytes`.
  document_id: int = 257  # What stands before the first word.
  # Room for words in training; beyond it, targets are left out. Otherwise
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
    level.check_sizes(
      self, 'num_layers', 'num_char_layers', 'num_vectors', 'max_word'
    )
    if self.word_id == self.document_id:
      raise ValueError(
        f'word_id and document_id are both {self.word_id}; they are different '
        'tokens.'
      )
    linear.check_dtype(self.dtype)
    self.level(1)  # Checks the widths.

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def level(self, num_layers: int) -> level.Config:
    """The config of one of the three transformers."""
    return level.Config(
      dim=self.dim,
      num_layers=num_layers,
      num_heads=self.num_heads,
      activation='gelu',
      gated=False,
      dropout=self.dropout,
      remat=self.remat,
      dtype=self.dtype,
      implementation=self.implementation,
    )

  def check_tokenizer(self, tokenizer: Any) -> None:
    """See `word_layout.check_tokenizer`."""
    word_layout.check_tokenizer(self, tokenizer)

  def make(self, rngs: nnx.Rngs) -> 'WordPooled':
    """Builds the model with random parameters.

    Raises:
      ValueError: If the vocabulary lacks the marks.
    """
    least = max(self.word_id, self.document_id) + 1
    if self.vocab_size < least:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= {least} to hold word_id='
        f'{self.word_id} and document_id={self.document_id}. Use the tokenizer '
        'tokenizers.word_bytes, or set the ids of yours.'
      )
    return WordPooled(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class _Places:
  """Tokens spread out, so that a mark has p places [b, l].

  Attributes:
    tokens: Tokens; a mark stands at each of its places.
    prefix: 0..p-1 at the places of a mark, else p.
    documents: Documents; 0 is padding, or nothing.
    encoder: Words of the encoder, 0 is nothing.
    encoder_place: Places in them.
    decoder: Words of the decoder, 0 is nothing.
    decoder_place: Places in them.
  """

  tokens: Any
  prefix: Any
  documents: Any
  encoder: Any
  encoder_place: Any
  decoder: Any
  decoder_place: Any

  def take(self, index_bl) -> '_Places':
    """What stands at the given places, or nothing where there are none."""
    fields = dataclasses.fields(self)
    return _Places(
      *(ragged.gather(getattr(self, f.name), index_bl) for f in fields)
    )


class WordPooled(nnx.Module):
  """A language model over bytes and words; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config

    def table(num, axis):
      return embed.Embed(
        num, c.dim, axis=axis, std=c.embed_std, dtype=c.dtype, rngs=rngs
      )

    self.embed = table(c.vocab_rows, 'vocab')
    self.prefix = table(c.num_vectors, 'type')
    self.encoder = level.Level(c.level(c.num_char_layers), rngs=rngs)
    self.backbone = level.Level(c.level(c.num_layers), rngs=rngs)
    self.decoder = level.Level(c.level(c.num_char_layers), rngs=rngs)
    self.head = embed.Head(
      c.dim, c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
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

    Positions are not used: bytes count within their word, and words within the
    row. Without an `rng` (evaluation, generation) no word is lost. With one,
    words beyond the capacity are, and `aux['target_mask_bt']` is False from
    there on.
    """
    del positions
    level.refuse('WordPooled', context=context, mask=mask)
    is_end_bt = tokens_bt == self.config.word_id
    if segment_ids is not None:
      is_end_bt = is_end_bt & (segment_ids != 0)
    if cache is None:
      hidden_btd = self._row(tokens_bt, is_end_bt, segment_ids, rng)
    else:
      hidden_btd, cache = self._step(tokens_bt, is_end_bt, segment_ids, cache)
    capacity = self.config.capacity.sizes(tokens_bt.shape[1])[-1]
    aux = level.unit_aux(
      ragged.segment_ids(is_end_bt),
      is_end_bt,
      segment_ids,
      capacity,
      rng is not None,
    )
    return base.Output(hidden_btd, cache, aux)

  def _row(self, tokens_bt, is_end_bt, segment_ids, rng):
    """States without a cache: places are moved together."""
    p, t = self.config.num_vectors, tokens_bt.shape[1]
    rngs = block.split(rng, 4)
    spread = self._spread(tokens_bt, segment_ids)
    is_place_bx = (spread.prefix < p) | (jnp.arange(p * t) % p == p - 1)
    index_bt = jnp.arange(t) + (p - 1) * jnp.cumsum(is_end_bt, axis=1)
    window = self.config.max_word + p

    def call(size):
      num = t + (p - 1) * size
      kept = ragged.compact(spread.prefix, is_place_bx, num)
      places = spread.take(kept.index_bw)
      z_bld = self._encode(places, window, rngs[0])
      x_bld, _ = self._words(z_bld, places, size, None, rngs)
      y_bld, _ = self._decode(x_bld, places, window, None, rngs[3])
      return ragged.gather(y_bld, index_bt)

    sizes = level.unit_sizes(self.config.capacity, t, rng is not None, None)
    return ragged.dispatch(call, sizes, is_end_bt.sum(axis=1))

  def _step(self, tokens_bt, is_end_bt, segment_ids, cache):
    """States with a cache, whose slots are p for each token."""
    p, t = self.config.num_vectors, tokens_bt.shape[1]
    cache, slots_bt = cache.reserve(tokens_bt, segment_ids)
    stored = self._spread(cache.tokens_bs, cache.segment_ids_bs)
    slots_bx = p * slots_bt[:, :1] + jnp.arange(p * t)
    places = stored.take(slots_bx)
    window = p * (self.config.max_word + 1)

    def call(size):
      if size == 0:
        return self._bytes(places), cache.trunk
      # The bytes of the word that ends here, which may be stored ones.
      back_l = jnp.arange(window + p * t) - window
      around = stored.take(slots_bx[:, :1] + back_l)
      z_bxd = self._encode(around, window, None)[:, -p * t :]
      return self._words(z_bxd, places, size, cache.trunk, [None] * 4)

    sizes = level.unit_sizes(self.config.capacity, t, False, cache)
    x_bxd, trunk = ragged.dispatch(call, sizes, is_end_bt.sum(axis=1))
    y_bxd, local = self._decode(x_bxd, places, window, cache.local[0], None)
    cache = cache.add_units(is_end_bt, slots_bt, trunk, p)
    cache = dataclasses.replace(cache, local=(local,))
    return y_bxd[:, p - 1 :: p], cache

  def _spread(self, tokens_bs, documents_bs) -> _Places:
    """p slots for each token; but for marks only the last holds something."""
    c, p = self.config, self.config.num_vectors
    words = word_layout.layout(
      tokens_bs,
      documents_bs,
      word_id=c.word_id,
      document_id=c.document_id,
      max_word=c.max_word,
    )
    if documents_bs is None:
      documents_bs = jnp.ones_like(tokens_bs)
    documents_bs = jnp.broadcast_to(documents_bs, tokens_bs.shape)
    slot_x = jnp.arange(p * tokens_bs.shape[1]) % p
    repeat = lambda x_bs: jnp.repeat(x_bs, p, axis=1)
    is_mark_bx = repeat((tokens_bs == c.word_id) & (documents_bs != 0))
    is_place_bx = is_mark_bx | (slot_x == p - 1)
    filled = lambda x_bs: jnp.where(is_place_bx, repeat(x_bs), 0)
    place = lambda x_bs: jnp.where(is_mark_bx, slot_x, repeat(x_bs) + p - 1)
    return _Places(
      tokens=repeat(tokens_bs),
      prefix=jnp.where(is_mark_bx, slot_x, p),
      documents=filled(documents_bs),
      encoder=filled(words.encoder_bs),
      encoder_place=place(words.encoder_place_bs),
      decoder=filled(words.decoder_bs),
      decoder_place=place(words.decoder_place_bs),
    )

  def _bytes(self, places):
    """Embeddings of bytes; zero at the places of marks and of nothing."""
    is_byte_bl = (places.prefix == self.config.num_vectors) & (
      places.documents != 0
    )
    x_bld = self.embed(places.tokens)
    return jnp.where(is_byte_bl[..., None], x_bld, 0)

  def _encode(self, places, window, rng):
    """States of bytes and prefixes within their words."""
    is_prefix_bl = places.prefix < self.config.num_vectors
    last = self.config.num_vectors - 1
    prefix_bld = self.prefix(jnp.minimum(places.prefix, last))
    x_bld = self._bytes(places)
    x_bld = jnp.where(is_prefix_bl[..., None], prefix_bld, x_bld)
    x_bld = partition.constrain(x_bld, 'batch', 'length', None)
    rng, key = block.split(rng, 2)
    z_bld, _ = self.encoder(
      block.dropout(x_bld, self.config.dropout, key),
      positions_bt=places.encoder_place,
      segment_ids_bt=places.encoder,
      mask=masks.Window(window),
      rng=rng,
    )
    return z_bld

  def _words(self, z_bld, places, size, trunk, rngs):
    """The decoder's input, and the backbone's cache with the new vectors."""
    p = self.config.num_vectors
    is_prefix_bl = (places.prefix < p) & (places.documents != 0)
    kept = ragged.compact(z_bld, is_prefix_bl, p * size)
    positions_bw = jnp.arange(p * size)[None]
    if trunk is not None:
      positions_bw = trunk.length_b[:, None] + positions_bw
    u_bwd, longer = self.backbone(
      kept.values_bwd,
      positions_bt=positions_bw,
      segment_ids_bt=ragged.gather(places.documents, kept.index_bw),
      mask=masks.Causal(),
      cache=trunk,
      rng=rngs[1],
    )
    x_bld = block.dropout(self._bytes(places), self.config.dropout, rngs[2])
    return ragged.scatter_add(x_bld, kept.index_bw, u_bwd), longer

  def _decode(self, x_bld, places, window, cache, rng):
    """States that predict, and the decoder's cache."""
    return self.decoder(
      x_bld,
      positions_bt=places.decoder_place,
      segment_ids_bt=places.decoder,
      mask=masks.Causal() & masks.Window(window),
      cache=cache,
      rng=rng,
    )

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  @property
  def positions_per_unit(self) -> int:
    """Positions of the backbone for each word."""
    return self.config.num_vectors

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache for `max_len` tokens per row, all may be marks."""
    slots = self.config.num_vectors * max_len
    make = lambda part: part.config.init_cache(batch_size, slots)
    local, trunk = make(self.decoder), make(self.backbone)
    return nested.NestedCache.empty((local,), trunk, max_len=max_len)

  def flops(
    self, shape: base.Shape, kept: float | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Attention within words counts the keys of a window that holds the longest
    word, the backbone the room for words, `capacity` of the positions; with
    `kept` that many words per position.
    """
    c, p = self.config, self.config.num_vectors
    keys = shape.kv or shape.t
    room = c.capacity.room(shape.t, kept)
    room_kv = c.capacity.room(keys, kept)
    places = shape.b * (shape.t + (p - 1) * room)
    keys += (p - 1) * room_kv
    chars, window = self.encoder.config, c.max_word + p
    return {
      'encoder': chars.flops(places, min(keys, 2 * window - 1)),
      'decoder': chars.flops(places, min(keys, window)),
      'backbone': self.backbone.config.flops(shape.b * p * room, p * room_kv),
      'head': 2.0 * shape.b * shape.t * c.dim * c.vocab_rows,
    }

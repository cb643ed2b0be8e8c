# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hierarchical autoregressive transformer: bytes in words, words in a text.

Neitemeier et al. 2025, arXiv:2501.10322, section 3. A small bidirectional
transformer turns each word into a vector, a large causal one goes over the
words, and a small causal one spells the next word from its prediction:

  bytes of word i, <word>  -> encoder -> state at <word> -> e_i
  e_1 .. e_i               -> backbone -> p_i
  p_i, bytes of word i + 1 -> decoder -> bytes of word i + 1, <word>

The tokens are those of `tokenizers.word_bytes`: bytes, and a mark <word> behind
each word. In this flat layout a row of bytes needs no other padding, and both
small transformers are one call with attention within words: the encoder over
"bytes <word>", the decoder over "<word> bytes", where the place of the mark
holds p_i instead of an embedding. Before the first word stands BOS, whose
embedding is the learned first prediction. The end of a text is the BOS of the
next one, predicted at the last mark like any first byte of a word.

Where a row begins inside a word, that word is what is in the row. A word that
grows beyond `max_word` bytes without a mark goes on without its beginning.

Differs from the paper: the blocks of all three transformers are alike; the
table of bytes is shared by encoder and decoder.

Axes: b rows, t tokens, s stored tokens, w words, d width of bytes, D of words.
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
  """Hyper-parameters of `Hat`."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 256  # Width D of the backbone.
  char_dim: int = 128  # Width d of encoder and decoder.
  head_dim: int = 64  # Of all three.
  num_layers: int = 4  # Of the backbone.
  num_char_layers: int = 2  # Of the encoder, and of the decoder.
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
      self,
      *('dim', 'char_dim', 'head_dim'),
      *('num_layers', 'num_char_layers', 'max_word'),
    )
    for width in (self.dim, self.char_dim):
      if width % self.head_dim:
        raise ValueError(
          f'widths dim={self.dim} and char_dim={self.char_dim} must be '
          f'multiples of head_dim={self.head_dim}.'
        )
    if self.word_id == self.document_id:
      raise ValueError(
        f'word_id and document_id are both {self.word_id}; they are different '
        'tokens.'
      )
    linear.check_dtype(self.dtype)

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def level(self, dim: int, num_layers: int) -> level.Config:
    """The config of one of the three transformers."""
    return level.Config(
      dim=dim,
      num_layers=num_layers,
      num_heads=dim // self.head_dim,
      dropout=self.dropout,
      remat=self.remat,
      dtype=self.dtype,
      implementation=self.implementation,
    )

  def check_tokenizer(self, tokenizer: Any) -> None:
    """See `word_layout.check_tokenizer`."""
    word_layout.check_tokenizer(self, tokenizer)

  def make(self, rngs: nnx.Rngs) -> 'Hat':
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
    return Hat(self, rngs=rngs)


class Hat(nnx.Module):
  """A language model over bytes and words; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    self.embed = embed.Embed(
      c.vocab_rows, c.char_dim, std=c.embed_std, dtype=c.dtype, rngs=rngs
    )
    chars = c.level(c.char_dim, c.num_char_layers)
    self.encoder = level.Level(chars, rngs=rngs)
    self.backbone = level.Level(c.level(c.dim, c.num_layers), rngs=rngs)
    self.decoder = level.Level(chars, rngs=rngs)
    self.up = linear.Linear(
      (c.char_dim,), (c.dim,), axes=('embed', 'mlp'), dtype=c.dtype, rngs=rngs
    )
    self.down = linear.Linear(
      (c.dim,),
      (c.char_dim,),
      axes=('embed', 'mlp'),
      dtype=c.dtype,
      # Like the embeddings between which its results stand.
      std=c.embed_std / c.dim**0.5,
      rngs=rngs,
    )
    self.head = embed.Head(
      c.char_dim, c.vocab_rows, is_tied=False, dtype=c.dtype, rngs=rngs
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
    level.refuse('Hat', context=context, mask=mask)
    rngs = block.split(rng, 4)
    tokens_bs, documents_bs, slots_bt = tokens_bt, segment_ids, None
    if cache is not None:
      cache, slots_bt = cache.reserve(tokens_bt, segment_ids)
      tokens_bs, documents_bs = cache.tokens_bs, cache.segment_ids_bs
    c = self.config
    layout = word_layout.layout(
      tokens_bs,
      documents_bs,
      word_id=c.word_id,
      document_id=c.document_id,
      max_word=c.max_word,
    )
    is_end_bt = tokens_bt == self.config.word_id
    if segment_ids is not None:
      is_end_bt = is_end_bt & (segment_ids != 0)
    x_btd, trunk = self._words(
      tokens_bt, is_end_bt, layout, segment_ids, (cache, slots_bt), rngs
    )
    x_btd = block.dropout(x_btd, self.config.dropout, rngs[2])
    own = lambda x: x if cache is None else ragged.gather(x, slots_bt)
    x_btd, local = self.decoder(
      x_btd,
      positions_bt=own(layout.decoder_place_bs),
      segment_ids_bt=own(layout.decoder_bs),
      mask=masks.Causal() & masks.Window(self.config.max_word + 1),
      cache=None if cache is None else cache.local[0],
      rng=rngs[3],
    )
    if cache is not None:
      cache = cache.add_units(is_end_bt, slots_bt, trunk)
      cache = dataclasses.replace(cache, local=(local,))
    capacity = self.config.capacity.sizes(tokens_bt.shape[1])[-1]
    aux = level.unit_aux(
      ragged.segment_ids(is_end_bt),
      is_end_bt,
      segment_ids,
      capacity,
      rng is not None,
    )
    return base.Output(x_btd, cache, aux)

  def _words(self, tokens_bt, is_end_bt, layout, segment_ids, stored, rngs):
    """The decoder's input, and the backbone's cache with the new words."""
    cache, _ = stored
    trunk = None if cache is None else cache.trunk
    c, (b, t) = self.config, tokens_bt.shape
    x_btd = jnp.where(is_end_bt[..., None], 0, self.embed(tokens_bt))
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    documents_bt = jnp.ones((b, t), jnp.int32)
    if segment_ids is not None:
      documents_bt = jnp.broadcast_to(segment_ids, (b, t))

    def call(size):
      if size == 0:
        return x_btd, trunk
      hidden_btd = self._encode(tokens_bt, layout, stored, rngs[0])
      kept = ragged.compact(hidden_btd, is_end_bt, size)
      positions_bw = jnp.arange(size)[None]
      if trunk is not None:
        positions_bw = trunk.length_b[:, None] + positions_bw
      u_bwd, longer = self.backbone(
        self.up(kept.values_bwd),
        positions_bt=positions_bw,
        segment_ids_bt=ragged.gather(documents_bt, kept.index_bw),
        mask=masks.Causal(),
        cache=trunk,
        rng=rngs[1],
      )
      p_bwd = self.down(u_bwd).astype(x_btd.dtype)
      return ragged.scatter_add(x_btd, kept.index_bw, p_bwd), longer

    sizes = level.unit_sizes(c.capacity, t, rngs[0] is not None, cache)
    return ragged.dispatch(call, sizes, is_end_bt.sum(axis=1))

  def _encode(self, tokens_bt, layout, stored, rng):
    """States of the tokens within their words, which may be bidirectional.

    With a cache, the stored bytes of the word that is being spelled are
    encoded again, together with the new ones.
    """
    cache, slots_bt = stored
    window, t = self.config.max_word, tokens_bt.shape[1]
    words_bs, place_bs = layout.encoder_bs, layout.encoder_place_bs
    if cache is not None:
      back_t = jnp.arange(window + t) - window
      index_bt = slots_bt[:, :1] + back_t  # Below 0: no such token.
      tokens_bt = ragged.gather(cache.tokens_bs, index_bt)
      words_bs = ragged.gather(words_bs, index_bt)
      place_bs = ragged.gather(place_bs, index_bt)
    hidden_btd, _ = self.encoder(
      self.embed(tokens_bt),
      positions_bt=place_bs,
      segment_ids_bt=words_bs,
      mask=masks.Window(window + 1),
      rng=rng,
    )
    return hidden_btd[:, -t:]

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed)
    return logits_btv[..., : self.config.vocab_size]

  def init_cache(self, batch_size: int, max_len: int) -> nested.NestedCache:
    """An empty cache for `max_len` tokens per row, all may be marks."""
    make = lambda part: part.config.init_cache(batch_size, max_len)
    return nested.NestedCache.empty((make(self.decoder),), make(self.backbone))

  def flops(
    self, shape: base.Shape, kept: float | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Attention within words counts the keys of a window that holds the longest
    word, the backbone the room for words, `capacity` of the positions; with
    `kept` that many words per position.
    """
    c, rows = self.config, shape.b * shape.t
    keys = shape.kv or shape.t
    room = c.capacity.room(shape.t, kept)
    room_kv = c.capacity.room(keys, kept)
    chars = self.encoder.config
    return {
      'encoder': chars.flops(rows, min(keys, 2 * c.max_word + 1)),
      'decoder': chars.flops(rows, min(keys, c.max_word + 1)),
      'backbone': self.backbone.config.flops(shape.b * room, room_kv),
      'between': 4.0 * shape.b * room * c.dim * c.char_dim,
      'head': 2.0 * rows * c.char_dim * c.vocab_rows,
    }

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoder, encoder and encoder-decoder transformers from one block.

Vaswani et al. 2017, arXiv:1706.03762, with the options of the published
families: `llama`, `qwen2`, `gpt2`, `bert`, `roberta`, `t5` and `byt5` give
their configs (parity with `transformers` is tested on random weights).

Axes: b rows, t positions, s positions of the encoder, d width, v vocabulary.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import kv
from jaxtok.config import configclass
from jaxtok.models import base
from jaxtok.nn import (
  activations,
  attention,
  block,
  cross,
  embed,
  linear,
  masks,
  norms,
  relative_bias,
  rope,
  stack,
)

POSITIONS = ('rope', 't5', 'learned', 'none')
BIASES = ('none', 'qkv', 'all')


@configclass
class Config:
  """Hyper-parameters of `Transformer`.

  Defaults: a decoder with RoPE, RMSNorm and a plain MLP; 0 means "derived".
  """

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 128  # Model width d.
  num_layers: int = 4  # Of the decoder, or of an encoder alone.
  num_encoder_layers: int = 0  # > 0 adds an encoder and cross-attention.
  num_heads: int = 4
  num_kv_heads: int = 0  # 0 means num_heads.
  head_dim: int = 0  # 0 means dim / num_heads.
  mlp_dim: int = 0  # 0 means 4 dim, or 8/3 dim if gated.
  activation: str = 'gelu'  # See `nn.activations.FUNCTIONS`.
  gated: bool = False  # The MLP.
  norm: str = 'rms'  # Or 'layer'.
  norm_eps: float = 1e-6
  is_pre_norm: bool = True  # Post-norm has no norm after the last block.
  embed_norm: bool = False  # A norm after the embeddings (BERT).
  qk_norm: bool = False  # RMSNorm of queries and keys.
  position: str = 'rope'  # Or 't5', 'learned', 'none'.
  rotary: rope.Config = dataclasses.field(default_factory=rope.Config)
  max_len: int = 0  # Longest row if position='learned'.
  first_position: int = 0  # Row of position 0 in that table (RoBERTa: 2).
  num_buckets: int = 32  # If position='t5'.
  max_distance: int = 128  # If position='t5'.
  token_types: int = 0  # > 0 adds a table; the model uses its row 0 (BERT).
  phases: int = 0  # Adds a table of position modulo it; `tokens_per_window`.
  is_causal: bool = True  # Default mask; False makes an encoder.
  attention_bias: str = 'none'  # Biases of the projections: 'qkv' or 'all'.
  mlp_bias: bool = False
  attention_scale: float = 0.0  # Of the scores; 0 means 1/sqrt(head_dim).
  soft_cap: float = 0.0  # Of attention scores; 0 means none.
  logit_soft_cap: float = 0.0
  is_tied: bool = True  # The head uses the token table.
  head_bias: bool = False  # Of the logits.
  head_transform: bool = False  # Dense, activation and norm first (BERT).
  head_scale: float = 1.0  # Multiplies the states before the head (tied T5).
  embed_std: float = 0.02
  branch_scale: float = 0.0  # Of branches at first; 0: 1/sqrt(their number).
  dropout: float = 0.0  # Of embeddings and branches, in calls with an rng.
  remat: bool = False  # Recompute each block in the backward pass.
  dtype: str = 'float32'  # Of matmul inputs; parameters stay float32.
  implementation: str = ''  # Of `nn.attention`; '' takes the best.

  def __post_init__(self):
    for name in ('dim', 'num_layers', 'num_heads', 'vocab_multiple'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 1.')
    if not self.head_dim and self.dim % self.num_heads:
      raise ValueError(
        f'dim={self.dim} must be a multiple of num_heads={self.num_heads}. '
        'Change one of them, or set head_dim.'
      )
    if self.num_heads % self.kv_heads:
      raise ValueError(
        f'num_heads={self.num_heads} must be a multiple of num_kv_heads='
        f'{self.num_kv_heads}.'
      )
    _require('position', self.position, POSITIONS)
    _require('attention_bias', self.attention_bias, BIASES)
    _require('norm', self.norm, norms.KINDS)
    linear.check_dtype(self.dtype)
    activations.check(self.activation)
    if self.position == 'rope':
      rope.frequencies(self.head_width, self.rotary)
    if self.position == 'learned' and self.max_len < 1:
      raise ValueError(
        f"position='learned' needs max_len >= 1, got {self.max_len}. Set it "
        'to the longest row.'
      )
    for name in ('first_position', 'branch_scale'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 0.')
    if not 0 <= self.dropout < 1:
      raise ValueError(f'dropout={self.dropout} must be in [0, 1).')
    if self.is_encoder_decoder and not self.is_causal:
      raise ValueError(
        f'num_encoder_layers={self.num_encoder_layers} needs a causal decoder: '
        'set is_causal=True, or num_encoder_layers=0 for an encoder alone.'
      )

  @property
  def kv_heads(self) -> int:
    return self.num_kv_heads or self.num_heads

  @property
  def head_width(self) -> int:
    return self.head_dim or self.dim // self.num_heads

  @property
  def mlp_width(self) -> int:
    """Hidden width; the gated default is rounded up to a multiple of 8."""
    if self.mlp_dim:
      return self.mlp_dim
    return -(-self.dim * 8 // 24) * 8 if self.gated else 4 * self.dim

  @property
  def is_encoder_decoder(self) -> bool:
    return self.num_encoder_layers > 0

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def make(self, rngs: nnx.Rngs) -> 'Transformer':
    """Builds the model with random parameters.

    Raises:
      ValueError: If `vocab_size` is still 0.
    """
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. '
        "Set it to the tokenizer's vocab_size."
      )
    return Transformer(self, rngs=rngs)

  def block_config(self, has_cross: bool) -> block.Config:
    """The config of one layer."""
    num_branches = 2 * (self.num_layers + self.num_encoder_layers)
    scale = self.branch_scale or 1 / math.sqrt(num_branches)
    inner = self.num_heads * self.head_width
    # Scores start with variance 1 whatever their scale (T5: scale 1).
    gain = self.attention_scale * math.sqrt(self.head_width) or 1.0
    return block.Config(
      attention=attention.Config(
        dim=self.dim,
        num_heads=self.num_heads,
        num_kv_heads=self.kv_heads,
        head_dim=self.head_width,
        qkv_bias=self.attention_bias != 'none',
        out_bias=self.attention_bias == 'all',
        qk_norm=self.qk_norm,
        norm_eps=self.norm_eps,
        scale=self.attention_scale,
        soft_cap=self.soft_cap,
        q_std=1 / (math.sqrt(self.dim) * gain),
        out_std=scale / math.sqrt(inner),
        dtype=self.dtype,
        implementation=self.implementation,
      ),
      mlp_dim=self.mlp_width,
      activation=self.activation,
      gated=self.gated,
      mlp_bias=self.mlp_bias,
      norm=self.norm,
      norm_eps=self.norm_eps,
      is_pre_norm=self.is_pre_norm,
      has_cross=has_cross,
      out_std=scale / math.sqrt(self.mlp_width),
      dropout=self.dropout,
    )

  @classmethod
  def gpt2(cls, **fields) -> 'Config':
    """GPT-2: Radford et al. 2019; needs vocab_size and max_len."""
    defaults = dict(norm='layer', norm_eps=1e-5, position='learned')
    defaults |= dict(attention_bias='all', mlp_bias=True)
    return cls(**_EXACT | defaults | fields)

  @classmethod
  def llama(cls, **fields) -> 'Config':
    """Llama: Touvron et al. 2023, arXiv:2302.13971."""
    defaults = dict(norm_eps=1e-5, activation='silu', gated=True, is_tied=False)
    return cls(**_EXACT | defaults | fields)

  @classmethod
  def qwen2(cls, **fields) -> 'Config':
    """Qwen2: Yang et al. 2024, arXiv:2407.10671."""
    defaults = dict(
      activation='silu',
      gated=True,
      attention_bias='qkv',
      rotary=rope.Config(theta=1e6),
    )
    return cls(**_EXACT | defaults | fields)

  @classmethod
  def bert(cls, **fields) -> 'Config':
    """BERT with its masked-token head: Devlin et al. 2018, arXiv:1810.04805."""
    defaults = dict(is_causal=False, is_pre_norm=False, norm='layer')
    defaults |= dict(norm_eps=1e-12, embed_norm=True, position='learned')
    defaults |= dict(token_types=2, activation='gelu_exact')
    defaults |= dict(attention_bias='all', mlp_bias=True)
    defaults |= dict(head_transform=True, head_bias=True)
    return cls(**_EXACT | defaults | fields)

  @classmethod
  def roberta(cls, **fields) -> 'Config':
    """RoBERTa, CodeBERT: Liu et al. 2019, arXiv:1907.11692."""
    defaults = dict(norm_eps=1e-5, token_types=1, first_position=2)
    return cls.bert(**defaults | fields)

  @classmethod
  def t5(cls, **fields) -> 'Config':
    """T5 1.0: Raffel et al. 2020, arXiv:1910.10683; needs dim.

    Its tied head scales the states by 1/sqrt(dim).
    """
    defaults = dict(
      num_encoder_layers=fields.get('num_layers', cls.num_layers),
      position='t5',
      activation='relu',
      attention_scale=1.0,
      embed_std=1.0,
      branch_scale=1.0,
      head_scale=1 / math.sqrt(fields.get('dim', cls.dim)),
    )
    return cls(**_EXACT | defaults | fields)

  @classmethod
  def byt5(cls, **fields) -> 'Config':
    """T5 1.1 and ByT5: Xue et al. 2022, arXiv:2105.13626."""
    defaults = dict(
      activation='gelu', gated=True, is_tied=False, head_scale=1.0
    )
    return cls.t5(**defaults | fields)


_EXACT = dict(vocab_multiple=1)  # Published tables have no padding rows.


def _require(name: str, value: str, allowed: tuple[str, ...]) -> None:
  if value not in allowed:
    raise ValueError(f'{name}={value!r} must be one of {", ".join(allowed)}.')


class Transformer(nnx.Module):
  """A decoder, an encoder, or (with `num_encoder_layers`) both."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    c, dim = config, config.dim
    norm = lambda: norms.Norm(dim, kind=c.norm, eps=c.norm_eps)
    self.embed = embed.Embedder(
      c.vocab_rows,
      dim,
      max_len=c.max_len if c.position == 'learned' else 0,
      first_position=c.first_position,
      num_types=c.token_types,
      num_phases=c.phases,
      norm=norm() if c.embed_norm else None,
      std=c.embed_std,
      dtype=c.dtype,
      rngs=rngs,
    )
    num_encoder, has_encoder = c.num_encoder_layers, c.is_encoder_decoder
    self.encoder = (
      self._stack(num_encoder, False, False, rngs) if has_encoder else None
    )
    self.stack = self._stack(c.num_layers, c.is_causal, has_encoder, rngs)
    self.head = embed.Head(
      dim,
      c.vocab_rows,
      is_tied=c.is_tied,
      transform=c.activation if c.head_transform else '',
      norm=norm() if c.head_transform else None,
      use_bias=c.head_bias,
      scale=c.head_scale,
      soft_cap=c.logit_soft_cap,
      dtype=c.dtype,
      rngs=rngs,
    )

  def _stack(self, num_layers, is_causal, has_cross, rngs):
    c, bias = self.config, None
    if c.position == 't5':
      bias = relative_bias.RelativeBias(
        c.num_heads,
        is_causal=is_causal,
        num_buckets=c.num_buckets,
        max_distance=c.max_distance,
        std=1 / math.sqrt(c.dim),
        rngs=rngs,
      )
    return stack.Stack(
      c.block_config(has_cross),
      num_layers=num_layers,
      bias=bias,
      remat=c.remat,
      rngs=rngs,
    )

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: kv.KVCache | None = None,
    mask: masks.Mask | None = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions.

    Args:
      tokens_bt: Token ids.
      positions: Positions within the document; None counts from 0, or on from
        the cache's length.
      segment_ids: Documents of a packed row, contiguous, counted from 1; 0 is
        padding. Attention never leaves a document. None means one document.
      context: The encoder's input [b, s] as tokens, `cross.Source` (with
        padding) or `cross.Encoded`. May be None if the cache has seen it.
      cache: Keys and values of earlier tokens; the t new ones are appended.
      mask: Replaces the default (causal, or full for an encoder), e.g.
        `Causal() | Prefix(n)`; documents are isolated on top of it.
      rng: Turns dropout on.

    Returns:
      Final states, and the longer cache if one was given.

    Raises:
      ValueError: If context or cache do not fit the model.
    """
    encoder_rng, embed_rng, stack_rng = block.split(rng, 3)
    slots_bt = None
    if cache is not None:
      cache, slots_bt = cache.reserve(
        positions, segment_ids, tokens_bt.shape[1]
      )
    cross_kvs, cross_layout = None, None
    if self.encoder is not None or context is not None:
      cache, cross_kvs, cross_layout = cross.connect(
        self.stack.blocks,
        cross.encoded(context, self.encode, encoder_rng),
        cache,
        tokens_bt.shape[1],
        segment_ids,
      )
    default = masks.Causal() if self.config.is_causal else masks.Full()
    shared = self._context(
      self.stack.bias,
      tokens_bt.shape[1],
      positions,
      masks.Segments() & (default if mask is None else mask),
      segment_ids,
      cache,
      slots_bt,
    )
    positions = slots_bt if positions is None else positions
    x_btd = self._embed(tokens_bt, positions, embed_rng)
    shared = dataclasses.replace(shared, cross_layout=cross_layout)
    return self._decode(x_btd, shared, cache, cross_kvs, stack_rng)

  def _decode(self, x_btd, shared, cache, cross_kvs, rng) -> base.Output:
    x_btd, cache = self.stack(
      x_btd, shared, cache=cache, cross_kvs=cross_kvs, rng=rng
    )
    return base.Output(hidden_btd=x_btd, cache=cache)

  def encode(
    self,
    tokens_bs: Int[Array, 'b s'],
    *,
    positions: Int[Array, '#b s'] | None = None,
    segment_ids: Int[Array, '#b s'] | None = None,
    rng: Array | None = None,
  ) -> cross.Encoded:
    """Runs the encoder of an encoder-decoder, without a causal mask."""
    if self.encoder is None:
      raise ValueError(
        'context was given to a model without an encoder (no encoder layers).'
      )
    embed_rng, stack_rng = block.split(rng, 2)
    shared = self._context(
      self.encoder.bias,
      tokens_bs.shape[1],
      positions,
      masks.Segments(),
      segment_ids,
    )
    x_bsd = self._embed(tokens_bs, positions, embed_rng)
    hidden_bsd, _ = self.encoder(x_bsd, shared, rng=stack_rng)
    return cross.Encoded(hidden_bsd, segment_ids)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed.tokens)
    return logits_btv[..., : self.config.vocab_size]

  def init_cache(
    self, batch_size: int, max_len: int, dtype: str = ''
  ) -> kv.KVCache:
    """An empty cache for `max_len` tokens per row; dtype '' is the model's."""
    c = self.config
    if c.position == 'learned' and max_len > c.max_len:
      raise ValueError(
        f'max_len={max_len} of the cache exceeds the {c.max_len} learned '
        'positions of the model.'
      )
    return kv.KVCache.empty(
      num_layers=c.num_layers,
      batch_size=batch_size,
      max_len=max_len,
      num_kv_heads=c.kv_heads,
      head_dim=c.head_width,
      dtype=dtype or c.dtype,
    )

  @property
  def max_len(self) -> int:
    """Most tokens of a row; 0 means that there is no limit."""
    return self.config.max_len if self.config.position == 'learned' else 0

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """Matmul FLOPs of one forward pass (2 per multiply-add), by part.

    Attention counts all pairs of queries and keys, seen or not. Norms,
    activations, softmax and look-ups count nothing.
    """
    c, rows, rows_s = self.config, shape.b * shape.t, shape.b * shape.s
    own, keys = c.block_config(c.is_encoder_decoder), shape.kv or shape.t
    own = own.flops(rows, keys, rows_s, shape.s)
    parts = {k: c.num_layers * value for k, value in own.items()}
    if c.is_encoder_decoder:
      encoder = c.block_config(False).flops(rows_s, shape.s)
      parts['encoder'] = c.num_encoder_layers * sum(encoder.values())
    head = c.vocab_rows + c.head_transform * c.dim
    return parts | {'head': 2.0 * rows * c.dim * head}

  def _embed(self, tokens_bt, positions_bt, rng):
    x_btd = self.embed(tokens_bt, positions_bt)
    # Without this the compiler may split d as in the table, not the rows, and
    # then gathers whole batches in every layer.
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    return block.dropout(x_btd, self.config.dropout, rng)

  def _context(
    self, bias, t, positions, mask, segment_ids, cache=None, slots_bt=None
  ):
    """What the blocks of a stack share: layout, rotation, bias."""
    c = self.config
    layout = masks.Layout(
      t, t, q_segments_bt=segment_ids, kv_segments_bs=segment_ids
    )
    if cache is not None:
      layout = masks.Layout(
        t,
        cache.max_len,
        q_index_bt=slots_bt,
        q_segments_bt=segment_ids,
        kv_segments_bs=cache.segment_ids_bs,
        kv_length_b=cache.length_b,
      )
      positions = slots_bt if positions is None else positions
    positions = jnp.arange(t)[None] if positions is None else positions
    rotation, bias_nts = None, None
    if c.position == 'rope':
      rotation = rope.rotation(positions, c.head_width, c.rotary)
    if bias is not None:
      kv_positions = positions if cache is None else cache.positions_bs
      bias_nts = bias(positions, kv_positions)
    return block.Context(mask, layout, rotation, bias_nts, slots_bt)

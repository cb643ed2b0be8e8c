# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""DNABERT-2: a BERT with ALiBi and gated MLPs, over BPE tokens of genomes.

Zhou et al. 2023, arXiv:2306.15006, section 3.2; the layers are MosaicBERT's
(Portes et al. 2023, arXiv:2312.17482). Post-norm:

  x = norm(word + type)                          # No positions.
  x = norm(x + out(softmax(q k / sqrt(h) + alibi) v))
  x = norm(x + down(gelu(gate(x)) * up(x)))      # Only `down` has a bias.

Weights of published checkpoints are read by `models.interop`. The objective is
`objectives.masked_lm`, the tokenizer `tokenizers.dna.TrainBpe`; with other
tokenizers of that module the same model is the baseline.

Differs from the paper: initial matrices have a standard deviation of
1/sqrt(inputs), as elsewhere in this library, not 0.02.

Axes: b rows, t positions, d width, f hidden width, v vocabulary.
"""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok import partition
from jaxtok.config import configclass
from jaxtok.models import base, level
from jaxtok.nn import (
  activations,
  alibi,
  attention,
  block,
  embed,
  linear,
  masks,
  norms,
)


@configclass
class Config:
  """Hyper-parameters of `DnaBert2`; the defaults are the paper's (117 M)."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  vocab_multiple: int = 8  # Tables are padded to it, so that they shard.
  dim: int = 768  # Width d.
  num_layers: int = 12
  num_heads: int = 12
  mlp_dim: int = 3072  # Hidden width f.
  norm_eps: float = 1e-12
  token_types: int = 2  # Rows of a table of which the first is used.
  embed_std: float = 0.02
  dropout: float = 0.1
  remat: bool = False  # Recompute each layer in the backward pass.
  dtype: str = 'float32'
  implementation: str = ''  # Of `nn.attention`.

  def __post_init__(self):
    for name in ('dim', 'num_layers', 'num_heads', 'mlp_dim', 'token_types'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 1.')
    if self.dim % self.num_heads:
      raise ValueError(
        f'dim={self.dim} must be a multiple of num_heads={self.num_heads}.'
      )
    if not 0 <= self.dropout < 1:
      raise ValueError(f'dropout={self.dropout} must be in [0, 1).')
    linear.check_dtype(self.dtype)

  @property
  def vocab_rows(self) -> int:
    """Rows of the token table, with padding."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """Matmul FLOPs of one forward pass (2 per multiply-add), by part."""
    rows = float(shape.b * shape.t)
    parts = {
      'projections': 4 * self.dim * self.dim,
      'attention': 2 * shape.t * self.dim,
      'mlp': 3 * self.dim * self.mlp_dim,
    }
    found = {k: 2 * rows * self.num_layers * v for k, v in parts.items()}
    return found | {'head': 2 * rows * self.dim * (self.dim + self.vocab_rows)}

  def make(self, rngs: nnx.Rngs) -> 'DnaBert2':
    """Builds the model with random parameters."""
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. Set it '
        "to the tokenizer's vocab_size."
      )
    return DnaBert2(self, rngs=rngs)


class Layer(nnx.Module):
  """Attention and a gated MLP, each followed by a norm."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.dropout = config.dropout
    dim, f = config.dim, config.mlp_dim
    self.attention = attention.Attention(
      attention.Config(
        dim=dim,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_dim=dim // config.num_heads,
        qkv_bias=True,
        out_bias=True,
        dtype=config.dtype,
        implementation=config.implementation,
      ),
      rngs=rngs,
    )

    def project(num_in, num_out, axes, use_bias):
      return linear.Linear(
        (num_in,),
        (num_out,),
        axes=axes,
        use_bias=use_bias,
        dtype=config.dtype,
        rngs=rngs,
      )

    self.gate = project(dim, f, ('embed', 'mlp'), False)
    self.up = project(dim, f, ('embed', 'mlp'), False)
    self.down = project(f, dim, ('mlp', 'embed'), True)
    norm = lambda: norms.Norm(dim, kind='layer', eps=config.norm_eps)
    self.attention_norm, self.mlp_norm = norm(), norm()

  def __call__(
    self,
    x_btd: Float[Array, 'b t d'],
    context: block.Context,
    rng: Array | None,
  ) -> Float[Array, 'b t d']:
    """Applies the layer; `rng` turns dropout on."""
    rngs = block.split(rng, 2)
    y_btd = self.attention.attend(
      self.attention.queries(x_btd),
      *self.attention.keys_values(x_btd),
      mask=context.mask,
      layout=context.layout,
      bias=context.bias,
    )
    y_btd = block.dropout(y_btd, self.dropout, rngs[0])
    x_btd = self.attention_norm(x_btd + y_btd)
    gelu = activations.FUNCTIONS['gelu_exact']
    hidden_btf = gelu(self.gate(x_btd)) * self.up(x_btd)
    hidden_btf = block.dropout(hidden_btf, self.dropout, rngs[1])
    return self.mlp_norm(x_btd + self.down(hidden_btf))


class DnaBert2(nnx.Module):
  """An encoder with a head that predicts masked tokens."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    norm = lambda: norms.Norm(c.dim, kind='layer', eps=c.norm_eps)
    self.embed = embed.Embedder(
      c.vocab_rows,
      c.dim,
      num_types=c.token_types,
      norm=norm(),
      std=c.embed_std,
      dtype=c.dtype,
      rngs=rngs,
    )
    self.layers = nnx.List(Layer(c, rngs=rngs) for _ in range(c.num_layers))
    self.head = embed.Head(
      c.dim,
      c.vocab_rows,
      is_tied=True,
      transform='gelu_exact',
      norm=norm(),
      use_bias=True,
      dtype=c.dtype,
      rngs=rngs,
    )

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
    """Computes the states of all positions; see `models.base`.

    Distances are those in the row, and documents of a row are contiguous, so
    `positions` is not read.
    """
    del positions
    level.refuse('DnaBert2', context=context, cache=cache, mask=mask)
    c, t = self.config, tokens_bt.shape[1]
    layout = masks.Layout(
      t, t, q_segments_bt=segment_ids, kv_segments_bs=segment_ids
    )
    shared = block.Context(
      masks.Segments(), layout, bias=alibi.bias(c.num_heads, t)
    )
    rngs = block.split(rng, c.num_layers + 1)
    x_btd = self.embed(tokens_bt)
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    x_btd = block.dropout(x_btd, c.dropout, rngs[-1])
    run = _recomputed if c.remat else Layer.__call__
    for layer, key in zip(self.layers, rngs, strict=False):
      x_btd = run(layer, x_btd, shared, key)
    return base.Output(x_btd)

  def logits(self, hidden_btd: Float[Array, 'b t d']) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32."""
    logits_btv = self.head(hidden_btd, self.embed.tokens)
    return logits_btv[..., : self.config.vocab_size]

  def features(
    self,
    tokens_bt: Int[Array, 'b t'],
    segment_ids: Int[Array, 'b t'],
    rng: Array | None = None,
  ) -> tuple[Float[Array, 'b t d'], Bool[Array, 'b t']]:
    """What `models.classifier` reads: states, and which of them are real."""
    output = self(tokens_bt, segment_ids=segment_ids, rng=rng)
    return output.hidden_btd, segment_ids > 0

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """See `Config.flops`."""
    return self.config.flops(shape)


def _recomputed(layer, x_btd, context, rng):
  graph, params = nnx.split(layer)

  @jax.checkpoint
  def run(params, x_btd, rng):
    return nnx.merge(graph, params)(x_btd, context, rng)

  return run(params, x_btd, rng)

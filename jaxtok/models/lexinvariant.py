# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Language models without a fixed meaning of any symbol.

Huang et al. 2023, arXiv:2305.16349, section 2. A decoder whose token vectors
are drawn anew for each document, for input and readout alike:

  x_t = E[token t],  E ~ N(0, 1) per document;   h = trunk(x)
  logits[t, v] = c / sqrt(d) * <W h_t, E[v]>

What is learned says nothing of symbols, so the law over texts does not change
when symbols are renamed, and the model has to decipher each document as it
reads.
The paper shows that this law comes within O((V / T)^(1/4)) of the true one in
a context of T tokens, in average error, for V symbols.

With `fresh` below 1 the model has a learned table, of which each document
replaces a random share (section 5, as a regulariser: 0.2); `fresh=0` is an
ordinary language model with the same trunk and readout.

When tables are drawn: a call with an `rng` (training) draws one for each
document of each row, from that key. A call without (evaluation, generation)
takes one table for all, from `eval_seed`, so that cached steps and calls
without cache agree; where there is a learned one, it takes that, whole. A
document sees no other, so one table for all gives each the law that a table
of its own would give; averages over few documents need several `eval_seed`s.

Positions are T5's relative bias, as in the paper. RoPE does not do: rotated
scores of vectors that have nothing in common have a random sign, so in the
first block no head can look at the token before, whatever it is.

Differs from the paper: W and c (initially 1/8) are our choice. Without them the
vector of the newest symbol, which the residual stream still holds, makes "the
same again" the first prediction.

Axes: b rows, t tokens, k documents of a row, v vocabulary, d width.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok import partition
from jaxtok.cache import kv
from jaxtok.config import configclass
from jaxtok.models import base, level
from jaxtok.nn import block, embed, linear, masks, random_table
from jaxtok.objectives.base import Mean


@configclass
class Config:
  """Hyper-parameters of `Lexinvariant`."""

  vocab_size: int = 0  # 0 means the tokenizer's.
  fresh: float = 1.0  # Share of symbols with new vectors in each document.
  max_documents: int = 2  # Of a row, in training; later targets are left out.
  eval_seed: int = 0  # Of the table of calls without an rng.
  trunk: level.Config = dataclasses.field(
    default_factory=lambda: level.Config(
      gated=False, activation='gelu', position='t5', branch_scale=1.0
    )
  )

  def __post_init__(self):
    if not 0 <= self.fresh <= 1:
      raise ValueError(
        f'fresh={self.fresh} must be in [0, 1]: 1 is lexinvariant, 0 an '
        'ordinary table.'
      )
    if self.max_documents < 1:
      raise ValueError(f'max_documents={self.max_documents} must be >= 1.')

  def make(self, rngs: nnx.Rngs) -> 'Lexinvariant':
    """Builds the model with random parameters.

    Raises:
      ValueError: If `vocab_size` is still 0.
    """
    if self.vocab_size < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} must be >= 1 to build a model. '
        "Set it to the tokenizer's vocab_size."
      )
    return Lexinvariant(self, rngs=rngs)


class Lexinvariant(nnx.Module):
  """A decoder with new token vectors in each document; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    dim = config.trunk.dim
    self.trunk = level.Level(config.trunk, rngs=rngs)
    self.readout = linear.Linear(
      (dim,), (dim,), axes=('embed', 'mlp'), rngs=rngs
    )
    self.scale = nnx.Param(jnp.asarray(0.125), axes=())
    # As large as what it mixes with.
    table = lambda: embed.Embed(config.vocab_size, dim, std=1.0, rngs=rngs)
    self.embed = table() if config.fresh < 1 else None

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    context: Any = None,
    cache: kv.KVCache | None = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of all positions; see `models.base`.

    With an `rng`, `aux['logits']` holds the tables that `logits` needs, and
    `aux['target_mask_bt']` is False in documents beyond `max_documents`.
    """
    level.refuse('Lexinvariant', context=context)
    rngs = block.split(rng, 3)
    is_packed = segment_ids is not None and rng is not None
    num = self.config.max_documents if is_packed else 1
    document_bt = jnp.zeros_like(tokens_bt)
    if is_packed:
      document_bt = jnp.broadcast_to(segment_ids, tokens_bt.shape) - 1
    if rng is None:
      tables_bkvd = self.table()[None, None]
    else:
      tables_bkvd = self.draw(rngs[:2], len(tokens_bt), num)
    output = self.read(
      tokens_bt,
      tables_bkvd,
      document_bt=jnp.clip(document_bt, 0, num - 1),
      positions=positions,
      segment_ids=segment_ids,
      cache=cache,
      mask=mask,
      rng=rngs[2],
    )
    if rng is None:
      return output
    aux = {'logits': {'tables_bkvd': tables_bkvd}}
    if is_packed:
      lost_bt = document_bt >= num
      total_b = (document_bt >= 0).sum(axis=1).astype(jnp.float32)
      lost_b = lost_bt.sum(axis=1).astype(jnp.float32)
      aux['target_mask_bt'] = ~lost_bt
      aux['metrics'] = {'lost_targets': Mean(lost_b, total_b)}
    return dataclasses.replace(output, aux=aux)

  def table(self) -> Float[Array, 'v d']:
    """The vectors of calls without an rng."""
    if self.embed is not None:
      return self.embed.table[...]
    rng = jax.random.key(self.config.eval_seed)
    shape = (self.config.vocab_size, self.config.trunk.dim)
    return jax.random.normal(rng, shape)

  def draw(self, rngs: Any, num_rows: int, num_documents: int) -> Any:
    """Tables [b, k, v, d] of a call with an rng; from two keys."""
    c = self.config
    tables_bkvd = random_table.draw(
      rngs[0], num_rows, num_documents, c.vocab_size, c.trunk.dim
    )
    if self.embed is None:
      return tables_bkvd
    return random_table.mix(rngs[1], tables_bkvd, self.table(), c.fresh)

  def read(
    self,
    tokens_bt: Int[Array, 'b t'],
    tables_bkvd: random_table.Tables,
    *,
    document_bt: Int[Array, '#b t'],
    positions: Int[Array, '#b t'] | None = None,
    segment_ids: Int[Array, '#b t'] | None = None,
    cache: kv.KVCache | None = None,
    mask: masks.Mask | None = None,
    rng: Array | None = None,
  ) -> base.Output:
    """States under given vectors.

    Args:
      tokens_bt: Token ids.
      tables_bkvd: Vectors, for each row or for all.
      document_bt: Which of the k tables each position uses.
      positions: See `models.base`; these and the rest.
      segment_ids: Documents; attention stays within them.
      cache: Keys and values of earlier tokens.
      mask: Replaces the causal one.
      rng: Turns dropout on.

    Returns:
      The states `W h`, each in the block of its document, width k d.
    """
    t = tokens_bt.shape[1]
    if positions is None:
      positions = jnp.arange(t)[None]
      if cache is not None:
        positions = cache.length_b[:, None] + positions
    x_btd = random_table.lookup(tables_bkvd, tokens_bt, document_bt)
    x_btd = partition.constrain(x_btd, 'batch', 'length', None)
    rng, key = block.split(rng, 2)
    x_btd = block.dropout(x_btd, self.config.trunk.dropout, key)
    h_btd, cache = self.trunk(
      x_btd.astype(self.config.trunk.dtype),
      positions_bt=positions,
      segment_ids_bt=segment_ids,
      mask=masks.Causal() if mask is None else mask,
      cache=cache,
      rng=rng,
    )
    q_btd = self.readout(h_btd.astype(jnp.float32))
    return base.Output(
      random_table.spread(q_btd, document_bt, tables_bkvd.shape[1]), cache
    )

  def logits(
    self, hidden_btd: Float[Array, 'b t d'], tables_bkvd: Any = None
  ) -> Float[Array, 'b t v']:
    """Unnormalised log-probabilities of the vocabulary, float32.

    Args:
      hidden_btd: From the model's call.
      tables_bkvd: If that had an rng: its `aux['logits']['tables_bkvd']`.
    """
    if tables_bkvd is None:
      tables_bkvd = self.table()[None, None]
    factor = self.scale[...] / math.sqrt(self.config.trunk.dim)
    return random_table.scores(factor * hidden_btd, tables_bkvd)

  def init_cache(self, batch_size: int, max_len: int) -> kv.KVCache:
    """An empty cache for `max_len` tokens per row."""
    return self.config.trunk.init_cache(batch_size, max_len)

  def flops(self, shape: base.Shape) -> dict[str, float]:
    """Matmul FLOPs of one forward pass in training, by part.

    Scores are computed for all documents that a row has tables for; drawing
    the tables is not counted.
    """
    c, rows = self.config, shape.b * shape.t
    keys, dim = shape.kv or shape.t, c.trunk.dim
    return {
      'trunk': c.trunk.flops(rows, keys),
      'readout': 2.0 * rows * dim * dim,
      'head': 2.0 * rows * dim * c.vocab_size * c.max_documents,
    }

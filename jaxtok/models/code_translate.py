# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""An encoder-decoder of programs whose encoder merges lexical units.

arXiv:2507.14423, section 3, for generation. The tokens of a unit become one
state before block `layer` of the encoder; later blocks and the decoder's
cross-attention see units. The decoder reads and writes tokens:

  tokens -> blocks 0..l-1 -> merge -> blocks l.. -> decoder's cross-attention

With relative or rotary positions the blocks after the merge see distances
between indices of units or, with `distances='first'`, between their first
tokens, as they are without a merge; absolute positions were added before.

  encoded = model.encode(tokens_bs, units_bs=units_bs)
  output = model(targets_bt, context=encoded)

Differs from the paper: it does not say what relative positions of units are.

Axes: b rows, t positions of the decoder, s of the encoder, w units, d width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int

from jaxtok.config import configclass
from jaxtok.models import adoption, base, code_merge, transformer
from jaxtok.nn import block, cross, masks, ragged, unit_merge

DISTANCES = ('unit', 'first')


@configclass
class Config(transformer.Config):
  """Hyper-parameters of `CodeTranslate`; start from `Config.t5(...)`."""

  how: code_merge.How = code_merge.How.AVERAGE
  layer: int = 1  # Merges before this block; num_encoder_layers: after all.
  distances: str = 'unit'  # Of units: of their indices, or of 'first' tokens.
  # Room for units. 'full' loses none and saves nothing, 'bucket' loses none and
  # runs the later blocks in the least of its sizes that holds the units of all
  # rows.
  capacity: ragged.Capacity = dataclasses.field(default_factory=ragged.Capacity)

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.layer <= max(self.num_encoder_layers, 1):
      raise ValueError(
        f'layer={self.layer} must be in [0, num_encoder_layers='
        f'{self.num_encoder_layers}].'
      )
    if self.distances not in DISTANCES:
      raise ValueError(
        f'distances={self.distances!r} must be one of {", ".join(DISTANCES)}.'
      )

  def make(self, rngs: nnx.Rngs) -> 'CodeTranslate':
    """Builds the model with random parameters.

    Raises:
      ValueError: If it has no vocabulary or no encoder.
    """
    if self.vocab_size < 1 or self.num_encoder_layers < 1:
      raise ValueError(
        f'vocab_size={self.vocab_size} and num_encoder_layers='
        f'{self.num_encoder_layers} must be >= 1 to build a model. Begin with '
        'code_translate.Config.t5(vocab_size=1000, ...).'
      )
    return CodeTranslate(self, rngs=rngs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Merged(cross.Encoded):
  """States of units.

  Attributes:
    lost_b: Units that found no room, int32.
  """

  lost_b: Any = None


def adopt(
  model: transformer.Transformer | code_merge.CodeMerge,
  *,
  rngs: nnx.Rngs,
  **fields: Any,
) -> 'CodeTranslate':
  """A `CodeTranslate` with the weights of another model.

  Args:
    model: An encoder-decoder (T5, CodeT5), or an encoder alone (CodeBERT, or
      that of a classifier), to which a decoder of `num_layers` new blocks is
      added; its embeddings are the decoder's too.
    rngs: For what the model does not have.
    **fields: Of `Config`; with `how=How.NONE` it computes what the model does.

  Raises:
    ValueError: If the weights do not fit the config.
  """
  if isinstance(model, code_merge.CodeMerge):
    model = model.encoder
  kept = {
    f.name: getattr(model.config, f.name)
    for f in dataclasses.fields(transformer.Config)
  }
  found = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
  new = ('pool',)
  if not model.config.is_encoder_decoder:
    kept |= dict(
      num_encoder_layers=model.config.num_layers,
      is_causal=True,
      is_tied=True,
      head_transform=False,
      head_bias=False,
    )
    inside = lambda path: 'encoder' if path[0] == 'stack' else path[0]
    found = {
      (inside(path), *path[1:]): value
      for path, value in found.items()
      if path[0] != 'head'
    }
    new = ('pool', 'stack', 'head')
  adopted = Config(**kept | fields).make(rngs)
  if 'stack' in new:  # Blocks of the decoder are as many as one likes.
    del kept['num_layers']
  adoption.put(adopted, found, new=new, kept=kept, given=fields)
  return adopted


class CodeTranslate(transformer.Transformer):
  """An encoder-decoder with a merging encoder; see the module."""

  config: Config

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    super().__init__(config, rngs=rngs)
    learned = lambda: unit_merge.AttentionPool(config.dim, rngs=rngs)
    is_learned = config.how == code_merge.How.LEARNED
    self.pool = learned() if is_learned else None

  def encode(
    self,
    tokens_bs: Int[Array, 'b s'],
    *,
    units_bs: Int[Array, 'b s'] | None = None,
    positions: Int[Array, '#b s'] | None = None,
    segment_ids: Int[Array, '#b s'] | None = None,
    rng: Array | None = None,
  ) -> cross.Encoded:
    """Runs the encoder.

    Args:
      tokens_bs: Token ids, one program per row.
      units_bs: The unit of each, ascending from 0; -1 is padding.
      positions: See `Transformer.encode`; of tokens.
      segment_ids: See `Transformer.encode`; only where `units_bs` is None.
      rng: Turns dropout on.

    Returns:
      States of units (of tokens, if nothing is merged); the document of an
      empty place is 0. With buckets there are as many places as in the largest,
      which cross-attention goes over.

    Raises:
      ValueError: If the model merges and there are no units.
    """
    c = self.config
    if units_bs is None:
      if c.how != code_merge.How.NONE:
        raise ValueError(
          f'units_bs is None, but how={c.how.value} merges units. Give the '
          'unit of each token, see tokenizers.code_units: call '
          'model.encode(tokens, units_bs=...) and pass its result as context.'
        )
      return super().encode(
        tokens_bs, positions=positions, segment_ids=segment_ids, rng=rng
      )
    embed_rng, rng = block.split(rng, 2)
    valid_bs = (units_bs >= 0).astype(jnp.int32)
    x_bsd = self._embed(tokens_bs, positions, embed_rng)
    shared = self._visible(valid_bs, positions)
    if c.how == code_merge.How.NONE:
      x_bsd, _ = self.encoder(x_bsd, shared, rng=rng)
      return cross.Encoded(x_bsd, valid_bs)
    x_bsd, _ = self.encoder.run(x_bsd, shared, stop=c.layer, rng=rng)
    sizes = c.capacity.sizes(tokens_bs.shape[1])

    def call(size):
      if self.pool is None:
        merged = ragged.segment_pool(x_bsd, units_bs, size, 'mean')
      else:
        merged = self.pool(x_bsd, units_bs, size)
      valid_bw, places_bw = merged.valid_bw.astype(jnp.int32), None
      if c.distances == 'first':
        places_bw = _first_places(units_bs, positions, size)
      x_bwd, _ = self.encoder.run(
        merged.values_bwd,
        self._visible(valid_bw, places_bw),
        start=c.layer,
        rng=rng,
      )
      norm = self.encoder.norm
      x_bwd = x_bwd if norm is None else norm(x_bwd)
      room = ((0, 0), (0, sizes[-1] - size))
      x_bwd, valid_bw = jnp.pad(x_bwd, (*room, (0, 0))), jnp.pad(valid_bw, room)
      return Merged(x_bwd, valid_bw, lost_b=merged.overflow_b)

    return ragged.dispatch(call, sizes, units_bs.max(axis=1) + 1)

  def _visible(self, valid_bs, positions=None) -> block.Context:
    """Every place of a row that is not empty sees the others."""
    return self._context(
      self.encoder.bias,
      valid_bs.shape[1],
      positions,
      masks.Segments(),
      valid_bs,
    )

  def flops(
    self, shape: base.Shape, units: int | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass, by part; see `Transformer.flops`.

    Args:
      shape: Sizes of the call.
      units: Units per row of the encoder; None means the room for them.
    """
    c, parts = self.config, super().flops(shape)
    if c.how == code_merge.How.NONE:
      return parts
    size = c.capacity.sizes(max(shape.s, 1))[-1] if units is None else units
    count = lambda n: sum(c.block_config(False).flops(shape.b * n, n).values())
    late = c.num_encoder_layers - c.layer
    own = c.block_config(True).flops(
      shape.b * shape.t, shape.kv or shape.t, shape.b * size, size
    )
    parts |= {
      'encoder': c.layer * count(shape.s) + late * count(size),
      'cross': c.num_layers * own['cross'],
    }
    if self.pool is not None:
      parts['merge'] = 2.0 * shape.b * shape.s * c.dim * (c.dim + 1)
    return parts


def _first_places(units_bs: Any, positions: Any, size: int) -> Array:
  """The position of the first token of each of `size` units; 0 of others."""
  if positions is None:
    positions = jnp.arange(units_bs.shape[1])[None]
  # Whole numbers of float32 are exact far beyond any row.
  places_bs = jnp.broadcast_to(positions, units_bs.shape).astype(jnp.float32)
  first = ragged.segment_pool(places_bs[..., None], units_bs, size, 'first')
  return first.values_bwd[..., 0].astype(jnp.int32)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""An encoder of programs that puts the pieces of identifiers together.

arXiv:2507.14423, section 3. The tokens of a lexical unit (an identifier, a
number, an operator) become one state before block `layer`, by their mean or by
learned weights, and the blocks from there on see units instead of tokens:

  tokens -> embeddings with positions -> blocks -> merge -> blocks -> classifier

Positions were added before, so units need none. Padding makes no unit, and
masks are re-indexed: a unit sees another if a token of it sees a token of the
other. So nodes of a data-flow graph (GraphCodeBERT), given as units of one with
a mask, stay as they are and keep their edges.

The first token stands for the program ([CLS]), and is a unit of its own.

Axes: b rows, t tokens, w units, d width, v classes.
"""

import dataclasses
import enum
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.models import adoption, base, transformer
from jaxtok.nn import block, linear, masks, ragged, unit_merge


class How(enum.Enum):
  """How the states of a unit become one."""

  NONE = 'none'  # The baseline: they do not.
  AVERAGE = 'average'
  LEARNED = 'learned'


@configclass
class Config:
  """Hyper-parameters of `CodeMerge`."""

  encoder: transformer.Config = dataclasses.field(
    default_factory=transformer.Config.bert
  )
  num_classes: int = 2
  how: How = How.AVERAGE
  layer: int = 0  # Merges before this block; num_layers: after the last.
  # Room for units. 'full' loses none and saves nothing, 'bucket' loses none and
  # runs the later blocks in the least of its sizes that holds the units of all
  # rows.
  capacity: ragged.Capacity = dataclasses.field(default_factory=ragged.Capacity)

  def __post_init__(self):
    if self.encoder.is_causal or self.encoder.num_encoder_layers:
      raise ValueError(
        'encoder must be an encoder alone: set is_causal=False and '
        'num_encoder_layers=0, or take transformer.Config.bert.'
      )
    if self.encoder.position not in ('learned', 'none'):
      raise ValueError(
        f'encoder.position={self.encoder.position!r} must be learned or none: '
        'units have no positions of their own.'
      )
    if not 0 <= self.layer <= self.encoder.num_layers:
      raise ValueError(
        f'layer={self.layer} must be in [0, num_layers='
        f'{self.encoder.num_layers}].'
      )
    if self.num_classes < 2:
      raise ValueError(f'num_classes={self.num_classes} must be >= 2.')

  def make(self, rngs: nnx.Rngs) -> 'CodeMerge':
    """Builds the model with random parameters."""
    return CodeMerge(self, rngs=rngs)

  def flops(
    self, shape: base.Shape, units: int | None = None
  ) -> dict[str, float]:
    """Matmul FLOPs of one forward pass, by part.

    Args:
      shape: Rows and tokens.
      units: Units per row; None means the room for them.
    """
    c, dim = self, self.encoder.dim
    if c.how == How.NONE:
      units = shape.t
    elif units is None:
      units = c.capacity.sizes(shape.t)[-1]
    config = c.encoder.block_config(False)
    cost = lambda n: sum(config.flops(shape.b * n, n).values())
    parts = {
      'before': c.layer * cost(shape.t),
      'after': (c.encoder.num_layers - c.layer) * cost(units),
      'head': 2.0 * shape.b * dim * (dim + c.num_classes),
    }
    if c.how == How.LEARNED:
      parts['merge'] = 2.0 * shape.b * shape.t * dim * (dim + 1)
    return {name: float(value) for name, value in parts.items() if value}


def adopt(
  model: 'transformer.Transformer | CodeMerge',
  *,
  rngs: nnx.Rngs,
  **fields: Any,
) -> 'CodeMerge':
  """A `CodeMerge` with the weights of another model, e.g. of CodeBERT.

  Args:
    model: An encoder, or a classifier with one; e.g. from `interop.load`.
    rngs: For what the model does not have: the classifier of an encoder alone
      or with another number of classes, and learned merging.
    **fields: Of `Config`, but for `encoder`.

  Raises:
    ValueError: If the weights do not fit the config.
  """
  found = nnx.to_flat_state(nnx.state(model, nnx.Param))
  if isinstance(model, CodeMerge):
    config = dataclasses.replace(model.config, **fields)
  else:
    config = Config(encoder=model.config, **fields)
    found = [(('encoder', *path), value) for path, value in found]
  adopted = config.make(rngs)
  kept = {'encoder': model.config}
  new = ('dense', 'out', 'pool')
  adoption.put(adopted, dict(found), new=new, kept=kept, given=fields)
  return adopted


class CodeMerge(nnx.Module):
  """An encoder with a classifier; see the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    dim = config.encoder.dim
    self.encoder = config.encoder.make(rngs)
    learned = lambda: unit_merge.AttentionPool(dim, rngs=rngs)
    self.pool = learned() if config.how == How.LEARNED else None
    # The classifier of RoBERTa: dense, tanh, dense.
    dense = lambda num, axis: linear.Linear(
      (dim,), (num,), axes=('embed', axis), use_bias=True, rngs=rngs
    )
    self.dense = dense(dim, 'mlp')
    self.out = dense(config.num_classes, 'classes')

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    units_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, '#b t'] | None = None,
    visible_bts: Bool[Array, 'b t t'] | None = None,
    rng: Array | None = None,
  ) -> base.Output:
    """Computes the states of units (or of tokens, if nothing is merged).

    Args:
      tokens_bt: Token ids; the first stands for the program.
      units_bt: The unit of each token, ascending from 0; -1 is padding.
      positions: See `models.transformer`.
      visible_bts: Which tokens see which; None means all.
      rng: Turns dropout on.

    Returns:
      States [b, w, d], zero in places beyond the bucket that was run; `aux` has
      `units_b`, `tokens_b`, and `lost_b`, the units that found no room.
    """
    c, stack = self.config, self.encoder.stack
    rngs = block.split(rng, c.encoder.num_layers + 1)
    x_btd = self.encoder.embed(tokens_bt, positions)
    x_btd = block.dropout(x_btd, c.encoder.dropout, rngs[-1])
    context = _context((units_bt >= 0).astype(jnp.int32), visible_bts)
    for i in range(c.layer):
      x_btd, _ = stack.blocks[i](x_btd, context, rng=rngs[i])
    num_units_b = units_bt.max(axis=1) + 1
    sizes = (tokens_bt.shape[1],)
    if c.how != How.NONE:
      sizes = c.capacity.sizes(tokens_bt.shape[1])

    def call(size):
      y_bwd, later, lost_b = x_btd, context, jnp.zeros_like(num_units_b)
      if c.how != How.NONE:
        pooled = self._merge(x_btd, units_bt, size)
        y_bwd, lost_b, visible_bww = pooled.values_bwd, pooled.overflow_b, None
        if visible_bts is not None:
          visible_bww = unit_merge.merge_mask(visible_bts, units_bt, size)
        later = _context(pooled.valid_bw.astype(jnp.int32), visible_bww)
      for i in range(c.layer, c.encoder.num_layers):
        y_bwd, _ = stack.blocks[i](y_bwd, later, rng=rngs[i])
      if stack.norm is not None:
        y_bwd = stack.norm(y_bwd)
      return jnp.pad(y_bwd, ((0, 0), (0, sizes[-1] - size), (0, 0))), lost_b

    hidden_bwd, lost_b = ragged.dispatch(call, sizes, num_units_b)
    aux = {
      'units_b': num_units_b,
      'tokens_b': (units_bt >= 0).sum(axis=1),
      'lost_b': lost_b,
    }
    return base.Output(hidden_bwd, aux=aux)

  def _merge(self, x_btd, units_bt, capacity) -> ragged.Pooled:
    if self.pool is not None:
      return self.pool(x_btd, units_bt, capacity)
    return ragged.segment_pool(x_btd, units_bt, capacity, 'mean')

  def logits(self, hidden_bwd: Float[Array, 'b w d']) -> Float[Array, 'b v']:
    """Unnormalised log-probabilities of the classes, float32."""
    y_bd = jnp.tanh(self.dense(hidden_bwd[:, 0]))
    return self.out(y_bd, jnp.float32)

  def flops(
    self, shape: base.Shape, units: int | None = None
  ) -> dict[str, float]:
    """See `Config.flops`."""
    return self.config.flops(shape, units)


def _context(segments_bt, visible_bts) -> block.Context:
  """Every position of a program sees the others, or those that it may."""
  n = segments_bt.shape[1]
  layout = masks.Layout(
    n, n, q_segments_bt=segments_bt, kv_segments_bs=segments_bt
  )
  mask = masks.Segments()
  if visible_bts is not None:
    mask = mask & masks.Dense(visible_bts)
  return block.Context(mask, layout)

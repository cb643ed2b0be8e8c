# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A label of a whole sequence, on top of any encoder.

The encoder has `features(tokens_bt, segment_ids, rng) -> (states, is_real)`.
Pooling 'first' is BERT's (Devlin et al. 2018, arXiv:1810.04805): a dense layer
and tanh of the first state; 'mean' takes the mean of all real states.

Axes: b rows, t positions, w states, d width, c classes.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.config import configclass
from jaxtok.nn import block, linear

POOLS = ('first', 'mean')


@configclass
class Config:
  """Hyper-parameters of `Classifier`."""

  encoder: Any  # Config of the encoder.
  num_classes: int = 2
  pool: str = 'first'  # Or 'mean'.
  dropout: float = 0.1  # Before the last layer, in calls with an rng.

  def __post_init__(self):
    if self.num_classes < 2:
      raise ValueError(f'num_classes={self.num_classes} must be >= 2.')
    if self.pool not in POOLS:
      raise ValueError(f'pool={self.pool!r} must be one of {", ".join(POOLS)}.')

  def make(self, rngs: nnx.Rngs) -> 'Classifier':
    """Builds the model with random parameters."""
    return Classifier(self, rngs=rngs)


class Classifier(nnx.Module):
  """An encoder, pooling, and a linear layer."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = config
    self.encoder = config.encoder.make(rngs)
    dim = config.encoder.dim
    is_first = config.pool == 'first'
    self.pooler = _linear(dim, dim, 'mlp', rngs) if is_first else None
    self.out = _linear(dim, config.num_classes, 'classes', rngs)

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    segment_ids: Int[Array, 'b t'],
    rng: Array | None = None,
  ) -> Float[Array, 'b c']:
    """Unnormalised log-probabilities of the classes, float32.

    Args:
      tokens_bt: Token ids, one sequence per row.
      segment_ids: 1, or 0 in padding.
      rng: Turns dropout on.
    """
    rngs = block.split(rng, 2)
    states_bwd, is_real_bw = self.encoder.features(
      tokens_bt, segment_ids, rngs[0]
    )
    if self.pooler is not None:
      x_bd = jnp.tanh(self.pooler(states_bwd[:, 0]))
    else:
      real_bw1 = is_real_bw[..., None].astype(jnp.float32)
      num_b1 = jnp.maximum(real_bw1.sum(axis=1), 1)
      x_bd = (states_bwd * real_bw1).sum(axis=1) / num_b1
    x_bd = block.dropout(x_bd, self.config.dropout, rngs[1])
    return self.out(x_bd, jnp.float32)


def _linear(num_in, num_out, axis, rngs):
  return linear.Linear(
    (num_in,), (num_out,), axes=('embed', axis), use_bias=True, rngs=rngs
  )

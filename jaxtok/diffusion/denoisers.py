# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Denoisers: functions from tokens to logits of the token at each place.

They are pytrees, so that models inside them are arguments of jitted functions.
For guidance and shifted logits see `pretrained`. Axes: b rows, t positions, v
vocabulary.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OfModel:
  """The logits of a sequence model without a causal mask.

  Attributes:
    graph: `nnx.split(model)[0]`, static.
    params: `nnx.split(model)[1]`.
    segment_ids_bt: Padding (0) and documents of the rows; None means one.
  """

  graph: Any = dataclasses.field(metadata=dict(static=True))
  params: Any
  segment_ids_bt: Any = None

  @classmethod
  def make(cls, model: Any, segment_ids_bt: Any = None) -> 'OfModel':
    """Wraps an `nnx` model."""
    return cls(*nnx.split(model), segment_ids_bt)

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    model = nnx.merge(self.graph, self.params)
    output = model(tokens_bt, segment_ids=self.segment_ids_bt)
    return model.logits(output.hidden_btd)

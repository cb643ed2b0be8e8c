# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Denoisers: functions from tokens to logits of the token at each place.

Wrappers are pytrees, so that models inside them are arguments of jitted
functions. Axes: b rows, t positions, v vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shifted:
  """For models whose logits at place i - 1 are those of token i.

  Dream keeps this alignment of the autoregressive model it was initialised with
  (Ye et al. 2025, arXiv:2508.15487). Place 0 has no logits of its own and gets
  those that the model gave there; it should hold a given token.
  """

  denoiser: Any

  @property
  def calls_per_step(self) -> int:
    return getattr(self.denoiser, 'calls_per_step', 1)

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    logits_btv = self.denoiser(tokens_bt)
    return jnp.concatenate([logits_btv[:, :1], logits_btv[:, :-1]], axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guided:
  """Classifier-free guidance: `u + (1 + scale) (c - u)`.

  c are the logits with the prompt, u those with the prompt masked (Nie et al.
  2024, arXiv:2410.18514). Each step costs two calls and is charged as two.

  Attributes:
    denoiser: Unguided.
    is_prompt_bt: Positions that are masked for u.
    scale: 0 is the denoiser itself.
    mask_id: The mask token; static.
  """

  denoiser: Any
  is_prompt_bt: Bool[Array, '#b t']
  scale: Any
  mask_id: int = dataclasses.field(metadata=dict(static=True))

  @property
  def calls_per_step(self) -> int:
    return 2 * getattr(self.denoiser, 'calls_per_step', 1)

  def __call__(self, tokens_bt: Int[Array, 'b t']) -> Float[Array, 'b t v']:
    hidden_bt = jnp.where(self.is_prompt_bt, self.mask_id, tokens_bt)
    with_btv = self.denoiser(tokens_bt)
    without_btv = self.denoiser(hidden_bt)
    return without_btv + (1 + self.scale) * (with_btv - without_btv)

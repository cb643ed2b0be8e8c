# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA's losses: pre-training on text, fine-tuning on answers.

Nie et al. 2025, arXiv:2502.09992, algorithms 1 and 2, with the constants of the
published code. A row is masked with probability p = (1 - eps) t + eps, t
uniform, and a masked token weighs 1/p: the integral of MDLM's bound above eps,
over 1 - eps, which may be less than the bound. Training therefore reports no
`nats_bound` and no `bpb_bound`; evaluation uses the any-order bound, as LLaDA's
does.

In fine-tuning the targets with a loss mask are the answer, which includes the
EOS tokens that pad it; the prompt is visible and never masked. Each answer
weighs the same, whatever its length.

With `cart` the weights are Dream's instead of 1/p, see `diffusion.cart`; its
logits are aligned by `pretrained.Aligned`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.diffusion import any_order, cart, losses, schedules
from jaxtok.objectives import base


@configclass
class Config:
  """Pre-training."""

  mask_id: int = -1  # Id of the mask token; see `losses.check_mask_id`.
  eps: float = 1e-3
  cart: float = 0.0  # p of Dream's weights (there 0.3); 0 weighs by 1/p.
  crop_rate: float = 0.0  # Share of batches cut to a random length.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    losses.check_samples(self.eval_samples)
    losses.check_crop_rate(self.crop_rate)
    if not 0 < self.eps < 1:
      raise ValueError(f'eps={self.eps} must be in (0, 1). Try 1e-3.')
    if not 0 <= self.cart <= 1:
      raise ValueError(
        f'cart={self.cart} must be in [0, 1] (0 is without). Try 0.3.'
      )

  def make(self) -> losses.Weighted:
    return self._make(losses.Weighted, corrupt)

  def _make(self, cls, how):
    losses.check_mask_id(self.mask_id)
    return cls(
      lambda batch, rng: how(batch, rng, self.eps, self.cart),
      mask_id=self.mask_id,
      eval_samples=self.eval_samples,
      eval_corrupt=any_order.corrupt,
      crop_rate=self.crop_rate,
      is_bound=False,
    )


@configclass
class FineTuning(Config):
  """Fine-tuning; the fields are those of pre-training, without cropping."""

  def __post_init__(self):
    super().__post_init__()
    if self.crop_rate:
      raise ValueError(
        f'crop_rate={self.crop_rate} cuts answers, which fine-tuning does not. '
        'Set crop_rate=0.'
      )

  def make(self) -> 'Answers':
    return self._make(Answers, corrupt_answers)


class Answers(losses.Weighted):
  """The mean over rows of the loss per token of the answer."""

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    loss = super().__call__(model, batch, rng)
    num_answers = (batch['loss_mask_bt'] > 0).any(-1).sum()
    return dataclasses.replace(loss, weight=num_answers.astype(jnp.float32))


def corrupt(
  batch: dict[str, Array], rng: Array, eps: float, cart_p: float = 0.0
) -> losses.Corruption:
  """Masks with one probability per row; weight 1/p, or `cart` with `cart_p`."""
  time_rng, mask_rng = jax.random.split(rng)
  t_b = schedules.times(time_rng, batch['targets_bt'].shape[0])
  p_b1 = ((1 - eps) * t_b + eps)[:, None]
  is_masked_bt = losses.mask_at_rate(batch, p_b1, mask_rng)
  weights_bt = jnp.where(is_masked_bt, 1 / p_b1, 0.0)
  if cart_p:
    weights_bt = cart.weights(is_masked_bt, batch['segment_ids_bt'], cart_p)
  weights_bt *= batch['loss_mask_bt']
  return losses.Corruption(is_masked_bt, weights_bt)


def corrupt_answers(
  batch: dict[str, Array], rng: Array, eps: float, cart_p: float = 0.0
) -> losses.Corruption:
  """`corrupt` with weights over the number of tokens of the row's answer."""
  drawn = corrupt(batch, rng, eps, cart_p)
  length_b1 = (batch['loss_mask_bt'] > 0).sum(-1, keepdims=True)
  weights_bt = drawn.weights_bt / jnp.maximum(length_b1, 1)
  return drawn._replace(weights_bt=weights_bt)

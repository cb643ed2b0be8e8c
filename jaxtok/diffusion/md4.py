# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MD4: the continuous-time bound for any masking schedule.

Shi et al. 2024, arXiv:2406.04329. With alpha(0) = 1 - eps, a share
eps of the tokens is masked at time 0; they are guessed uniformly, which costs
eps ln v nats per token whatever the model. With `num_steps` = T it is the bound
of T steps, weight T (alpha_s - alpha_t) / (1 - alpha_t) with s = t - 1/T. See
`schedules.Polynomial` for what differs from the paper.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.diffusion import losses, schedules


@configclass
class Config:
  """Hyper-parameters of the MD4 objective."""

  mask_id: int = -1  # Id of the mask token; see `losses.check_mask_id`.
  num_tokens: int = 0  # v, real tokens, for the cost of time 0; 0: mask_id.
  schedule: str = 'polynomial'  # Or 'cosine'; see `schedules`.
  power: float = 1.0  # Of the polynomial schedule.
  eps: float = 1e-4
  num_steps: int = 0  # T; 0 is continuous time.
  is_timed: bool = False  # Whether the model is told the time; see `mdlm`.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    losses.check_samples(self.eval_samples)
    if self.schedule not in ('polynomial', 'cosine'):
      raise ValueError(
        f"schedule={self.schedule!r} must be 'polynomial' or 'cosine': the "
        'others mask nothing at time 0, or leave tokens clean at time 1.'
      )
    schedules.make(self.schedule, power=self.power, eps=self.eps)
    schedules.check_steps(self.num_steps)

  def make(self) -> losses.Weighted:
    losses.check_mask_id(self.mask_id)
    schedule = schedules.make(self.schedule, power=self.power, eps=self.eps)
    return losses.Weighted(
      lambda batch, rng: corrupt(
        batch, rng, schedule, self.is_timed, self.num_steps
      ),
      mask_id=self.mask_id,
      eval_samples=self.eval_samples,
      constant=self.eps * math.log(self.num_tokens or self.mask_id),
    )


def corrupt(
  batch: dict[str, Array],
  rng: Array,
  schedule: schedules.Schedule,
  is_timed: bool = False,
  num_steps: int = 0,
) -> losses.Corruption:
  """Masks at one time per row, weight -alpha' / (1 - alpha)."""
  time_rng, mask_rng = jax.random.split(rng)
  t_b1 = schedules.times(time_rng, batch['targets_bt'].shape[0])[:, None]
  if num_steps:
    t_b1, weight_b1 = schedules.of_steps(schedule, t_b1, num_steps)
  else:
    weight_b1 = schedule.weight(t_b1)
  is_masked_bt = losses.mask_at_rate(batch, 1 - schedule.alpha(t_b1), mask_rng)
  weights_bt = jnp.where(is_masked_bt, weight_b1, 0.0)
  weights_bt *= batch['loss_mask_bt']
  times_b = t_b1[:, 0] if is_timed else None
  return losses.Corruption(is_masked_bt, weights_bt, times_b)

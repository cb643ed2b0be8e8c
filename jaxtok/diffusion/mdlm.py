# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MDLM: masked diffusion as a weighted average of masked-token losses.

Sahoo et al. 2024, arXiv:2406.07524: with the linear schedule,

  -log p(x) <= E_t E_z [ 1/t * sum over masked positions of -log p(x_l | z) ].

With `num_steps` = T the times are 1/T, 2/T, ..., 1: the bound of the process of
T steps, which the continuous one is the limit of. It has the same weight 1/t
and no other term, as the last step reveals all.

The denoiser is not told the time, unless `is_timed`, which needs a model whose
`context` is the time, such as `models.dit`.

Differs from the paper: times below `t_min` count as `t_min`, weight included,
instead of being left out. The result is the bound of the process that reveals
what is left at `t_min` in one step, so it is a bound and not an approximation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.diffusion import losses, schedules


@configclass
class Config:
  """Hyper-parameters of the MDLM objective."""

  mask_id: int = -1  # Id of the mask token; see `losses.check_mask_id`.
  t_min: float = 1e-3  # Largest weight is 1 / t_min.
  num_steps: int = 0  # T, which replaces t_min; 0 is continuous time.
  is_timed: bool = False  # Whether the model is told the time.
  crop_rate: float = 0.0  # Share of batches cut to a random length.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    losses.check_samples(self.eval_samples)
    losses.check_crop_rate(self.crop_rate)
    if not 0 < self.t_min < 1:
      raise ValueError(f't_min={self.t_min} must be in (0, 1). Try 1e-3.')
    schedules.check_steps(self.num_steps)

  def make(self) -> losses.Weighted:
    losses.check_mask_id(self.mask_id)
    return losses.Weighted(
      lambda batch, rng: corrupt(
        batch, rng, self.t_min, self.is_timed, self.num_steps
      ),
      mask_id=self.mask_id,
      eval_samples=self.eval_samples,
      crop_rate=self.crop_rate,
    )


def corrupt(
  batch: dict[str, Array],
  rng: Array,
  t_min: float,
  is_timed: bool = False,
  num_steps: int = 0,
) -> losses.Corruption:
  """Masks at one time per row, weight 1/t."""
  time_rng, mask_rng = jax.random.split(rng)
  t_b1 = schedules.times(time_rng, batch['targets_bt'].shape[0])[:, None]
  schedule = schedules.Linear()
  if num_steps:
    t_b1, weight_b1 = schedules.of_steps(schedule, t_b1, num_steps)
  else:
    t_b1 = jnp.maximum(t_b1, t_min)
    weight_b1 = schedule.weight(t_b1)
  is_masked_bt = losses.mask_at_rate(batch, 1 - schedule.alpha(t_b1), mask_rng)
  weights_bt = jnp.where(is_masked_bt, weight_b1, 0.0)
  weights_bt *= batch['loss_mask_bt']
  times_b = t_b1[:, 0] if is_timed else None
  return losses.Corruption(is_masked_bt, weights_bt, times_b)

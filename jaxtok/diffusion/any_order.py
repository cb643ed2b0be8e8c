# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The bound of any-order models: mask exactly k targets, k uniform.

Integrating the time out of MDLM's bound leaves weight n/k on "exactly k of n
targets are masked" (Ou et al. 2024, arXiv:2406.03736; Zheng et al. 2024,
arXiv:2409.02908), provided that the denoiser ignores time:

  bound = E_{k ~ 1..n} n/k E_{|M| = k} sum_{l in M} -log p(x_l | x without M)
        = E_order sum_i -log p(x_order(i) | x_order(1..i-1)),

the mean negative log-likelihood over all n! orders. Its estimate varies less
than that over times and independent masks.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.diffusion import losses, schedules


@configclass
class Config:
  """Hyper-parameters of the any-order objective."""

  mask_id: int = -1  # Id of the mask token; see `losses.check_mask_id`.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    losses.check_samples(self.eval_samples)

  def make(self) -> losses.Weighted:
    losses.check_mask_id(self.mask_id)
    return losses.Weighted(
      corrupt, mask_id=self.mask_id, eval_samples=self.eval_samples
    )


def corrupt(batch: dict[str, Array], rng: Array) -> losses.Corruption:
  """Masks k targets of each row, weight n/k; k stratified over the rows."""
  count_rng, mask_rng = jax.random.split(rng)
  is_target_bt = batch['loss_mask_bt'] > 0
  n_b = is_target_bt.sum(-1)
  u_b = schedules.times(count_rng, n_b.shape[0])
  # The product may round up to n.
  k_b = jnp.minimum((u_b * n_b).astype(jnp.int32), n_b - 1) + 1
  is_masked_bt = losses.mask_exactly(is_target_bt, k_b, mask_rng)
  ratio_b1 = (n_b / jnp.maximum(k_b, 1))[:, None]
  weights_bt = jnp.where(is_masked_bt, ratio_b1, 0.0) * batch['loss_mask_bt']
  return losses.Corruption(is_masked_bt, weights_bt)

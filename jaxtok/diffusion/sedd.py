# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SEDD with absorbing noise: score entropy instead of cross-entropy.

Lou et al. 2023, arXiv:2310.16834. The network
estimates ratios s_v = p(masked token is v) / p(it is masked), unnormalised.
With r = 1 / (e^sigma - 1), the ratio of a certain token, and log s_v = logit_v
- ln n + ln r for n real tokens, a masked place costs

  dsigma [ sum_v s_v - r ln s_x + r (ln r - 1) ]
    = w(t) [ e^z - 1 - z + cross-entropy ],   z = logsumexp(logits) - ln n,

where w = dsigma / (e^sigma - 1) is the weight of `schedules`: MDLM's loss and a
penalty, zero if the scores are normalised. Hence samplers that take softmax of
the logits serve this model too.

Times are MDLM's: log-linear noise, weight 1/t. The denoiser is not told the
time (the paper's is).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.diffusion import losses, mdlm
from jaxtok.objectives import cross_entropy


@configclass
class Config(mdlm.Config):
  """Hyper-parameters of the score entropy objective; those of MDLM."""

  def make(self) -> losses.Weighted:
    losses.check_mask_id(self.mask_id)
    return losses.Weighted(
      lambda batch, rng: mdlm.corrupt(batch, rng, self.t_min, self.is_timed),
      mask_id=self.mask_id,
      eval_samples=self.eval_samples,
      score=score_entropy,
    )


def score_entropy(
  model: Any,
  batch: dict[str, Array],
  corruption: losses.Corruption,
  mask_id: int,
  rng: Array | None,
) -> cross_entropy.Scores:
  """Score entropy of the masked targets, in place of `losses.scores`."""
  tokens_bt = losses.masked_tokens(batch, corruption.is_masked_bt, mask_id)
  hidden_btd = losses.run(model, batch, tokens_bt, rng, corruption.times_b)
  logits_btv = model.logits(hidden_btd).astype(jnp.float32)
  is_mask_v = jnp.arange(logits_btv.shape[-1]) == mask_id
  logits_btv = jnp.where(is_mask_v, losses.IMPOSSIBLE, logits_btv)
  num_real = logits_btv.shape[-1] - 1
  targets_bt1 = batch['targets_bt'][..., None]
  target_bt = jnp.take_along_axis(logits_btv, targets_bt1, axis=-1)[..., 0]
  z_bt = jax.nn.logsumexp(logits_btv, axis=-1) - jnp.log(num_real)
  nats_bt = jnp.expm1(z_bt) - (target_bt - jnp.log(num_real))
  correct_bt = (logits_btv.argmax(-1) == batch['targets_bt']).astype(
    jnp.float32
  )
  total = (nats_bt * corruption.weights_bt).sum()
  return cross_entropy.Scores(total, nats_bt, correct_bt)

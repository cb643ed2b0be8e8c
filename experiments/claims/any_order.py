# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masking exactly k targets estimates the bound with less variance.

Ou et al. 2024, arXiv:2406.03736, show that the two have the same expectation;
LLaDA (Nie et al. 2025, arXiv:2502.09992) evaluates with exactly k masked tokens
and weight n/k instead of a time and weight 1/t for its lower variance.

Check: the model of `experiments/claims/mdlm.py` (trained if it is not there
yet), one held-out batch of 32 windows of 64 characters, 200 draws of one mask
per window for each estimator, both stratified over the windows. What counts is
the variance of the estimate of the batch's bound at equal calls of the
denoiser. Independent of size: the variance that is removed is that of the
number of masked tokens given the time, and of the weight.
"""

import pathlib

import jax
import numpy as np

from experiments.claims import mdlm as mdlm_claim
from jaxtok.diffusion import any_order, mdlm

TITLE = 'Any-order bound'
PAPER = 'Ou et al. 2024, arXiv:2406.03736'
CLAIM = (
  'Masking exactly k tokens estimates the same bound with less variance than '
  'masking at a random time.'
)
THRESHOLD = {
  'variance_ratio': 'every <= 0.6',
  'difference_in_errors': 'every <= 4',
}
SEEDS = (0, 1, 2)
SHARES = ('mdlm',)


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 4000, draws: int = 200
) -> dict[str, float]:
  """Trains once, estimates often; see the module."""
  run = mdlm_claim.train_mdlm(workdir, seed, steps)
  config, model = run.config, run.model
  data = config.data.make(run.tokenizer)
  batch = next(iter(data.eval_batches('validation', batch_size=32)))
  fields = dict(mask_id=config.objective.mask_id, eval_samples=1)
  rngs = jax.random.split(jax.random.key(seed), draws)
  means, variances = [], []
  for module in (any_order, mdlm):
    objective = module.Config(**fields).make()

    def estimate(rng, objective=objective):
      metrics = objective.per_row(model, batch, rng)
      return metrics['bpb_bound'].total.sum()

    bits = np.asarray(jax.jit(lambda r, f=estimate: jax.lax.map(f, r))(rngs))
    bits = bits.astype(np.float64) / batch['num_bytes_bt'].sum()
    means.append(bits.mean())
    variances.append(bits.var(ddof=1))
  error = np.sqrt(sum(variances) / draws)
  return {
    'variance_ratio': float(variances[0] / variances[1]),
    'difference_in_errors': float(abs(means[0] - means[1]) / error),
    'bpb_bound_any_order': float(means[0]),
    'bpb_bound_mdlm': float(means[1]),
  }

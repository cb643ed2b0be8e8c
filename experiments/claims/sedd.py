# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Normalised cross-entropy gives a lower bound than score entropy.

Sahoo et al. 2024, arXiv:2406.07524: on OpenWebText SEDD-absorb has a
perplexity of at most 24.10, MDLM of at most 23.21, with the same transformer
and training; on text8 Shi et al. 2024 (arXiv:2406.04329) report at most 1.39
bits per character for SEDD and 1.37 for MD4.

Check: the run of `experiments/claims/mdlm.py` (trained if it is not there yet),
and the same with the score entropy: the same model, text, steps, FLOPs, masks
and masks in evaluation. The
two losses differ by `e^z - 1 - z` at each masked place, z the logarithm of the
normaliser (`jaxtok/diffusion/sedd.py`), which the score entropy must learn to
keep at zero. The published differences are 4 and 1.5 %; one of that size can be
seen here only because the masks are paired.
"""

import pathlib

from experiments.claims import mdlm
from jaxtok import train
from jaxtok.diffusion import sedd

TITLE = 'SEDD-absorb'
PAPER = 'Lou et al. 2023, arXiv:2310.16834'
CLAIM = 'The bound of MDLM is below that of SEDD with absorbing noise.'
THRESHOLD = {'mdlm_less_sedd': 'every <= 0'}
SEEDS = (0, 1, 2)
SHARES = ('mdlm',)


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 4000
) -> dict[str, float]:
  """Trains both; see the module."""
  normalised = mdlm.train_mdlm(workdir, seed, steps)
  config = mdlm.get_config('sedd', seed, steps)
  mask_id = config.objective.mask_id
  config.objective = sedd.Config(mask_id=mask_id, eval_samples=8)
  scored = train.run(config, workdir / 'sedd')
  bounds = [
    r.metrics('eval/val')[-1]['bpb_bound'] for r in (normalised, scored)
  ]
  return {
    'mdlm_less_sedd': bounds[0] - bounds[1],
    'bpb_bound_mdlm': bounds[0],
    'bpb_bound_sedd': bounds[1],
  }

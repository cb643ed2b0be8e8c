# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The bound does not depend on the masking schedule.

Shi et al. 2024, arXiv:2406.04329, and Sahoo et al. 2024, arXiv:2406.07524: for
a denoiser that ignores time, the integral over time is one over the mask rate,
so linear, polynomial and cosine schedules give the same bound; only the
variance of its estimate differs.

Check: the model of `experiments/claims/mdlm.py`, trained with the cosine
schedule. The same weights are then scored on the same held-out text of text8 by
three objectives: linear from eps (MD4), cosine (MD4) and MDLM. The differences
are compared with their standard errors, taken as if the three masks were drawn
independently of each other and the windows were not the same: that error is too
large, so the check is repeated in bits.
"""

import dataclasses
import math
import pathlib

from experiments.claims import mdlm as mdlm_claim
from jaxtok import train
from jaxtok.diffusion import md4, mdlm

TITLE = 'MD4'
PAPER = 'Shi et al. 2024, arXiv:2406.04329'
CLAIM = 'The likelihood bound is the same under every masking schedule.'
THRESHOLD = {
  'largest_difference': 'every <= 0.03',  # Bits per character.
  'largest_in_errors': 'every <= 3',
}
SEEDS = (0, 1, 2)


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 2000
) -> dict[str, float]:
  """Trains once, evaluates three times; see the module."""
  config = mdlm_claim.get_config('mdlm', seed, steps)
  mask_id = config.objective.mask_id
  fields = dict(mask_id=mask_id, eval_samples=32)
  config.objective = md4.Config(schedule='cosine', mask_id=mask_id)
  train.run(config, workdir / 'trained')
  objectives = {
    'linear': md4.Config(**fields),
    'cosine': md4.Config(schedule='cosine', **fields),
    'mdlm': mdlm.Config(**fields),
  }
  bounds, errors = {}, []
  for name, objective in objectives.items():
    run = train.run(
      dataclasses.replace(config, objective=objective),
      workdir / name,
      init_from=str(workdir / 'trained'),
      eval_only=True,
    )
    values = run.metrics('eval/val')[-1]
    bounds[f'bpb_bound_{name}'] = values['bpb_bound']
    errors.append(values['bpb_bound_se'])
  largest = max(bounds.values()) - min(bounds.values())
  error = math.sqrt(2) * max(errors)
  return bounds | {
    'largest_difference': largest,
    'largest_in_errors': largest / error,
  }

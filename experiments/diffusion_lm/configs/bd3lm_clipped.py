# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BD3-LM whose range of training times is chosen anew while it learns.

Arriola et al. 2025, arXiv:2503.09573, section 5.

  python -m experiments.diffusion_lm --workdir=runs/bd3lm_clipped \\
      --config=experiments/diffusion_lm/configs/bd3lm_clipped.py:tiny \\
      [--init_from=runs/mdlm]
  python -m experiments.diffusion_lm.sample runs/bd3lm_clipped --sampler=block

All else is as in bd3lm.py. The paper chooses at each evaluation, and
`objective.search_every` is as many steps as there are between evaluations by
default; it is a setting of its own, which does not follow
`--config.evals.val.every_steps`. A choice costs one forward pass over a batch
for each of 35 ranges, which is counted in the FLOPs; `low` and `high` in the
metrics are those in use. The paper starts from a trained MDLM. Sizes: tiny,
quickstart, small.
"""

from experiments.diffusion_lm.configs import bd3lm as plain
from jaxtok import train
from jaxtok.diffusion import bd3lm


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  config = plain.get_config(size)
  config.model = bd3lm.Model(inner=config.model)
  config.objective.search_every = config.evals['val'].every_steps
  return config

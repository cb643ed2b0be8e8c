# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The order of one token per call is learned, near a rule that works.

Hong et al. 2025, arXiv:2510.05725 (UPO), on the dice task of `dice.py`. Sizes
tiny and small, each with the references of the paper: tiny_top_k (from random
weights, one of the five most confident positions; also plain tiny),
tiny_softmax and tiny_confidence (from a clone of the most confident position),
and tiny_free without a reference.

  python -m experiments.unmasking --workdir=runs/upo \\
      --config=experiments/unmasking/configs/upo.py:tiny
"""

from experiments import sizes
from experiments.unmasking import denoiser, experiment, training
from jaxtok.diffusion import cloning, policy, rl, upo

_CANDIDATES = 5


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  references = [reference.value for reference in upo.Reference]
  size, kind = sizes.split(size, *references, 'free')
  kind = kind or upo.Reference.TOP_K.value
  is_top_k = kind == upo.Reference.TOP_K.value
  near = upo.Config()
  if kind in references:
    near = upo.Config(
      kl=1e-4,
      reference=upo.Reference(kind),
      num_candidates=_CANDIDATES if is_top_k else 0,
    )
  is_clone = kind in references and not is_top_k
  return experiment.Config(
    denoiser=denoiser.Config(steps=sizes.pick(size, tiny=2500, small=5000)),
    policy=training.Config(
      model=policy.Config(
        hidden=32, mlp_dim=64, time_dim=32, time_max_period=1e4, top_p=3
      ),
      # Of any threshold's choice the most confident position is taken.
      # All steps, as when docs/claims/upo.json was measured.
      clone=cloning.Config(steps=400, until=0.0) if is_clone else None,
      learn=rl.Config(
        alpha=0.0,
        likelihood=rl.Likelihood.ONE_TOKEN,
        near=near,
        steps=sizes.pick(size, tiny=60, small=150),
        lr=3e-3,
      ),
      temperatures=(0.25, 1.0),
    ),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2)),
    temperatures=(0.1, 0.25, 0.5, 1.0),
  )

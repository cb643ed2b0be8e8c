# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masked diffusion language models, compared by bounds on bits per byte.

  python -m experiments.diffusion_lm --list
  python -m experiments.diffusion_lm \\
      --config=experiments/diffusion_lm/configs/mdlm.py:tiny \\
      --workdir=runs/mdlm [--data=PATH] [--config.steps=200]
"""

from experiments import cli

if __name__ == '__main__':
  cli.main(__file__, __doc__)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Language models over text, compared in bits per byte.

  python -m experiments.byte_lm --list
  python -m experiments.byte_lm \\
      --config=experiments/byte_lm/configs/transformer.py:tiny \\
      --workdir=runs/a [--data=PATH] [--config.steps=200]
"""

from experiments import cli

if __name__ == '__main__':
  cli.main(__file__, __doc__)

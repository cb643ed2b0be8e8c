# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Neurally compressed text: trains M1, the byte model of the coders.

  python -m experiments.compressed_text --list
  JAXTOK_DATA=DATA python -m experiments.compressed_text \\
      --config=experiments/compressed_text/configs/m1.py --workdir=runs/m1
  python -m experiments.compressed_text.export --workdir=runs/m1 -o m1.npz
"""

from experiments import cli

if __name__ == '__main__':
  cli.main(__file__, __doc__)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Neurally compressed text: trains M1, which compresses, and M2, which reads.

  python -m experiments.compressed_text --list

M2, a language model over the tokens of any method, and all methods beside each
other; the tokens' settings come after the size:

  python -m experiments.compressed_text --workdir=runs/equalinfo \\
      --config=experiments/compressed_text/configs/neural.py:tiny,b=16,v=8
  python -m experiments.compressed_text.suite --workdir=runs/suite --size=tiny

M1, the byte model of the coders:

  JAXTOK_DATA=DATA python -m experiments.compressed_text \\
      --config=experiments/compressed_text/configs/m1.py --workdir=runs/m1
  python -m experiments.compressed_text.export --workdir=runs/m1 \\
      --output=jaxtok/entropy/weights
"""

from experiments import cli

if __name__ == '__main__':
  cli.main(__file__, __doc__)

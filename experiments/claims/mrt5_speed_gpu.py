# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""On a GPU a shortened encoder of ByT5-small is faster, too.

Kallini et al. 2025, arXiv:2410.20771. By the count of matrix products the
encoder is 1.62 times as cheap without half of 1,024 positions after 3 of 12
blocks, and 2.14 times without seven in ten.

Check: that encoder (ByT5-small, 217 M parameters, random weights), 32 rows of
1,024 ids, bfloat16; otherwise as `mrt5_speed`.
"""

import pathlib

from experiments.byte_lm.configs import mrt5 as configs
from experiments.claims import mrt5_speed

TITLE = 'MrT5, time of the encoder on a GPU'
PAPER = 'Kallini et al. 2025, arXiv:2410.20771'
CLAIM = (
  'Deleting half of 1,024 positions after a quarter of the blocks makes the '
  'encoder of ByT5-small at least 1.35 times as fast on a GPU, and deleting '
  'seven in ten at least 1.7 times.'
)
THRESHOLD = {'speedup': '>= 1.35', 'speedup_70': '>= 1.7'}
SEEDS = (0,)
DEVICES = ('gpu',)


def measure(
  workdir: pathlib.Path, *, seed: int, rows: int = 32, length: int = 1024
) -> dict[str, float]:
  """Times the encoder; see the module."""
  del workdir
  config = configs.get_config('paper').model
  config.vocab_size, config.dtype = 384, 'bfloat16'
  return mrt5_speed.speedups(config, seed, rows=rows, length=length, rounds=20)

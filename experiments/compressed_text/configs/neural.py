# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2 on Equal-Info Windows: neurally compressed text that can be learned.

  python -m experiments.compressed_text --workdir=runs/neural \\
      --config=experiments/compressed_text/configs/neural.py:tiny

Lester et al. 2024, arXiv:2404.03626. Settings after the size: b, bits of a
window (16, 32, 64, 128); v, bits of a token (8, 16); reset, M1 forgets at
every so-many-th window (0: never); rule (cell, delay); half=1, rows of half as
many tokens, which hold as many bytes at v=16 as whole ones at v=8; e.g.
`neural.py:tiny,b=64,v=8`. m1: counted, on the training split, or shipped, the
model that comes with the package. At tiny and small, 16-bit words are numbered
among those in use (about 25,000 of 65,536), which encodes the same text with a
smaller table.
"""

from experiments.compressed_text import m2
from jaxtok import train
from jaxtok.tokenizers import neural


def get_config(argument: str = 'small') -> train.Config:
  """A run of the given size and settings."""
  size, its = m2.parse(
    argument, b=16, v=16, reset=1, rule='cell', half=0, m1='counted'
  )
  is_finite = (its['b'], its['reset']) == (16, 1) and (
    its['rule'] != 'greedy_zero_pad'
  )
  common = dict(
    window_bits=its['b'],
    token_bits=its['v'],
    reset_every=its['reset'],
    close_rule=its['rule'],
    dense_ids=is_finite and its['v'] == 16 and size in ('tiny', 'small'),
  )
  tokenizer = (
    neural.Train(**common, **m2.M1)
    if m2.is_counted(its['m1'])
    else neural.Config(**common)
  )
  config = m2.config(size, tokenizer, its['b'] // its['v'])
  config.data.seq_len //= 1 + its['half']
  return config

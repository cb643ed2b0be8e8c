# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The same model over overlapping 6-mers, masked in runs of six: DNABERT's way.

Ji et al. 2021, Bioinformatics 37(15). The baseline of `dnabert2.py`, with its
sizes.

  python -m experiments.dna --workdir=runs/kmers \\
      --config=experiments/dna/configs/overlapping_6mers.py:tiny
"""

from experiments.dna import experiment
from experiments.dna.configs import dnabert2
from jaxtok.tokenizers import dna

K = 6


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  config = dnabert2.get_config(size)
  config.pretrain.tokenizer = dna.Config(k=K, overlapping=True)
  config.pretrain.data.seq_len = 512
  # As many tokens per step; with one of them for each base that is a fifth of
  # the bases that BPE tokens of five have.
  config.pretrain.batch_size //= 4
  config.pretrain.objective.span = K
  config.pretrain.objective.mask_share = 1.0
  config.pretrain.objective.random_share = 0.0
  for task in config.tasks.values():
    task.max_tokens = 0  # Sequences are not cut.
  return config

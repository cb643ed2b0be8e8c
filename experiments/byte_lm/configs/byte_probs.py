# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A BPE model whose byte-level laws are measured (Phan et al. 2024).

  python -m experiments.byte_lm --workdir=runs/byte_probs \\
      --config=experiments/byte_lm/configs/byte_probs.py:tiny

The model of `bpe.py`. The eval `cut` cuts held-out texts inside tokens, and
reports the cost of the next byte: exact (`bpb`), by the token-level model
(`naive_bpb`) and by token healing (`healed_bpb`). Sizes: tiny, quickstart,
small, paper (that of `bpe.py`).
"""

from experiments.byte_lm.configs import bpe
from jaxtok import train
from jaxtok.evals import cut_prompts


def get_config(size: str = 'small') -> train.Config:
  """A BPE run of the given size with the eval of cut prompts."""
  config = bpe.get_config(size)
  num_prompts = 16 if size == 'tiny' else 200
  config.evals['cut'] = cut_prompts.Config(
    max_bytes=config.evals['val'].max_bytes, num_prompts=num_prompts
  )
  return config

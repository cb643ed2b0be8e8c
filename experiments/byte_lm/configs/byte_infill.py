# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A BPE model that fills in the middle (Bavarian et al. 2022).

  python -m experiments.byte_lm --workdir=runs/byte_infill \\
      --config=experiments/byte_lm/configs/byte_infill.py:tiny
  python -m jaxtok.runs.infill --workdir=runs/byte_infill \\
      --prefix='import nu' --suffix=' as np'

The model of `bpe.py` on text with gaps (`data.fim`), cut into pieces of about
half a row. Prefix and middle of SPM rows are encoded as one text, as for Code
Llama, so that a prompt that ends inside a token is none that the model has
seen: the eval `gaps` compares the ways to go on from it. Sizes: tiny,
quickstart, small.
"""

from experiments.byte_lm.configs import bpe
from jaxtok import train
from jaxtok.data import fim
from jaxtok.evals import gaps


def get_config(size: str = 'small') -> train.Config:
  """A BPE run of the given size on text with gaps."""
  config = bpe.get_config(size)
  config.tokenizer.new_special_tokens = fim.NAMES
  seq_len = config.data.seq_len
  config.data = fim.Config(
    source=config.data.source,
    seq_len=seq_len,
    packing='pack',
    piece_bytes=3 * seq_len // 2,
    rate=0.9,
    spm='joined',
  )
  config.evals['gaps'] = gaps.Config(
    max_bytes=config.evals['val'].max_bytes,
    num_gaps=8 if size == 'tiny' else 200,
    gap_bytes=6 if size == 'tiny' else 16,
    text_bytes=config.data.piece_bytes,
  )
  return config

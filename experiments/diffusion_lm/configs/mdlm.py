# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MDLM over bytes: bidirectional transformer, weight 1/t.

Sahoo et al. 2024, arXiv:2406.07524.

  python -m experiments.diffusion_lm --workdir=runs/mdlm \\
      --config=experiments/diffusion_lm/configs/mdlm.py:tiny

The same model, data and steps as experiments/byte_lm/configs/transformer.py but
for the causal mask and one more token. Sizes: tiny, quickstart, small.
"""

from experiments import sizes
from experiments.byte_lm.configs import transformer
from jaxtok import train
from jaxtok.diffusion import mdlm


def get_config(size: str = 'small') -> train.Config:
  """An MDLM run of the given size."""
  size = sizes.pick(size, **{x: x for x in ('tiny', 'quickstart', 'small')})
  config = transformer.get_config(size)
  num_tokens = config.tokenizer.make().vocab_size
  config.model.vocab_size = num_tokens + 1
  config.model.is_causal = False
  config.objective = mdlm.Config(mask_id=num_tokens)
  return config

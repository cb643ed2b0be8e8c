# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The smaller the blocks, the nearer block diffusion is to autoregression.

Arriola et al. 2025, arXiv:2503.09573: on OpenWebText the test perplexity of a
transformer of 110 M parameters is at most 22.27, 21.68 and 20.73 for blocks of
16, 8 and 4 tokens, 22.98 for MDLM, which is one block, and 17.54 for the
autoregressive model, which blocks of one token are.

Check: the transformer and text8 of `experiments/claims/mdlm.py`, trained with
blocks of 1, 4 and 16 characters for equally many steps on equally many
characters (and at equal FLOPs: all read two copies of each row), then the bound
on held-out bits per character. The order is the paper's claim; the sizes are
not comparable, since a small model trained briefly learns less per step the
more of its context is masked. The bound of blocks of one is exact. Each number
has a standard error of the held-out windows; masks are 8 per window.
`ar_less_one` is the causal model of `mdlm.py` after as many steps less blocks
of one: the same model of the text, but it sees one character before the window,
and predicts from the character before instead of a mask.
"""

import pathlib

from experiments.claims import mdlm as mdlm_claim
from jaxtok import train
from jaxtok.diffusion import bd3lm

TITLE = 'BD3-LM'
PAPER = 'Arriola et al. 2025, arXiv:2503.09573'
CLAIM = 'The likelihood bound falls as blocks get smaller: 16, 4, 1 tokens.'
THRESHOLD = {
  'four_less_sixteen': 'every <= 0',
  'one_less_four': 'every <= 0',
}
SEEDS = (0, 1, 2)
BLOCKS = (1, 4, 16)


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 1000
) -> dict[str, float]:
  """Trains four models; see the module."""
  bounds, numbers = {}, {}
  for block in BLOCKS:
    config = mdlm_claim.get_config('mdlm', seed, steps)
    mask_id = config.objective.mask_id
    config.objective = bd3lm.Config(
      mask_id=mask_id, block=block, eval_samples=8
    )
    values = train.run(config, workdir / f'block{block}').metrics('eval/val')[
      -1
    ]
    bounds[block] = values['bpb_bound']
    numbers[f'bpb_bound_{block}'] = values['bpb_bound']
    numbers[f'bpb_bound_{block}_se'] = values['bpb_bound_se']
  ar = train.run(mdlm_claim.get_config('ar', seed, steps), workdir / 'ar')
  return numbers | {
    'four_less_sixteen': bounds[4] - bounds[16],
    'one_less_four': bounds[1] - bounds[4],
    'ar_less_one': ar.metrics('eval/val')[-1]['bpb'] - bounds[1],
  }

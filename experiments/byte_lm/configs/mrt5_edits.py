# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MrT5 on strings to be rewritten: which bytes does it learn to delete?

  python -m experiments.byte_lm --workdir=runs/mrt5_edits \\
      --config=experiments/byte_lm/configs/mrt5_edits.py:tiny \\
      --config.data.source.kind=contextual

Kinds of `tasks.edits`: vowels, contextual, merge. In 'vowels', every vowel can
be deleted before the later blocks, 20 % of the letters. The controller asks for
that after some steps (`model.shortener.rate.delay`); three steps in ten delete
hard, as evaluation does.
Baselines as in `mrt5.py`: small_control and so on. (To _fixed a string without
spaces is one word.)
Sizes: tiny, small, paper (9 + 3 layers, width 512, strings of 64 ids, batches
of 128, 30,000 steps, the controller from step 10,000 on, no hard steps), and
half: half of the positions go, more than any task can spare, so that letters
have to be handed on. For that the gate stands behind two blocks of four, the
share rises over 3,000 steps, and the controller holds it from both sides (see
`rate_control.PI`); four steps in five delete hard. wide is half with width 128,
15,000 steps and a share that rises over 5,000, which 'contextual' needs.
"""

import dataclasses

from experiments import sizes
from experiments.byte_lm.configs import mrt5
from jaxtok import train
from jaxtok.data import pairs
from jaxtok.nn import rate_control, shorteners
from jaxtok.tasks import edits


def get_config(size: str = 'small') -> train.Config:
  """A run of the given size."""
  size, kind = sizes.split(size, *mrt5.BASELINES)
  length, batch_size, steps, delay, shape = sizes.pick(
    size,
    tiny=(24, 32, 100, 66, (96, 3, 2, 4, 24, 192, 1)),
    small=(24, 32, 5000, 2300, (96, 3, 2, 4, 24, 192, 1)),
    half=(24, 32, 9000, 1500, (96, 4, 2, 4, 24, 192, 2)),
    wide=(24, 32, 15_000, 1500, (128, 4, 2, 4, 32, 256, 2)),
    paper=(64, 128, 30_000, 10_000, (512, 9, 3, 8, 64, 1024, 3)),
  )
  dim, encoder_layers, layers, heads, head_dim, mlp_dim, at = shape
  config = mrt5.get_config(f'tiny_{kind}' if kind else 'tiny')
  config.data = pairs.Config(
    source=edits.Edits(length=length), source_len=length, target_len=length
  )
  if ramp := {'half': 3000, 'wide': 5000}.get(size, 0):
    rate = rate_control.PI(target=0.5, delay=delay, ramp=ramp, two_sided=True)
  else:
    ki = 1e-5 if size == 'paper' else 1e-3
    rate = rate_control.PI(target=0.25, ki=ki, delay=delay)
  hard_share = {'paper': 0.0, 'half': 0.8, 'wide': 0.8}.get(size, 0.3)
  shortener = config.model.shortener if kind else shorteners.Gate(rate=rate)
  config.model = dataclasses.replace(
    config.model,
    dim=dim,
    num_encoder_layers=encoder_layers,
    num_layers=layers,
    num_heads=heads,
    head_dim=head_dim,
    mlp_dim=mlp_dim,
    shorten_at=at,
    shortener=shortener,
    # Without, a gate that is not sharp works softly and fails hard.
    hard_share=0.0 if kind else hard_share,
  )
  config.batch_size, config.steps = batch_size, steps
  config.optim.warmup_steps = min(100, steps // 10)
  # It would pull the gate to 'keep', which the loss alone hardly resists.
  config.optim.weight_decay = 0.0
  config.evals['val'].every_steps = config.checkpoint_every = max(steps // 7, 1)
  config.evals['val'].max_bytes = 0
  config.log_every = max(steps // 35, 1)
  return config

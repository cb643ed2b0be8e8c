# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MergeDNA: tokens that the model learns by merging bases.

arXiv:2511.14806.

  python -m experiments.dna --workdir=runs/mergedna \\
      --config=experiments/dna/configs/mergedna.py:tiny

Sizes: as in `dnabert2.py`, but tiny only shows that everything runs, on short
sequences; `claim` is what `experiments/claims/mergedna.py` trains; `paper` has
380 M parameters and rows of 4,096. With `_dtem` behind a size, e.g. tiny_dtem,
scores of pairs learn by DTEM's soft top-k; with `_window` each window merges as
many pairs.
"""

from experiments import sizes
from experiments.dna import experiment, finetune
from experiments.dna.configs import dnabert2
from jaxtok.data import planted
from jaxtok.models import mergedna
from jaxtok.objectives import merged_tokens
from jaxtok.tokenizers import dna
from jaxtok.train import optim

# Width, heads; layers of the local, latent encoder, latent, local decoder.
_SHAPES = dict(
  tiny=(32, 2, 2, 1, 1, 1),
  claim=(64, 4, 2, 2, 1, 1),
  small=(128, 4, 4, 4, 2, 2),
  paper=(1024, 16, 4, 20, 4, 2),
)


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  size, kind = sizes.split(size, 'dtem', 'window')
  dim, num_heads, *layers = sizes.pick(size, **_SHAPES)
  is_made_up = size in ('tiny', 'claim')
  config = dnabert2.get_config('tiny' if is_made_up else size)
  run = config.pretrain
  run.data.seq_len = sizes.pick(
    size, tiny=128, claim=256, small=512, paper=4096
  )
  run.data.packing = 'window'
  if not is_made_up:
    run.data.source.piece = 65_536
  run.tokenizer = dna.Config(k=1)
  run.model = mergedna.Config(
    dim=dim,
    num_heads=num_heads,
    num_local=layers[0],
    num_latent=layers[1],
    num_latent_decoder=layers[2],
    num_local_decoder=layers[3],
    relaxation='top_k' if kind == 'dtem' else 'straight',
    scope='window' if kind == 'window' else 'sequence',
  )
  run.objective = merged_tokens.Config()
  run.optim = optim.Config(
    lr=sizes.pick(size, tiny=2e-3, claim=2e-3, small=1e-3, paper=1e-4),
    warmup_steps=sizes.pick(size, tiny=10, claim=50, small=200, paper=2000),
  )
  run.steps = sizes.pick(size, tiny=50, claim=200, small=2000, paper=100_000)
  run.batch_size = sizes.pick(size, tiny=8, claim=16, small=16, paper=256)
  config.finetune.pool = 'mean'
  for task in config.tasks.values():
    task.max_tokens = 0  # Sequences are not cut.
  if size == 'tiny':
    run.log_every = 10
    run.data.source = planted.Motifs(length=100, num_train=1000)
    config.tasks['motifs'] = finetune.Task(data=run.data.source, epochs=1)
  return config

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""DNABERT-2: BPE tokens, ALiBi, 15 % of the tokens masked.

Zhou et al. 2023, arXiv:2306.15006.

  python -m experiments.dna --workdir=runs/dnabert2 \\
      --config=experiments/dna/configs/dnabert2.py:tiny

Sizes: tiny (made-up DNA, a minute), small (genomes and tasks of GUE from the
folder `$JAXTOK_DATA`), paper (117 M parameters; its data are not included: set
config.pretrain.data.source.path to FASTA files). Of several tasks,
--config.only="('mouse/2', 'mouse/3')" takes some; another call takes others.
"""

from experiments import sizes
from experiments.dna import experiment, finetune, tasks
from jaxtok import train
from jaxtok.data import fasta, planted, text
from jaxtok.evals import bpb
from jaxtok.models import dnabert2
from jaxtok.objectives import masked_lm
from jaxtok.tokenizers import dna
from jaxtok.train import optim

GENOMES = '$JAXTOK_DATA/dna/genomes.zip'
TASKS = (
  *('prom/prom_core_all', 'prom/prom_core_tata', 'prom/prom_300_tata'),
  *('tf/0', 'mouse/0', 'mouse/2', 'mouse/3'),
)
# Width, layers, heads, hidden width.
_SHAPES = dict(
  tiny=(64, 2, 4, 128), small=(192, 4, 6, 512), paper=(768, 12, 12, 3072)
)


def get_config(size: str = 'small') -> experiment.Config:
  """An experiment of the given size."""
  dim, num_layers, num_heads, mlp_dim = sizes.pick(size, **_SHAPES)
  return experiment.Config(
    pretrain=train.Config(
      data=text.Config(
        source=sizes.pick(
          size,
          tiny=planted.Motifs(),
          small=fasta.Fasta(path=GENOMES),
          paper=fasta.Fasta(path=GENOMES, piece=640),
        ),
        seq_len=128,
        packing='pack',
      ),
      tokenizer=dna.TrainBpe(vocab_size=512 if size == 'tiny' else 4096),
      model=dnabert2.Config(
        dim=dim, num_layers=num_layers, num_heads=num_heads, mlp_dim=mlp_dim
      ),
      objective=masked_lm.Config(first_id=dna.first_base()),
      optim=optim.Config(
        lr=sizes.pick(size, tiny=2e-3, small=1e-3, paper=5e-4),
        schedule=optim.Schedule.LINEAR,
        warmup_steps=sizes.pick(size, tiny=50, small=200, paper=30_000),
        final_ratio=0.0,
        b2=0.98,
        eps=1e-6,
        weight_decay=1e-5,
      ),
      evals={'val': bpb.Config(max_bytes=100_000)},
      steps=sizes.pick(size, tiny=300, small=4000, paper=500_000),
      batch_size=sizes.pick(size, tiny=16, small=32, paper=4096),
      log_every=sizes.pick(size, tiny=50, small=100, paper=100),
    ),
    finetune=finetune.Config(
      lr=sizes.pick(size, tiny=1e-3, small=3e-4, paper=3e-5)
    ),
    tasks=find_tasks(size),
    seeds=sizes.pick(size, tiny=(0,), small=(0, 1, 2), paper=(0, 1, 2)),
  )


def find_tasks(size: str) -> dict[str, finetune.Task]:
  """The tasks of a size; those of GUE whose training split is there."""
  if size == 'tiny':
    return {'motifs': finetune.Task(data=planted.Motifs(), epochs=3)}
  return {name: tasks.published(name) for name in TASKS}

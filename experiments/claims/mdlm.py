# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masked diffusion is behind autoregression in likelihood.

Sahoo et al. 2024, arXiv:2406.07524: on OpenWebText a transformer of
110 M parameters has test perplexity 17.54 trained autoregressively and at most
23.21 trained as MDLM. On text8 Shi et al. 2024 (arXiv:2406.04329) report 1.23
bits per character against at most 1.37.

Check: one transformer of 150 thousand parameters, the first 2.5 million
characters of text8, the same 4000 steps of 2048 characters and the same FLOPs
but for one row of the token table; held-out bits per character of the causal
model less the bound of MDLM. Windows of 64 characters; the causal model sees
one character before each window, MDLM does not, which is worth well below 0.1.
A difference of sign at this size would say that objective or bound are wrong,
not the papers; its size says nothing about theirs, since a bidirectional model
needs many more steps before context helps it. (After 1000 steps of one seed the
causal model was at 2.44 bits and MDLM at 4.14, hardly below the entropy of
single letters: a comparison that short shows nothing else.)

Needs `$JAXTOK_DATA/english_text/text8_head.txt.xz`. The held-out text is 5 % of
the file by position. Both numbers come with standard errors; MDLM's is a bound
estimated with 8 masks per window.
"""

import os
import pathlib

from experiments.diffusion_lm.configs import mdlm as mdlm_config
from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.runs import run as run_lib
from jaxtok.train import optim

TITLE = 'MDLM'
PAPER = 'Sahoo et al. 2024, arXiv:2406.07524'
CLAIM = (
  'At equal size and FLOPs an autoregressive model has fewer bits per '
  'character than the bound of masked diffusion.'
)
THRESHOLD = {'ar_less_mdlm': 'every <= -0.02'}
SEEDS = (0, 1, 2)


def get_config(objective: str, seed: int, steps: int = 4000) -> train.Config:
  """A run on text8.

  Args:
    objective: 'ar' or the name of a config of experiments.diffusion_lm.
    seed: Of weights and data order.
    steps: Of 2048 characters.

  Raises:
    ValueError: If `JAXTOK_DATA` does not name the folder of the data.
  """
  folder = os.environ.get('JAXTOK_DATA', '')
  path = pathlib.Path(folder, 'english_text', 'text8_head.txt.xz')
  if not folder or not path.exists():
    raise ValueError(
      f'JAXTOK_DATA={folder!r} must name a folder with '
      'english_text/text8_head.txt.xz.'
    )
  config = mdlm_config.get_config('tiny')
  config.model.num_layers = 3
  if objective == 'ar':
    config.objective = next_token.Config()
    config.model = transformer.Config(dim=64, num_layers=3, num_heads=2)
  config.data = text.Config(source=text.Files(path=str(path)), seq_len=64)
  config.batch_size, config.seed, config.steps = 32, seed, steps
  config.optim = optim.Config(lr=3e-3, warmup_steps=100)
  config.evals = {'val': bpb.Config(every_steps=0, max_bytes=64_000)}
  config.log_every = config.checkpoint_every = 500
  return config


def train_mdlm(workdir: pathlib.Path, seed: int, steps: int) -> run_lib.Run:
  """The MDLM run of this claim, which others compare with.

  Args:
    workdir: Of a claim and seed. The run is kept in `mdlm/trained` beside the
      claim's folder, where the next claim finds it.
    seed: Of weights and data order.
    steps: Of 2048 characters.
  """
  config = get_config('mdlm', seed, steps)
  config.objective.eval_samples = 8
  shared = workdir.parents[1] / 'mdlm' / 'trained'
  return train.run(config, shared / f'seed_{seed}_steps_{steps}')


def measure(
  workdir: pathlib.Path, *, seed: int, steps: int = 4000
) -> dict[str, float]:
  """Trains both; see the module."""
  ar = train.run(get_config('ar', seed, steps), workdir / 'ar')
  masked = train_mdlm(workdir, seed, steps)
  exact, bound = (r.metrics('eval/val')[-1] for r in (ar, masked))
  return {
    'ar_less_mdlm': exact['bpb'] - bound['bpb_bound'],
    'bpb_ar': exact['bpb'],
    'bpb_ar_se': exact['bpb_se'],
    'bpb_bound_mdlm': bound['bpb_bound'],
    'bpb_bound_mdlm_se': bound['bpb_bound_se'],
  }

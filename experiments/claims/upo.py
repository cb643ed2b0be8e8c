# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""An order of one token per call that is learned beats the most confident one.

Hong et al. 2025, arXiv:2510.05725, train the order in which LLaDA-8B fills a
Sudoku: 20.1 points above random orders and 11.2 above revealing what is most
confident (abstract); a divergence from a rule keeps the policy near it.

Check: rolls of dice (20 tokens, one per call), the denoiser of the claim
`policy`, 512 test prompts of 13 kinds. Each seed trains a policy near each of
the three references of the paper, 150 updates at the paper's weight of 1e-4:
`top_k` from random weights, among the five most confident positions; `softmax`
and `confidence` from a clone of the most confident position. accuracy_* is that
of the temperature that is best on validation prompts; gain_* is the worst of
the three less that of the rule. (Margin and entropy are right in 1.00 on this
task; the paper compares with the two rules.)
"""

import dataclasses
import pathlib

from experiments.claims import policy as flagship
from experiments.unmasking import experiment, training
from experiments.unmasking.configs import upo as configs
from jaxtok.diffusion import selectors, upo
from jaxtok.tasks import base

TITLE = 'UPO'
PAPER = 'Hong et al. 2025, arXiv:2510.05725'
CLAIM = (
  'An order that is learned near a reference is right more often than random '
  'orders and the most confident position first.'
)
THRESHOLD = {
  'gain_random': 'every >= 0.1',
  'gain_confident': 'every >= 0.05',
}
SEEDS = (0, 1, 2)
SHARES = ('policy',)


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  home = workdir.parents[1] / flagship.__name__.rpartition('.')[2]
  numbers = {}
  for reference in upo.Reference:
    config = configs.get_config(f'small_{reference.value}')
    job = experiment.Experiment(
      config, workdir.parent / f'experiment_{reference.value}'
    )
    found = training.trained_denoiser(
      home / 'experiment', config.task, config.denoiser, job.log
    )
    judge = job.judge(found)
    rows = base.batch(config.task, training.VALIDATION, 0, config.num_test)
    validation = dataclasses.replace(judge, rows_nt=rows, seed=1)
    settings = job.settings(found, seed)
    points = validation.sweep(settings)
    best = max(range(len(points)), key=lambda i: points[i].accuracy)
    chosen = judge.point(*settings[best])
    numbers[f'accuracy_{reference.value}'] = chosen.accuracy
  worst = min(numbers.values())
  random = judge.point('', selectors.Random(1)).accuracy
  confident = judge.point('', selectors.TopK(1)).accuracy
  return numbers | {
    'accuracy_random': random,
    'accuracy_confident': confident,
    'gain_random': worst - random,
    'gain_confident': worst - confident,
  }

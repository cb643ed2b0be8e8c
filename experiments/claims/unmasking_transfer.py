# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A policy works with a longer answer and with another denoiser.

arXiv:2512.09106 finds policies trained with LLaDA at 256 tokens to work at 512
and, but for the fastest, with Dream. A policy sees confidences alone, so
nothing in it is tied to a vocabulary or a length.

Check: the policies of the claim `policy` (dice, totals 12 to 24, 20 tokens;
they are trained if they are not there yet), unchanged, (a) with a denoiser of
another seed and (b) on totals 12 to 30 with 26 tokens, which needs its own
denoiser, both trained as long. Of each seed's policies the cheapest that is
right in 0.97 of the original task is taken at its temperature. drop_* is the
accuracy lost, extra_calls_longer the calls added by the three pairs more that
fit into the answer.

Measured before with policies of other seeds (20 to 24), trained at pressures up
to 3: another denoiser cost 0.02, longer answers 0.14 at 1.4 calls more.
"""

import dataclasses
import pathlib

from experiments.claims import policy as flagship
from experiments.unmasking import experiment, selection, training
from experiments.unmasking.configs import dice
from jaxtok.evals import pareto
from jaxtok.tasks import base, dice_countdown

TITLE = 'Transfer of unmasking policies'
PAPER = 'Learning Unmasking Policies, arXiv:2512.09106'
CLAIM = 'A policy keeps its accuracy on longer answers and other denoisers.'
THRESHOLD = {
  'drop_other_denoiser': 'every <= 0.1',
  'drop_longer': 'every <= 0.1',
  'extra_calls_longer': 'every <= 6',
}
SEEDS = flagship.SEEDS
SHARES = ('policy',)


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  config = dice.get_config('small')
  home = workdir.parents[1] / flagship.__name__.rpartition('.')[2]
  job = experiment.Experiment(config, home / 'experiment')
  judge = job.judge(job.denoiser())
  settings = [s for _, s in job.settings(judge.denoiser, seed)]
  points = [judge.point(str(i), s) for i, s in enumerate(settings)]
  good = [p for p in pareto.front(points) if p.accuracy >= 0.97]
  best = good[0] if good else max(points, key=lambda p: p.accuracy)
  chosen = settings[int(best.name)]
  shared = workdir.parent / 'denoisers'
  other = training.trained_denoiser(
    shared,
    config.task,
    dataclasses.replace(config.denoiser, seed=1),
    job.log,
  )
  longer = dice_countdown.DiceCountdown(max_total=30, max_pairs=13)
  wide = training.trained_denoiser(
    shared / 'longer', longer, config.denoiser, job.log
  )
  swapped = selection.Judge(config.task, other, judge.rows_nt)
  rows = base.batch(longer, training.TEST, 0, config.num_test)
  stretched = selection.Judge(longer, wide, rows)
  a, b = swapped.point('', chosen), stretched.point('', chosen)
  return {
    'accuracy': best.accuracy,
    'calls': best.calls,
    'drop_other_denoiser': best.accuracy - a.accuracy,
    'calls_other_denoiser': a.calls,
    'drop_longer': best.accuracy - b.accuracy,
    'extra_calls_longer': b.calls - best.calls,
  }

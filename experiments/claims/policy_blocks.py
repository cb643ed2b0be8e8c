# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""In blocks decoded left to right a policy is level with thresholding.

arXiv:2512.09106, LLaDA-8B in blocks of 32 of 256 tokens, GSM8K: the policy and
thresholding are level (about 80 %) at many calls, and at ten the policy is
right in 35 % where thresholding is in 17.5 %.

Check: dice, denoiser, prompts, training (from one start) and temperatures of
the claim `policy`, but the answer of 20 tokens is decoded in four blocks of 5,
both by the policy while it is trained (20 calls in all, however blocks share
them) and by thresholds on a grid of 0.01.
largest_deficit compares at equal calls: of the thresholds that no cheaper one
equals, the largest accuracy that is lost by taking the best policy of the seed
that costs no more (0.01 is the point of accuracy that counts as level; a policy
that costs more than a threshold does not count). Also reported: the most that
either is right and what that costs, and, as in `policy`, hypervolumes and what
is right within six calls.
"""

import pathlib

from experiments.claims import policy as flagship
from experiments.unmasking import experiment, training
from experiments.unmasking.configs import dice
from jaxtok.evals import pareto

TITLE = 'Unmasking policy in blocks'
PAPER = 'Learning Unmasking Policies, arXiv:2512.09106'
CLAIM = (
  'In blocks that are decoded left to right a learned policy loses no more '
  'than a point to thresholding at equal calls.'
)
THRESHOLD = {'largest_deficit': 'every <= 0.01'}
SEEDS = (20, 21, 22)
SHARES = ('policy',)
_BLOCK = 5


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  config = dice.get_config('small')
  config.policy.learn.block = _BLOCK
  # All blocks share the calls; by default each has as many as it has tokens.
  config.policy.learn.max_calls = config.task.answer_len
  config.policy.num_starts = config.policy.num_chains = 1
  config.policy.alphas = (0.4, 1.0, 3.0)
  # A block that is nearly done waits for its last position: at the usual bias
  # few random policies finish in 20 calls, and without reward none learns.
  config.policy.model.bias = 0.0
  job = experiment.Experiment(config, workdir.parent / 'experiment')
  home = workdir.parents[1] / flagship.__name__.rpartition('.')[2]
  found = training.trained_denoiser(
    home / 'experiment', config.task, config.denoiser, job.log
  )
  judge = job.judge(found)
  rules = {'threshold': job.rules(judge)['threshold']}
  learned = job.learned(judge, seed)
  compared = flagship.numbers(rules, learned, judge.task.answer_len)
  numbers = {'largest_deficit': largest_deficit(rules['threshold'], learned)}
  for name, points in {
    'threshold': rules['threshold'],
    'policy': learned,
  }.items():
    best = pareto.front(points)[-1]
    numbers[f'accuracy_{name}'] = best.accuracy
    numbers[f'calls_{name}'] = best.calls
  copied = ('gain_hypervolume', 'hypervolume', 'gain_within_6_calls')
  return numbers | {name: compared[name] for name in copied}


def largest_deficit(
  thresholds: list[pareto.Point], learned: list[pareto.Point]
) -> float:
  """Accuracy lost at most by the policy at the calls of a threshold."""
  lost = []
  for rival in pareto.front(thresholds):
    best = pareto.best_within(learned, rival.calls)
    lost.append(rival.accuracy - (best.accuracy if best else 0.0))
  return max(lost)

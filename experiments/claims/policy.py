# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A learned policy beats every rule when the whole answer is decoded at once.

arXiv:2512.09106 trains a policy of 0.3 M parameters against LLaDA-8B and finds
it level with thresholding inside blocks of 32 tokens, and above every rule
when blocks are given up (GSM8K, 256 tokens at once: 48 % at 13 calls, where
thresholding stays below 34 % at any number of calls).

Check: rolls of dice until a total is used up (`jaxtok/tasks/dice_countdown`), a
denoiser of 64 x 3, one for all seeds. Each seed trains four policies from
random weights, 300 updates at speed pressure 0.4; the three of the highest
reward on validation prompts go on with 600 updates at pressure 8, and then at
1. Settings were chosen on other seeds (0 to 6, 10, 20 to 24, 30 to 34, 40 to
44). 512 test prompts (of 13 kinds: with greedy tokens a rule decodes equal
prompts equally), policies at ten temperatures, thresholds on a grid of 0.01,
and dense grids of entropy bounds, factors, top-k, margin, entropy and random.

Rules are taken at their best on the test prompts. The policy's settings are
chosen with 30 draws of each validation prompt and tested with 100 others:
accuracy and calls, of the most accurate setting within 9.45 calls there, a
little below the 9.5 that are asked for; fast_gain, of the most accurate setting
within 6 calls, its accuracy less that of the best rule that costs no more, or
no more than 6 calls; fast_gain_low, the same less 1.96 standard errors; gain_*,
of all settings that no other beat in validation, their hypervolume less the
best rule's, and less that of all rules together, *_low the lower end of its 95
% interval (prompts and draws resampled, for rules and policy alike).
best_gain_* is the same of points chosen on the test prompts. What is trained
stays in the folder `experiment` beside those of the seeds, so that a second
call goes on; delete it to start anew.

The limit in validation was 9.3 before these seeds were run. With it the verdict
is the same: only the settings of seeds 52 and 54 change, to 0.981 at 9.0 and
0.976 at 9.1 calls.

Measured before, with pressures of 0.4, 1, 3 and 8 and 9.3 calls in validation:
seeds 30 to 34, one chain (the best start alone), right in 0.996 or more at 7.6
to 8.8 calls, but for seed 33, which needed 9.7; seeds 40 to 44, two chains,
0.997 or more at 4.2 to 9.0 calls, but for seed 42, 0.941 at 8.6 (0.994 at 9.4).
"""

import dataclasses
import pathlib

from experiments.unmasking import (
  chosen,
  experiment,
  frontier,
  selection,
  training,
)
from experiments.unmasking.configs import dice
from jaxtok.evals import pareto
from jaxtok.tasks import base

TITLE = 'Unmasking policy'
PAPER = 'Learning Unmasking Policies, arXiv:2512.09106'
CLAIM = (
  'In full diffusion a learned policy needs fewer denoiser calls than any rule '
  'at equal accuracy, over the whole frontier.'
)
THRESHOLD = {
  'accuracy': 'every >= 0.97',
  'calls': 'every <= 9.5',
  'gain_hypervolume_low': 'every >= 0',
  'fast_gain_low': 'every >= 0',
}
SEEDS = (50, 51, 52, 53, 54)
_ACCURACY, _BUDGET, _FAST = 0.97, 9.45, 6.0
_DRAWS = {'validation': 30, 'test': 100}


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  shared = workdir.parent / 'experiment'
  job = experiment.Experiment(dice.get_config('small'), shared)
  judge = job.judge(job.denoiser())
  rules = job.rules(judge)
  c = job.config
  rows = base.batch(c.task, training.VALIDATION, 0, c.num_test)
  validation = dataclasses.replace(
    judge, rows_nt=rows, num_draws=_DRAWS['validation'], seed=1
  )
  test = dataclasses.replace(judge, num_draws=_DRAWS['test'], seed=2)
  settings = job.settings(judge.denoiser, seed)
  front = chosen.choose(settings, validation, test)
  length = judge.task.answer_len
  found = tested(rules, front, length)
  best = numbers(rules, job.learned(judge, seed), length)
  return found | {f'best_{name}': x for name, x in best.items()}


def tested(rules, front: chosen.Front, length: int) -> dict[str, float]:
  """What is compared, of settings that validation chose."""
  outcome = frontier.Outcome(rules, {}, length)
  every = outcome.all_rules()
  sure, fast = front.within(_BUDGET), front.within(_FAST)
  volume = front.volume(length)
  singly = [x for name, x in rules.items() if name != selection.ORACLE]
  low, high = front.gain_interval(singly, length)
  budget = max(_FAST, fast.calls if fast else 0.0)
  rule = pareto.best_within(every, budget)
  gain = (fast.accuracy if fast else 0.0) - (rule.accuracy if rule else 0.0)
  return {
    'accuracy': sure.accuracy if sure else 0.0,
    'calls': sure.calls if sure else float(length),
    'rule_calls': _cheapest(every, length),
    'gain_hypervolume': volume - outcome.best_rule()[1],
    'gain_hypervolume_low': low,
    'gain_hypervolume_high': high,
    'gain_over_all_rules': volume - outcome.volume(every),
    'gain_over_all_rules_low': front.gain_interval([every], length)[0],
    'fast_accuracy': fast.accuracy if fast else 0.0,
    'fast_calls': fast.calls if fast else float(length),
    'fast_gain': gain,
    'fast_gain_low': gain - 1.96 * (chosen.error(fast) if fast else 0.0),
  }


def numbers(rules, learned, length: int) -> dict[str, float]:
  """What is compared, of the best on the test prompts."""
  outcome = frontier.Outcome(rules, {0: learned}, length)
  every = outcome.all_rules()
  within = lambda points: pareto.best_within(points, _FAST)
  fast, rule_fast = within(learned), within(every)
  _, best = outcome.best_rule()
  low, high = pareto.hypervolume_interval(learned, length)
  return {
    'calls': _cheapest(learned, length),
    'gain_hypervolume': outcome.volume(learned) - best,
    'gain_over_all_rules': outcome.volume(learned) - outcome.volume(every),
    'hypervolume': outcome.volume(learned),
    'hypervolume_low': low,
    'hypervolume_high': high,
    'gain_within_6_calls': (fast.accuracy if fast else 0.0)
    - (rule_fast.accuracy if rule_fast else 0.0),
    'accuracy': max(p.accuracy for p in learned),
    'dominating_points': len(frontier.dominating(learned, every)),
  }


def _cheapest(points, length: int) -> float:
  good = [p for p in pareto.front(points) if p.accuracy >= _ACCURACY]
  return good[0].calls if good else float(length)

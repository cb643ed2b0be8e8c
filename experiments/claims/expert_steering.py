# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""An expert in each group teaches a policy from random weights.

arXiv:2512.09106 adds to each group one rollout of a threshold rule in full
diffusion, where a random policy hardly ever answers right, and treats the
behaviour as a mixture of policy and expert. They see a large gain at middle
and high numbers of calls.

Check: dice with a denoiser of 2,500 steps, a policy from random weights, alpha
1, 300 updates, without and with one rollout of Threshold(0.7) per group of 8.
Numbers are of the best validation on 128 prompts; share_of_expert the accuracy
with an expert over that of the rule on them.

With the denoiser of 5,000 steps a policy became right without an expert as well
(one seed: 0.99 at 8.3 calls; with one 1.00 at 10.8).
"""

import pathlib

from experiments.unmasking import experiment, training
from experiments.unmasking.configs import dice
from jaxtok.diffusion import rl

TITLE = 'Expert steering'
PAPER = 'Learning Unmasking Policies, arXiv:2512.09106'
CLAIM = (
  'One expert rollout per group lets a policy from random weights become '
  'right, which it does not without.'
)
THRESHOLD = {
  'share_of_expert': 'every >= 0.9',
  'accuracy_without': 'every <= 0.5',
}
SEEDS = (0, 1, 2)


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  config = dice.get_config('tiny')
  job = experiment.Experiment(config, workdir.parent / 'experiment')
  found = job.denoiser()
  numbers = {}
  for name, num_experts in {'without': 0, 'with': 1}.items():
    learn = rl.Config(alpha=1.0, num_experts=num_experts, lr=3e-3, steps=300)
    policy = training.Config(learn=learn, clone=None)
    lesson = training.Lesson(config.task, found, policy, seed, job.log)
    _, history = lesson.stage(lesson.start(), 1.0)
    best = max(history, key=lambda row: row['reward'])
    numbers[f'accuracy_{name}'] = best['accuracy']
    numbers[f'calls_{name}'] = best['calls']
  right, calls = lesson.judge.judged(lesson.expert, lesson.judge.rows_nt)
  numbers['expert_accuracy'] = float(right.mean())
  numbers['expert_calls'] = float(calls.mean())
  share = numbers['accuracy_with'] / numbers['expert_accuracy']
  return numbers | {'share_of_expert': share}

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A reward of correctness minus calls teaches to answer at once, and wrongly.

arXiv:2512.09106 multiplies correctness by a falling function of the calls. With
r - alpha n / L instead, a policy that is rarely right gains more by being fast
than by being right, and reveals everything in its first call.

Check: dice with a denoiser of 2,500 steps, a policy from random weights (no
cloning), lr 3e-3, alpha 1, 100 updates with each reward, and the policy after
the last one. Numbers are of 128 validation prompts, decoded as at test time.

With the denoiser of 5,000 steps the additive reward did not collapse (two
seeds: 0.95 at 12.8 and 12.3 calls): once a policy is right, being right at 12
calls (0.4) is worth more than being wrong at one (-0.05).
"""

import pathlib

from experiments.unmasking import experiment, training
from experiments.unmasking.configs import dice
from jaxtok.diffusion import returns, rl

TITLE = 'Reward of unmasking policies'
PAPER = 'Learning Unmasking Policies, arXiv:2512.09106'
CLAIM = (
  'With an additive reward the policy collapses to one call and wrong answers; '
  'with the multiplicative one it does not.'
)
THRESHOLD = {
  'sum_calls': 'every <= 2',
  'sum_accuracy': 'every <= 0.05',
  'product_accuracy': 'every >= 0.2',
}
SEEDS = (0, 1, 2)


def measure(workdir: pathlib.Path, *, seed: int) -> dict[str, float]:
  """Numbers of one seed; see the module's docstring."""
  config = dice.get_config('tiny')
  shared = workdir.parent / 'experiment'
  job = experiment.Experiment(config, shared)
  found = job.denoiser()
  numbers = {}
  for kind in returns.Reward:
    learn = rl.Config(alpha=1.0, reward=kind, lr=3e-3, steps=100)
    policy = training.Config(learn=learn, clone=None)
    lesson = training.Lesson(config.task, found, policy, seed, job.log)
    _, history = lesson.stage(lesson.start(), 1.0)
    numbers[f'{kind.value}_accuracy'] = history[-1]['accuracy']
    numbers[f'{kind.value}_calls'] = history[-1]['calls']
  return numbers

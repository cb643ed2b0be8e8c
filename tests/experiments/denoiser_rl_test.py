# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training denoisers by rewards, from the first file to the last."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.denoiser_rl import experiment
from experiments.denoiser_rl.configs import diffu_grpo as config_lib
from experiments.unmasking import denoiser
from jaxtok.diffusion import diffu_grpo
from jaxtok.tasks import addition, brackets, dice_countdown

TINY = experiment.Config(
  task=brackets.Brackets(kinds=1, length=4),
  denoiser=denoiser.Config(dim=16, num_layers=1, num_heads=2, steps=20),
  learn=diffu_grpo.Config(steps=4, num_prompts=4, group=4, num_inner=2),
  num_validation=8,
  validate_every=2,
)


def with_steps(steps):
  return dataclasses.replace(
    TINY, learn=dataclasses.replace(TINY.learn, steps=steps)
  )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  job = experiment.Experiment(TINY, workdir)
  return workdir, job.run()


def test_a_run_validates_before_during_and_after(whole):
  workdir, history = whole
  assert [x['step'] for x in history] == [0, 2, 4]
  assert json.loads((workdir / 'validation.json').read_text()) == history
  for numbers in history:
    assert 0 <= numbers['sampled'] <= 1
    assert 0 <= numbers['greedy'] <= 1
  assert history[-1]['norm'] > 0


def test_a_stopped_run_goes_on_to_the_same_numbers(whole, tmp_path):
  workdir, history = whole
  experiment.Experiment(with_steps(2), tmp_path).run()
  assert experiment.Experiment(TINY, tmp_path).run() == history
  with (
    np.load(workdir / 'state.npz') as a,
    np.load(tmp_path / 'state.npz') as b,
  ):
    assert set(a.files) == set(b.files)
    for name in a.files:
      np.testing.assert_array_equal(a[name], b[name])


def test_a_finished_run_is_not_trained_again(whole):
  workdir, history = whole
  before = (workdir / 'state.npz').stat().st_mtime_ns
  assert experiment.Experiment(TINY, workdir).run() == history
  assert (workdir / 'state.npz').stat().st_mtime_ns == before


def test_a_validation_without_its_state_is_forgotten(whole, tmp_path):
  _, history = whole
  experiment.Experiment(with_steps(2), tmp_path).run()
  path = tmp_path / 'validation.json'
  path.write_text(json.dumps([*json.loads(path.read_text()), history[-1]]))
  assert experiment.Experiment(TINY, tmp_path).run() == history


def test_another_config_needs_another_folder(whole):
  workdir, _ = whole
  other = dataclasses.replace(TINY, tokens_per_call=1)
  with pytest.raises(ValueError, match=r'tokens_per_call: 2 there, 1 asked'):
    experiment.Experiment(other, workdir).run()


def test_a_training_starts_from_the_supervised_denoiser(whole):
  workdir, _ = whole
  job = experiment.Experiment(TINY, workdir)
  trainer = job.trainer()
  found = denoiser.make(TINY.task, TINY.denoiser)
  made_by = denoiser.made_by(TINY.task, TINY.denoiser)
  model, _ = denoiser.load(
    workdir / 'denoiser_seed0.npz', found.model, made_by=made_by
  )
  got, want = trainer.denoiser.params, nnx.split(model)[1]
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_end_of_an_answer_is_that_of_the_task(tmp_path):
  task = dice_countdown.DiceCountdown()
  config = experiment.Config(
    task=task, denoiser=dataclasses.replace(TINY.denoiser, steps=1)
  )
  assert experiment.Experiment(config, tmp_path).trainer().eos_ids == (
    task.eos,
  )


def test_sizes_choose_the_task():
  assert isinstance(config_lib.get_config('tiny').task, brackets.Brackets)
  sums = config_lib.get_config('small_addition')
  assert isinstance(sums.task, addition.Addition)
  assert sums.learn.steps > config_lib.get_config('tiny_addition').learn.steps
  with pytest.raises(ValueError, match="size 'tiny_sudoku' does not exist"):
    config_lib.get_config('tiny_sudoku')


@pytest.mark.parametrize(
  'field, value, rule',
  [
    ('tokens_per_call', 0, r'in \[1, 24\]'),
    ('tokens_per_call', 25, r'in \[1, 24\]'),
    ('num_validation', 0, '>= 1'),
    ('validate_every', 0, '>= 1'),
    ('task', 3, 'one of jaxtok.tasks'),
  ],
)
def test_bad_settings_are_refused(field, value, rule):
  with pytest.raises(ValueError, match=f'{field}={value} must be {rule}'):
    experiment.Config(**{field: value})

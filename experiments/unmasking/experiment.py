# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The whole experiment: denoiser, policies, every rule, picture and table.

Each stage leaves a file in the run directory and is skipped if it is there. The
training of the denoiser and of policies also goes on where it was last saved.
"""

import dataclasses
import functools
import re
from typing import Any

from experiments import staged
from experiments.unmasking import denoiser as denoiser_lib
from experiments.unmasking import frontier, questions, selection, training
from jaxtok.config import configclass
from jaxtok.diffusion import denoisers, policy_files, rollout
from jaxtok.evals import pareto
from jaxtok.runs import files
from jaxtok.tasks import (
  addition,
  base,
  brackets,
  countdown,
  deciphering,
  dice_countdown,
  free_choice,
  lookup,
  markov_chain,
  reordering,
  sudoku,
)

TASKS = (
  addition.Addition,
  brackets.Brackets,
  countdown.Countdown,
  deciphering.Deciphering,
  dice_countdown.DiceCountdown,
  free_choice.FreeChoice,
  lookup.Lookup,
  markov_chain.MarkovChain,
  reordering.Reordering,
  sudoku.Sudoku,
)
_LANGUAGE_MODELS = (questions.OfRun, questions.Published)


@configclass
class Config:
  """An experiment."""

  task: Any = dataclasses.field(
    default_factory=dice_countdown.DiceCountdown,
    metadata={
      'choices': tuple(
        f'{t.__module__}.{t.__name__}' for t in (*TASKS, questions.Config)
      )
    },
  )
  # Trained first; None takes the task's exact denoiser. Questions are answered
  # by a language model: questions.OfRun or questions.Published.
  denoiser: denoiser_lib.Source | None = dataclasses.field(
    default_factory=denoiser_lib.Config
  )
  policy: training.Config = dataclasses.field(default_factory=training.Config)
  seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
  num_test: int = 512
  temperatures: tuple[float, ...] = (0.1, 0.5)  # Of policies, when tested.
  scales: tuple[float, ...] = (1.0,)  # Likewise.
  # Adds rules that mask so many tokens again per call, see `remdm.Lowest`.
  remasks: tuple[int, ...] = ()

  def __post_init__(self):
    fine = lambda values: bool(values) and min(values) > 0
    rule = '> 0 and not empty'
    base.require(
      'config',
      num_test=(self.num_test, self.num_test >= 1, '>= 1'),
      temperatures=(self.temperatures, fine(self.temperatures), rule),
      scales=(self.scales, fine(self.scales), rule),
      remasks=(self.remasks, all(n >= 1 for n in self.remasks), '>= 1 each'),
    )
    is_text = isinstance(self.task, questions.Config)
    if is_text != isinstance(self.denoiser, _LANGUAGE_MODELS):
      raise ValueError(
        f'config.task={type(self.task).__name__} and config.denoiser='
        f'{type(self.denoiser).__name__} do not fit: questions.Config needs '
        'questions.OfRun or questions.Published, and these need it.'
      )
    # That of questions is known when the language model is read.
    if not is_text:
      self.policy.model.check_vocabulary(self.task.vocab_size)


@dataclasses.dataclass
class Experiment(staged.Staged):
  """See `staged.Staged`."""

  config: Config

  def __post_init__(self):
    super().__post_init__()
    self.config.policy.check_alphas()
    self.keep_config()

  @functools.cached_property
  def _language_model(self) -> questions.LanguageModel:
    found = self.config.denoiser.load()
    self.log(f'denoiser: {found.name}')
    return found

  @functools.cached_property
  def task(self) -> Any:
    """What is asked."""
    task = self.config.task
    is_text = isinstance(task, questions.Config)
    return task.make(self._language_model) if is_text else task

  def denoiser(self) -> denoisers.OpenRows:
    """The frozen denoiser; it is not called on rows that are done."""
    task = self.task
    return denoisers.OpenRows(self._denoiser(), task.mask_id, task.prompt_len)

  def _denoiser(self) -> Any:
    c = self.config
    if c.denoiser is None:
      return training.exact_denoiser(c.task)
    if isinstance(self.task, questions.Questions):
      return self.task.denoiser(self._language_model.model)
    return training.trained_denoiser(self.workdir, c.task, c.denoiser, self.log)

  def judge(self, found: Any) -> selection.Judge:
    """The test prompts."""
    c = self.config
    rows = base.batch(self.task, training.TEST, 0, c.num_test)
    return selection.Judge(self.task, found, rows, c.policy.learn.block)

  def settings(self, found: Any, seed: int) -> list[tuple[str, Any]]:
    """The policies of a seed at all temperatures and scales.

    Each policy is also left in the folder `policies`, see `policy_files.load`.
    """
    c = self.config
    policies = training.trained(
      self.workdir, self.task, found, c.policy, seed, self.log
    )
    self._keep(policies, seed)
    return [
      (f'{which}, {name}', selector)
      for which, model in policies.every.items()
      for name, selector in selection.policies(
        model, c.policy.learn, c.temperatures, c.scales
      )
    ]

  def _keep(self, policies: training.Policies, seed: int) -> None:
    """Writes policies, each at the best temperature of its validation."""
    learn = self.config.policy.learn
    for name, model in policies.every.items():
      numbers = policies.numbers[name]
      selector = learn.selector(model, numbers['temperature'])
      if learn.block:
        selector = rollout.InBlocks(selector, learn.block)
      file = re.sub(r'[^\w.=]+', '_', f'seed{seed}_{name}.npz')
      path = self.workdir / 'policies' / file
      policy_files.save(path, selector, **numbers)
      self.log(
        f'seed {seed}, {name}: validation {numbers["accuracy"]:.3f} at '
        f'{numbers["calls"]:.2f} calls (temperature '
        f'{numbers["temperature"]:g}), in {path}'
      )

  def rules(self, judge: selection.Judge) -> dict[str, frontier.Points]:
    """The points of every rule."""
    path = self.workdir / 'rules.npz'
    if not path.exists():
      named = {}
      settings = selection.heuristics(judge.task, judge.rows_nt)
      for name, some in settings.items():
        named[name] = judge.sweep(some)
        self.log(f'{name}: {len(some)} settings')
      for num in self.config.remasks:
        named |= selection.remasked(judge, num)
        self.log(f'rules that mask {num} again')
      frontier.save_points(path, named)
    return frontier.load_points(path)

  def learned(self, judge: selection.Judge, seed: int) -> frontier.Points:
    """The points of the policies of a seed."""
    path = self.workdir / f'learned_seed{seed}.npz'
    if not path.exists():
      points = judge.sweep(self.settings(judge.denoiser, seed))
      for point in pareto.front(points):
        self.log(
          f'seed {seed} test: {point.accuracy:.3f} at {point.calls:.2f} calls '
          f'({point.name})'
        )
      frontier.save_points(path, {frontier.LEARNED: points})
    return frontier.load_points(path)[frontier.LEARNED]

  def run(self) -> frontier.Outcome:
    """Everything; writes frontier.md, .png and .svg, and points.csv."""
    c = self.config
    judge = self.judge(self.denoiser())
    outcome = frontier.Outcome(
      self.rules(judge),
      {seed: self.learned(judge, seed) for seed in c.seeds},
      self.task.answer_len,
    )
    files.write_atomic(self.workdir / 'frontier.md', outcome.table())
    row_len = self.task.prompt_len + self.task.answer_len
    files.write_atomic(self.workdir / 'points.csv', outcome.points_csv(row_len))
    title = f'{type(self.task).__name__}, {c.num_test} prompts'
    outcome.picture(title).save(self.workdir / 'frontier')
    self.log(
      f'wrote {self.workdir / "frontier.md"}, frontier.png and points.csv'
    )
    return outcome

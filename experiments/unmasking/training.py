# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains policies against a frozen denoiser, one speed pressure after another.

A policy starts random, or as a clone of a threshold rule (`clone`). Each speed
pressure then starts from the best policy of the one before: "best" is the
highest mean reward on fixed validation prompts, decoded as at test time, at the
best temperature.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.unmasking import denoiser as denoiser_lib
from experiments.unmasking import selection
from jaxtok.config import configclass
from jaxtok.diffusion import cloning, policy, rl, rollout, samplers, selectors
from jaxtok.tasks import base

Log = Callable[[str], None]

# Data sets of a task: streams that share no record.
TEST, VALIDATION, DEMONSTRATIONS, PROMPTS = 1_000_001, 1_000_002, 1_000_003, 7


@configclass
class Config:
  """What a policy is and how it is trained."""

  model: policy.Config = dataclasses.field(
    default_factory=lambda: policy.Config(
      hidden=32, mlp_dim=64, time_dim=32, time_max_period=1e4, bias=-1.0
    )
  )
  clone: cloning.Config | None = dataclasses.field(
    default_factory=cloning.Config
  )
  learn: rl.Config = dataclasses.field(default_factory=rl.Config)
  alphas: tuple[float, ...] = ()  # One stage each; () means learn.alpha alone.
  expert_threshold: float = 0.7  # Of the rule that is cloned or steers.
  num_validation: int = 128
  validate_every: int = 20
  temperatures: tuple[float, ...] = (0.25,)  # Of validation; the best counts.

  def __post_init__(self):
    if not self.temperatures or min(self.temperatures) <= 0:
      raise ValueError(
        f'policy.temperatures={self.temperatures} must be > 0 and not empty.'
      )


@dataclasses.dataclass
class Lesson:
  """All that stages of training share.

  Attributes:
    task: The task.
    denoiser: The frozen denoiser.
    config: Settings.
    seed: Of weights, prompts and rollouts.
    log: Prints a line of progress.
  """

  task: base.Task
  denoiser: Any
  config: Config
  seed: int
  log: Log

  def __post_init__(self):
    c = self.config
    self.expert = selectors.Threshold(c.expert_threshold)
    rows = base.batch(self.task, VALIDATION, 0, c.num_validation)
    self.judge = selection.Judge(self.task, self.denoiser, rows, c.learn.block)

  def start(self) -> policy.UnmaskingPolicy:
    """A new policy: random, or a clone of the expert."""
    c = self.config
    model = c.model.make(nnx.Rngs(self.seed))
    if c.clone is None:
      return model
    begin = time.perf_counter()
    model, nats = cloning.clone(model, self._demonstrations(), c.clone)
    found = self._validate(model, 0, 1.0)
    self.log(
      f'clone: {nats:.4f} nats/position, accuracy {found["accuracy"]:.3f} at '
      f'{found["calls"]:.1f} calls, {time.perf_counter() - begin:.0f} s'
    )
    return model

  def _demonstrations(self) -> rollout.Rollout:
    rows = base.batch(self.task, DEMONSTRATIONS, 0, 256)
    prompts = rows[:, : self.task.prompt_len]
    rows = rows[np.unique(prompts, axis=0, return_index=True)[1]]
    play = jax.jit(
      lambda denoiser, canvas, rngs: rollout.play(
        denoiser,
        canvas,
        self.config.model.make(nnx.Rngs(0)),
        rngs,
        prompt_len=self.task.prompt_len,
        mask_id=self.task.mask_id,
        block=self.config.learn.block,
        expert=self.expert,
        is_expert_b=jnp.ones(len(rows), bool),
      )
    )
    rngs = samplers.row_rngs(jax.random.key(0), len(rows))
    return play(self.denoiser, self.judge.canvas(rows), rngs)

  def stage(
    self, model: policy.UnmaskingPolicy, alpha: float
  ) -> tuple[policy.UnmaskingPolicy, list[dict[str, float]]]:
    """Trains on at one speed pressure.

    Returns:
      The policy of the best validation, and the numbers of each validation.
    """
    c = dataclasses.replace(self.config.learn, alpha=alpha)
    trainer = rl.Trainer(
      c,
      self.denoiser,
      self.task.is_correct,
      self.task.prompt_len,
      self.task.mask_id,
      model,
      self.expert,
      getattr(self.task, 'can_complete', None),
    )
    rng = jax.random.fold_in(jax.random.key(self.seed), int(1000 * alpha))
    history = [self._validate(model, 0, alpha)]
    best = (history[0]['reward'], model)
    begin = time.perf_counter()
    for step in range(c.steps):
      rows = base.batch(
        self.task, PROMPTS + self.seed, step * c.num_prompts, c.num_prompts
      )
      train = trainer.update(rows, jax.random.fold_in(rng, step))
      done = step + 1
      if done % self.config.validate_every and done < c.steps:
        continue
      numbers = self._validate(trainer.current(), done, alpha)
      history.append(numbers)
      if numbers['reward'] > best[0]:
        best = numbers['reward'], trainer.current()
      self.log(
        f'seed {self.seed} alpha {alpha:g} update {done}/{c.steps}: train '
        f'{train["accuracy"]:.2f} at {train["calls"]:.1f}, validation '
        f'{numbers["accuracy"]:.3f} at {numbers["calls"]:.2f} calls '
        f'(temperature {numbers["temperature"]:g}), '
        f'{time.perf_counter() - begin:.0f} s'
      )
    return best[1], history

  def _validate(self, model, step: int, alpha: float) -> dict[str, float]:
    """Numbers at the temperature of the highest reward."""
    found = []
    for temperature in self.config.temperatures:
      selector = policy.Policy(model, jnp.asarray(temperature))
      right, calls = self.judge.judged(selector, self.judge.rows_nt)
      reward = rl.rewards(
        right, calls, self.task.answer_len, alpha, self.config.learn.reward
      )
      numbers = dict(
        step=step,
        reward=float(reward.mean()),
        accuracy=float(right.mean()),
        calls=float(calls.mean()),
        temperature=temperature,
      )
      found.append(numbers)
    return max(found, key=lambda numbers: numbers['reward'])


def trained(
  workdir: pathlib.Path,
  task: base.Task,
  denoiser: Any,
  config: Config,
  seed: int,
  log: Log,
) -> dict[float, policy.UnmaskingPolicy]:
  """The policy of every speed pressure; stages on disk are not trained again.

  Args:
    workdir: Holds one file per stage.
    task: The task.
    denoiser: The frozen denoiser.
    config: Settings.
    seed: Of weights, prompts and rollouts.
    log: Prints a line of progress.
  """
  lesson = Lesson(task, denoiser, config, seed, log)
  blank = config.model.make(nnx.Rngs(0))
  model, models = None, {}
  for alpha in config.alphas or (config.learn.alpha,):
    path = workdir / f'policy_seed{seed}_alpha{alpha:g}.npz'
    made_by = {'task': task, 'policy': config}
    if path.exists():
      model, _ = denoiser_lib.load(path, blank, made_by=made_by)
    else:
      model, history = lesson.stage(model or lesson.start(), alpha)
      best = max(history, key=lambda row: row['reward'])
      denoiser_lib.save(path, model, made_by=made_by, **best)
    models[alpha] = model
  return models


def trained_denoiser(
  workdir: pathlib.Path, task: base.Task, config: denoiser_lib.Config, log: Log
) -> denoiser_lib.Denoiser:
  """The denoiser, from disk if it was trained before."""
  path = workdir / f'denoiser_seed{config.seed}.npz'
  made_by = {'task': task, 'denoiser': config}
  if not path.exists():
    found, nats = denoiser_lib.train(task, config, log)
    denoiser_lib.save(path, found.model, made_by=made_by, nelbo=nats)
  blank = denoiser_lib.make(task, config).model
  model, numbers = denoiser_lib.load(path, blank, made_by=made_by)
  log(f'denoiser: nelbo {numbers["nelbo"]:.3f} nats/token')
  return denoiser_lib.Denoiser(model)


def exact_denoiser(task: base.Task) -> Any:
  """The denoiser that a task defines, as a pytree."""
  if not hasattr(task, 'exact_denoiser'):
    raise ValueError(
      f'{type(task).__name__} has no exact denoiser: train one (set denoiser).'
    )
  return jax.tree_util.Partial(task.exact_denoiser)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains policies against a frozen denoiser, one speed pressure after another.

A policy starts random, or as a clone of a threshold rule (`clone`). Each speed
pressure then starts from the best policy of the one before: "best" is the
highest mean reward on fixed validation prompts, decoded as at test time, at the
best temperature. The policy of a pressure is the best for it of its stage and
of later ones: what is trained to be fast may be as right, and faster. Some
random starts end at policies that no further training makes fast, so several
may be tried at the first pressure (`num_starts`), and more than the best one
trained further (`num_chains`). Where no rollout earns anything there is nothing
to learn from: the stage goes back to its best policy.

What is on disk is not trained again. A stage is saved at each validation, see
`progress`, and a call of the same config goes on from the last one, to the same
policies as if it had not been stopped. The denoiser is saved, too, each
500 updates.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.unmasking import denoiser as denoiser_lib
from experiments.unmasking import progress as progress_lib
from experiments.unmasking import selection
from jaxtok.config import configclass
from jaxtok.diffusion import (
  cloning,
  policy,
  returns,
  rl,
  rollout,
  samplers,
  selectors,
)
from jaxtok.tasks import base

Log = Callable[[str], None]
Found = progress_lib.Found

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
  num_starts: int = 1  # Policies of the first stage; the best go on.
  num_chains: int = 1  # So many of them, each through all later stages.
  start_steps: int = 0  # Updates of the first stage; 0: learn.steps.
  expert_threshold: float = 0.7  # Of the rule that is cloned or steers.
  # The rule looks no further than the first block of so many tokens that is not
  # done, whatever learn.block says of the policy; 0: everywhere.
  expert_block: int = 0
  num_validation: int = 128
  validate_every: int = 20
  temperatures: tuple[float, ...] = (0.25,)  # Of validation; the best counts.

  def __post_init__(self):
    base.require(
      'policy',
      num_validation=(self.num_validation, self.num_validation >= 1, '>= 1'),
      validate_every=(self.validate_every, self.validate_every >= 1, '>= 1'),
      expert_block=(self.expert_block, self.expert_block >= 0, '>= 0'),
    )
    if not self.temperatures or min(self.temperatures) <= 0:
      raise ValueError(
        f'policy.temperatures={self.temperatures} must be > 0 and not empty.'
      )
    self.check_alphas()
    if self.num_starts < 1 or self.start_steps < 0:
      raise ValueError(
        f'policy.num_starts={self.num_starts} must be >= 1 and '
        f'policy.start_steps={self.start_steps} >= 0.'
      )
    if not 1 <= self.num_chains <= self.num_starts:
      raise ValueError(
        f'policy.num_chains={self.num_chains} must be in [1, num_starts='
        f'{self.num_starts}]: a chain goes on from a start.'
      )
    if self.num_starts > 1 and self.clone:
      raise ValueError(
        f'policy.num_starts={self.num_starts} policies would start as the same '
        'clone. Use num_starts=1, or clone=None.'
      )
    is_bernoulli = self.learn.likelihood is rl.Likelihood.BERNOULLI
    if self.clone and self.clone.smoothing and not is_bernoulli:
      raise ValueError(
        f'policy.clone.smoothing={self.clone.smoothing} must be 0 with '
        f'likelihood={self.learn.likelihood.value!r}, whose actions have no '
        "opposite as the sets of 'bernoulli' have."
      )
    is_one = self.learn.likelihood is rl.Likelihood.ONE_TOKEN
    if is_one and any(self.alphas):
      raise ValueError(
        f"policy.alphas={self.alphas} must be () with likelihood='one_token': "
        'each rollout takes as many calls as the answer has tokens.'
      )

  def check_alphas(self) -> None:
    """Refuses pressures whose stages would have the same files."""
    shown = [f'{alpha:g}' for alpha in self.alphas]
    if len(set(shown)) < len(shown):
      raise ValueError(
        f'policy.alphas={self.alphas} must differ in their first six digits: '
        'a stage has the files of its speed pressure. Drop what is repeated, '
        'or raise policy.learn.steps to train longer at one.'
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

  task: base.Verifiable
  denoiser: Any
  config: Config
  seed: int
  log: Log

  def __post_init__(self):
    c = self.config
    c.model.check_vocabulary(self.task.vocab_size)
    self.expert = selectors.Threshold(c.expert_threshold)
    if c.expert_block:
      self.expert = rollout.InBlocks(self.expert, c.expert_block)
    self.actions = c.learn.likelihood.make()
    rows = base.batch(self.task, VALIDATION, 0, c.num_validation)
    self.judge = selection.Judge(self.task, self.denoiser, rows, c.learn.block)

  def start(self, number: int = 0) -> policy.UnmaskingPolicy:
    """A new policy: random (another for each number), or a clone."""
    c = self.config
    model = c.model.make(nnx.Rngs(self.seed + 1_000_000 * number))
    if c.clone is None:
      return model
    begin = time.perf_counter()
    shown = rollout.Shown(
      self.expert, self.actions, c.learn.near.num_candidates
    )
    expert = self.judge.judged(shown, self.judge.rows_nt)[0].mean()

    shares = []

    def share(model) -> float:
      found = self._validate(model).values()
      accuracy = max(right.mean() for right, _ in found)
      shares.append(accuracy / expert if expert else 1.0)
      return shares[-1]

    model, nats, steps = cloning.clone(
      model, self._demonstrations(), c.clone, self.actions, share
    )
    found = self._best(self._validate(model), 0, 1.0)
    self.log(
      f'clone: {steps} updates, {nats:.4f} nats/position, accuracy '
      f'{found["accuracy"]:.3f} at {found["calls"]:.1f} calls (of what it '
      f'copies: {expert:.3f}), {time.perf_counter() - begin:.0f} s'
    )
    if shares and shares[-1] < c.clone.until:
      self.log(
        f'warning: after all {steps} updates the clone is right less often '
        f'than clone.until={c.clone.until:g} times what it copies. Try more '
        'clone.steps or another clone.lr.'
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
        actions=self.actions,
        num_candidates=self.config.learn.near.num_candidates,
        expert=self.expert,
        is_expert_b=jnp.ones(len(rngs), bool),
      )
    )
    rngs = samplers.row_rngs(jax.random.key(0), len(rows))
    return rollout.play_chunks(
      lambda i: play(self.denoiser, self.judge.canvas(rows[i]), rngs[i]),
      len(rows),
      self.judge.rows_per_call,
    )

  def stage(
    self,
    model: policy.UnmaskingPolicy | None,
    alpha: float,
    *,
    steps: int = 0,
    number: int = 0,
    path: pathlib.Path | None = None,
  ) -> tuple[dict[float, Found], list[dict[str, float]]]:
    """Trains on at one speed pressure.

    Args:
      model: Where to start; None makes a new policy of this `number`.
      alpha: The pressure.
      steps: Updates; 0 takes those of the config.
      number: Of the start or the chain, if there are several.
      path: Of a file that keeps how far the stage has come, at each validation;
        what it holds is gone on from. None keeps nothing.

    Returns:
      By pressure (this one and those of the config): the policy of the best
      validation and its numbers. And the numbers of each at this pressure.

    Raises:
      ValueError: If another config wrote the file.
    """
    steps = steps or self.config.learn.steps
    is_begun = path is not None and path.exists()
    if model is None:
      model = self.blank() if is_begun else self.start(number)
    trainer = self._trainer(model, alpha, steps)
    pressures = {alpha, *self.config.alphas}
    name = f'{f" start {number}" if number else ""} alpha {alpha:g} '
    made_by = self.made_by | {
      'stage': dict(seed=self.seed, alpha=alpha, steps=steps, number=number)
    }
    keep = lambda: path and found.save(path, trainer, made_by)
    if is_begun:
      found = progress_lib.Progress.load(path, trainer, made_by, pressures)
      self.log(
        f'seed {self.seed}{name}goes on after update {trainer.step}/{steps}, '
        f'from {path}'
      )
    else:
      found = self._begun(model, alpha, pressures)
      keep()
    begin = time.perf_counter()
    for step in range(trainer.step, steps):
      train = self._update(trainer, step, alpha, number)
      done = step + 1
      if done % self.config.validate_every and done < steps:
        continue
      numbers = self._look(trainer, found, done, alpha)
      if not train['reward'] and found.bests[alpha][1]['reward'] > 0:
        trainer.go_back(found.bests[alpha][0])
        self.log(f'seed {self.seed}: no reward, back to the best policy')
      keep()
      self.log(
        f'seed {self.seed}{name}update {done}/{steps}: train '
        f'{train["accuracy"]:.2f} at {train["calls"]:.1f}, validation '
        f'{numbers["accuracy"]:.3f} at {numbers["calls"]:.2f} calls '
        f'(temperature {numbers["temperature"]:g}), '
        f'{time.perf_counter() - begin:.0f} s'
      )
    return found.bests, found.history

  @property
  def made_by(self) -> dict[str, Any]:
    """What decides the policies, for the files."""
    return {
      'task': getattr(self.task, 'config', self.task),
      'policy': self.config,
    }

  def blank(self) -> policy.UnmaskingPolicy:
    """A policy whose parameters are read from a file."""
    return self.config.model.make(nnx.Rngs(0))

  def _trainer(self, model, alpha: float, steps: int) -> rl.Trainer:
    return rl.Trainer(
      dataclasses.replace(self.config.learn, alpha=alpha, steps=steps),
      self.denoiser,
      self.task.is_correct,
      self.task.prompt_len,
      self.task.mask_id,
      model,
      self.expert,
      getattr(self.task, 'can_complete', None),
      self.judge.rows_per_call,
    )

  def _update(self, trainer, step: int, alpha: float, number: int):
    """One update, whose prompts and random numbers follow from its step."""
    num = trainer.config.num_prompts
    rows = base.batch(self.task, PROMPTS + self.seed, step * num, num)
    stream = int(1000 * alpha) + 1_000_000 * number
    rng = jax.random.fold_in(jax.random.key(self.seed), stream)
    return trainer.update(rows, jax.random.fold_in(rng, step))

  def _begun(self, model, alpha: float, pressures) -> progress_lib.Progress:
    """Before the first update."""
    validated = self._validate(model)
    rows = {a: self._best(validated, 0, a) for a in pressures}
    bests = {a: (model, numbers) for a, numbers in rows.items()}
    return progress_lib.Progress(bests, [rows[alpha]])

  def _look(self, trainer, found, done: int, alpha: float) -> dict[str, float]:
    """Adds a validation; returns its numbers at the stage's pressure."""
    validated = self._validate(trainer.current())
    for a, (_, best) in found.bests.items():
      numbers = self._best(validated, done, a)
      if numbers['reward'] > best['reward']:
        found.bests[a] = trainer.current(), numbers
    found.history.append(self._best(validated, done, alpha))
    return found.history[-1]

  def _validate(self, model) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Temperature to whether rows came out right and their calls."""
    return {
      temperature: self.judge.judged(
        self.config.learn.selector(model, jnp.asarray(temperature)),
        self.judge.rows_nt,
      )
      for temperature in self.config.temperatures
    }

  def _best(self, validated, step: int, alpha: float) -> dict[str, float]:
    """Numbers at the temperature of the highest reward."""
    found = []
    for temperature, (right, calls) in validated.items():
      reward = returns.rewards(
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


@dataclasses.dataclass(frozen=True)
class Policies:
  """The policies of a seed.

  Attributes:
    best: Speed pressure to the policy of the highest reward on validation
      prompts, of its stage and of later ones.
    every: All that were best for some pressure at the end of a stage, no two
      alike, by the stage's pressure, that one and the chain. A fast policy may
      have the highest reward even where a slower one is right more often.
    numbers: Of each of `every`: how it did on validation prompts, and at which
      temperature.
  """

  best: dict[float, policy.UnmaskingPolicy]
  every: dict[str, policy.UnmaskingPolicy]
  numbers: dict[str, dict[str, float]]


def trained(
  workdir: pathlib.Path,
  task: base.Verifiable,
  denoiser: Any,
  config: Config,
  seed: int,
  log: Log,
) -> Policies:
  """Trains the policies; stages on disk are not trained again.

  A stage that was stopped goes on from its last validation.

  Args:
    workdir: Holds the files of each stage: the policies, or as long as it is
      not done, a `..._state.npz`.
    task: The task.
    denoiser: The frozen denoiser.
    config: Settings.
    seed: Of weights, prompts and rollouts.
    log: Prints a line of progress.
  """
  config.check_alphas()  # They may be set on a config that was made before.
  lesson = Lesson(task, denoiser, config, seed, log)
  blank, made_by = lesson.blank(), lesson.made_by

  def stored(name: str, train, count: int) -> dict[float, Found]:
    """The best policies of a stage, which is trained if they are not there."""
    file = lambda kind: workdir / f'policy_seed{seed}_{name}_{kind}.npz'
    paths = {a: file(f'best{a:g}') for a in pressures[:count]}
    state = file('state')
    if not all(path.exists() for path in paths.values()):
      bests, _ = train(path=state)
      for a, path in paths.items():
        model, numbers = bests[a]
        denoiser_lib.save(path, model, made_by=made_by, **numbers)
    state.unlink(missing_ok=True)
    load = lambda path: denoiser_lib.load(path, blank, made_by=made_by)
    return {a: load(path) for a, path in paths.items()}

  first, *others = config.alphas or (config.learn.alpha,)
  pressures = (first, *others)
  starts = []
  for i in range(config.num_starts):
    train = functools.partial(
      lesson.stage, None, first, steps=config.start_steps, number=i
    )
    starts.append(stored(f'alpha{first:g}_start{i}', train, 1)[first])
  reward = lambda found: found[1]['reward']
  chains = sorted(starts, key=reward, reverse=True)[: config.num_chains]
  if config.num_starts > 1:
    best = chains[0][1]
    log(
      f'seed {seed}: the best of {config.num_starts} starts is right in '
      f'{best["accuracy"]:.3f} at {best["calls"]:.2f} calls'
    )
  found = {first: starts}
  every: dict[str, Found] = {}
  for chain, start in enumerate(chains):
    suffix = f', chain {chain}' if chain else ''
    every[f'alpha={first:g}{suffix}'] = start
    model = start[0]
    for i, alpha in enumerate(others):
      train = functools.partial(lesson.stage, model, alpha, number=chain)
      file = f'alpha{alpha:g}' + (f'_chain{chain}' if chain else '')
      stage = stored(file, train, i + 2)
      for a, name in _new(stage, alpha).items():
        every[name + suffix] = stage[a]
      for a, of_stage in stage.items():
        found.setdefault(a, []).append(of_stage)
      model = stage[alpha][0]
  best = {a: max(found[a], key=reward)[0] for a in pressures}
  of_each = lambda i: {name: found[i] for name, found in every.items()}
  return Policies(best, of_each(0), of_each(1))


def _new(stage: dict[float, Found], alpha: float) -> dict[float, str]:
  """Pressures whose best policies are new in a stage, and their names."""
  names, seen = {}, set()
  for a, (_, numbers) in stage.items():
    # At step 0 it is the one that the stage began with.
    if numbers['step'] and numbers['step'] not in seen:
      seen.add(numbers['step'])
      names[a] = f'alpha={alpha:g} for {a:g}'
  return names


def trained_denoiser(
  workdir: pathlib.Path, task: base.Task, config: denoiser_lib.Config, log: Log
) -> denoiser_lib.Denoiser:
  """The denoiser, from disk if it was trained before, also in part."""
  path = workdir / f'denoiser_seed{config.seed}.npz'
  state = path.with_name(f'{path.stem}_state.npz')
  made_by = denoiser_lib.made_by(task, config)
  if not path.exists():
    found, nats = denoiser_lib.train(task, config, log, state)
    denoiser_lib.save(path, found.model, made_by=made_by, nelbo=nats)
  state.unlink(missing_ok=True)
  blank = denoiser_lib.make(task, config).model
  model, numbers = denoiser_lib.load(path, blank, made_by=made_by)
  log(f'denoiser: nelbo {numbers["nelbo"]:.3f} nats/token')
  return denoiser_lib.Denoiser(model)


def exact_denoiser(task: base.Verifiable) -> Any:
  """The denoiser that a task defines, as a pytree."""
  if not hasattr(task, 'exact_denoiser'):
    raise ValueError(
      f'{type(task).__name__} has no exact denoiser: train one (set denoiser).'
    )
  return jax.tree_util.Partial(task.exact_denoiser)

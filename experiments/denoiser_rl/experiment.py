# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The denoiser, its training by rewards, and validations on the way.

The supervised denoiser leaves a file, also on the way, and so does the training
by rewards at each validation: a call with the same config and run directory
goes on there.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import staged
from experiments.unmasking import denoiser as denoiser_lib
from experiments.unmasking import training
from jaxtok import config as config_lib
from jaxtok.config import configclass
from jaxtok.diffusion import denoisers, diffu_grpo, samplers, selectors
from jaxtok.runs import files
from jaxtok.tasks import base, brackets

_decode = functools.partial(
  jax.jit,
  static_argnames=(
    *('prompt_len', 'mask_id', 'block', 'temperature', 'max_steps'),
  ),
)(samplers.decode)


@configclass
class Config:
  """An experiment."""

  task: Any = dataclasses.field(default_factory=brackets.Brackets)
  denoiser: denoiser_lib.Config = dataclasses.field(
    default_factory=lambda: denoiser_lib.Config(steps=1000)
  )
  learn: diffu_grpo.Config = dataclasses.field(
    default_factory=diffu_grpo.Config
  )
  tokens_per_call: int = 2  # The surest ones are revealed.
  seed: int = 0  # Of prompts, samples and masks; the denoiser has its own.
  num_validation: int = 256
  validate_every: int = 10  # Batches.

  def __post_init__(self):
    if not isinstance(self.task, base.Task):
      raise ValueError(f'task={self.task!r} must be one of jaxtok.tasks.')
    if not 1 <= self.tokens_per_call <= self.task.answer_len:
      raise ValueError(
        f'tokens_per_call={self.tokens_per_call} must be in [1, '
        f'{self.task.answer_len}], the length of the answer.'
      )
    base.require(
      'config',
      num_validation=(self.num_validation, self.num_validation >= 1, '>= 1'),
      validate_every=(self.validate_every, self.validate_every >= 1, '>= 1'),
    )


@dataclasses.dataclass
class Experiment(staged.Staged):
  """See `staged.Staged`."""

  config: Config

  def trainer(self) -> diffu_grpo.Trainer:
    """At the start: the denoiser of supervised training."""
    c, task = self.config, self.config.task
    found = training.trained_denoiser(self.workdir, task, c.denoiser, self.log)
    eos = getattr(task, 'eos', None)
    return diffu_grpo.Trainer(
      c.learn,
      denoisers.OfModel.make(found.model),
      task.is_correct,
      prompt_len=task.prompt_len,
      mask_id=task.mask_id,
      selector=selectors.TopK(c.tokens_per_call),
      eos_ids=() if eos is None else (eos,),
    )

  def validate(self, trainer: diffu_grpo.Trainer) -> dict[str, float]:
    """Shares of fixed prompts that are answered right."""
    c, task = self.config, self.config.task
    rows = base.batch(task, training.VALIDATION, 0, c.num_validation)
    masked_bt = jnp.broadcast_to(base.answer_positions(task), rows.shape)
    canvas = samplers.start(jnp.asarray(rows), masked_bt, task.mask_id)
    rngs_b = samplers.row_rngs(jax.random.key(0), len(rows))
    numbers = {'step': trainer.step}
    for name, temperature in (('sampled', c.learn.temperature), ('greedy', 0)):
      out = _decode(
        trainer.denoiser,
        canvas,
        trainer.selector,
        rngs_b,
        prompt_len=task.prompt_len,
        mask_id=task.mask_id,
        block=c.learn.block,
        temperature=float(temperature),
        max_steps=c.learn.max_calls,
      )
      is_right_b = task.is_correct(np.asarray(out.tokens_bt))
      is_right_b &= ~np.asarray(out.is_masked_bt).any(-1)
      numbers[name] = float(is_right_b.mean())
    return numbers

  def run(self) -> list[dict[str, float]]:
    """Trains what is missing; returns the validations, also of before."""
    c, trainer = self.config, self.trainer()
    rng = jax.random.key(c.seed)
    history = self._resume(trainer)
    if not history:
      history.append(self.validate(trainer))
      self._save(trainer, history)
    self.log(f'batch {trainer.step}/{c.learn.steps}: {_shown(history[-1])}')
    seen = []
    for step in range(trainer.step, c.learn.steps):
      num = c.learn.num_prompts
      rows = base.batch(c.task, training.PROMPTS + c.seed, step * num, num)
      seen.append(trainer.update(rows, jax.random.fold_in(rng, step)))
      if (step + 1) % c.validate_every and step + 1 < c.learn.steps:
        continue
      means = {k: float(np.mean([x[k] for x in seen])) for k in seen[0]}
      history.append(self.validate(trainer) | means)
      self._save(trainer, history)
      self.log(f'batch {step + 1}/{c.learn.steps}: {_shown(history[-1])}')
      seen = []
    return history

  def _made_by(self) -> dict[str, Any]:
    """What decides the state: all but for how long."""
    endless = dataclasses.replace(self.config.learn, steps=1)
    return {'config': dataclasses.replace(self.config, learn=endless)}

  def _save(self, trainer, history) -> None:
    files.write_json(
      self.workdir / 'config.json', config_lib.to_dict(self.config)
    )
    files.write_json(self.workdir / 'validation.json', history)
    denoiser_lib.save_tree(
      self.workdir / 'state.npz',
      trainer.state,
      made_by=self._made_by(),
      step=trainer.step,
    )

  def _resume(self, trainer) -> list[dict[str, float]]:
    """Restores the trainer; returns the validations so far."""
    path = self.workdir / 'state.npz'
    if not path.exists():
      return []
    state, numbers = denoiser_lib.load_tree(
      path, trainer.state, made_by=self._made_by()
    )
    trainer.restore(state, int(numbers['step']))
    history = files.read_json(self.workdir / 'validation.json')
    # The last one is of a state that was not written, if a run was killed
    # between the two.
    return [x for x in history if x['step'] <= trainer.step]


def _shown(numbers: dict[str, float]) -> str:
  """One line; the means over the batches since the last one come last."""
  text = f'right {numbers["sampled"]:.3f}, greedy {numbers["greedy"]:.3f}'
  if 'reward' in numbers:
    text += (
      f'; reward {numbers["reward"]:.3f} at {numbers["calls"]:.1f} calls, kl '
      f'{numbers["kl"]:.4f}, clipped {numbers["clipped"]:.3f}, norm '
      f'{numbers["norm"]:.3f}'
    )
  return text

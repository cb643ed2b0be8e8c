# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains an encoder and a new last layer on labelled sequences.

The parameters of the epoch with the least loss on the validation split are the
ones that are tested, as in the code of arXiv:2306.15006.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxtok.config import configclass
from jaxtok.data import labelled
from jaxtok.data.source import SPLITS
from jaxtok.evals import classification as scores
from jaxtok.models import classifier
from jaxtok.objectives import classification
from jaxtok.train import optim, sharding, state
from jaxtok.train import step as step_lib

_EVAL_BATCH = 128
METRICS = ('mcc', 'macro_f1', 'accuracy')


@configclass
class Task:
  """A data set and how long it is trained on."""

  data: Any  # E.g. `data.gue.Gue`: `read(split)` and `num_classes`.
  epochs: int = 4
  max_steps: int = 0  # Ends training early; 0 does not.
  warmup_steps: int = 50
  max_tokens: int = 0  # Longer sequences are cut; 0: as long as the longest.
  metric: str = 'mcc'  # What is reported first.

  def __post_init__(self):
    if self.epochs < 1 or self.max_steps < 0 or self.max_tokens < 0:
      raise ValueError(
        f'epochs={self.epochs} must be >= 1, max_steps={self.max_steps} and '
        f'max_tokens={self.max_tokens} >= 0.'
      )
    if self.metric not in METRICS:
      raise ValueError(
        f'metric={self.metric!r} must be one of {", ".join(METRICS)}.'
      )


@configclass
class Config:
  """What is the same for all tasks; the defaults are the paper's."""

  lr: float = 3e-5
  batch_size: int = 32
  weight_decay: float = 0.01
  dropout: float = 0.1  # Before the last layer.
  pool: str = 'first'  # See `models.classifier`.

  def optimizer(self, warmup_steps: int) -> optim.Config:
    """Linear warm-up, then linear decay to 0."""
    return optim.Config(
      lr=self.lr,
      schedule=optim.Schedule.LINEAR,
      warmup_steps=warmup_steps,
      final_ratio=0.0,
      b2=0.999,
      weight_decay=self.weight_decay,
    )


@dataclasses.dataclass(frozen=True)
class Encoder:
  """What is fine-tuned.

  Attributes:
    config: Of the model, with its vocabulary.
    tokenizer: What it was trained with.
    params: Its parameters as a pure dict; None means random ones.
  """

  config: Any
  tokenizer: Any
  params: Any


def rows(task: Task, tokenizer: Any) -> dict[str, labelled.Rows]:
  """The splits of a task in rows of one length."""
  data = {split: task.data.read(split) for split in SPLITS}
  width = task.max_tokens
  if not width:
    lengths = [
      labelled.tokenize(part, tokenizer).tokens_nt.shape[1]
      for part in data.values()
    ]
    width = max(lengths)
  return {
    split: labelled.tokenize(part, tokenizer, width)
    for split, part in data.items()
  }


def finetune(
  encoder: Encoder,
  task: Task,
  config: Config,
  *,
  seed: int,
  log: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
  """Trains and tests.

  Args:
    encoder: What is trained on.
    task: The data.
    config: Settings.
    seed: Of the last layer and of the order.
    log: Told of each epoch.

  Returns:
    `mcc`, `macro_f1` and `accuracy` of the test split, `validation_nats` of the
    parameters that were tested, `steps`, `tokens` per row, and `cut`, the share
    of training sequences that were too long.

  Raises:
    ValueError: If there are fewer sequences than a batch has rows.
  """
  data = rows(task, encoder.tokenizer)
  per_epoch = len(data['train']) // config.batch_size
  if per_epoch < 1:
    raise ValueError(
      f'{len(data["train"])} training sequences are fewer than batch_size='
      f'{config.batch_size}. Lower it.'
    )
  steps = per_epoch * task.epochs
  steps = min(steps, task.max_steps or steps)
  model = classifier.Config(
    encoder=encoder.config,
    num_classes=task.data.num_classes,
    pool=config.pool,
    dropout=config.dropout,
  )
  program = _program(model, config, task.warmup_steps, steps, seed)
  with jax.set_mesh(program.layout.mesh):
    best, nats = _train(
      program, encoder, data, config, seed, steps, per_epoch, log
    )
    predicted = program.logprobs(best, data['test']).argmax(axis=1)
  table = scores.confusion(
    data['test'].labels_n, predicted, task.data.num_classes
  )
  return scores.scores(table) | {
    'validation_nats': nats,
    'steps': steps,
    'tokens': data['train'].tokens_nt.shape[1],
    'cut': data['train'].num_cut / len(data['train']),
  }


class _Program:
  """What is compiled: the training step, and the model without dropout."""

  def __init__(self, layout: state.Layout, seed: int):
    self.layout = layout
    step = step_lib.make_step(layout, classification.Config().make(), seed=seed)
    self.step = jax.jit(
      step, donate_argnums=0, out_shardings=(layout.shardings, None)
    )

    @jax.jit
    def run(params, rest, batch):
      model = nnx.merge(layout.graphdef, params, rest)
      logits_bc = model(batch['tokens_bt'], segment_ids=batch['segment_ids_bt'])
      return jax.nn.log_softmax(logits_bc)

    self._run = run

  def logprobs(self, now: state.State, data: labelled.Rows) -> np.ndarray:
    """Of each class for each row, float64."""
    found = [
      np.asarray(self._run(now.params, now.rest, batch))
      for batch in data.in_order(_EVAL_BATCH)
    ]
    return np.concatenate(found)[: len(data)].astype(np.float64)

  def nats(self, now: state.State, data: labelled.Rows) -> float:
    """Mean loss."""
    index_n1 = data.labels_n[:, None]
    picked_n1 = np.take_along_axis(self.logprobs(now, data), index_n1, axis=1)
    return -float(picked_n1.mean())


@functools.lru_cache(maxsize=8)  # Starts that differ in weights share it.
def _program(
  model: classifier.Config,
  config: Config,
  warmup_steps: int,
  steps: int,
  seed: int,
) -> _Program:
  layout = state.plan(
    model.make,
    optimizer=config.optimizer(warmup_steps),
    steps=steps,
    mesh=sharding.Config(data=1).make(),
  )
  return _Program(layout, seed)


def _train(program, encoder, data, config, seed, steps, per_epoch, log):
  """The state of the best epoch, and its validation loss."""
  layout = program.layout
  now = layout.init(seed)
  if encoder.params is not None:
    params = now.params | {'encoder': jax.tree.map(np.asarray, encoder.params)}
    # Where they belong: arrays that lie elsewhere are compiled for again.
    params = jax.device_put(params, layout.shardings.params)
    now = dataclasses.replace(now, params=params)
  batches = data['train'].shuffled(config.batch_size, seed)
  best, least = now, np.inf
  for number in range(1, steps + 1):
    now, metrics = program.step(now, next(batches))
    if number % per_epoch and number < steps:
      continue
    nats = program.nats(now, data['validation'])
    if int(metrics.bad) >= 0 or not np.isfinite(nats):
      raise ValueError(
        f'the loss is not finite at step {number}. Lower finetune.lr='
        f'{config.lr}.'
      )
    log(f'step {number}/{steps}: validation {nats:.4f} nats')
    if nats < least:
      best, least = jax.tree.map(np.asarray, now), nats
  return jax.device_put(best, layout.shardings), float(least)

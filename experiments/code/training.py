# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a classifier of programs and measures it on others.

A program is short and a data set small, so all of it lies on the device and the
loop is a scan.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.code import tasks
from jaxtok.config import configclass
from jaxtok.models import base, code_merge
from jaxtok.tokenizers import hf
from jaxtok.train import optim as optim_lib


@configclass
class Config:
  """A run."""

  model: code_merge.Config
  task: tasks.Config = dataclasses.field(default_factory=tasks.Config)
  vocab_size: int = 1000  # Of the BPE tokens, trained on the programs.
  length: int = 128  # Tokens of a program, [CLS] included; the rest is cut.
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(lr=1e-3, warmup_steps=50)
  )
  steps: int = 400
  batch_size: int = 16
  seed: int = 0


def data(config: Config) -> tuple[Any, tasks.Rows, tasks.Rows]:
  """The tokenizer, and rows for training and for the test."""
  programs, labels, num = config.task.load(config.seed)
  tokenizer = hf.Train(vocab_size=config.vocab_size).make(
    lambda: programs[:num]
  )
  every = tasks.rows(tokenizer, programs, labels, config.length)
  index = np.arange(len(programs))
  return tokenizer, every.take(index[:num]), every.take(index[num:])


def run(config: Config, parts: Any = None) -> dict[str, float]:
  """Trains and tests one model.

  Args:
    config: The run; `model.encoder.vocab_size` and `model.num_classes` are set
      by the data.
    parts: The result of `data`, if runs share it.

  Returns:
    accuracy: Share of test programs whose class is found.
    flops: Matmul FLOPs of a forward pass over a program of mean length.
    flops_run: What is computed: over `length` tokens, padding included, with
      room for the units of the fullest row.
    units_per_token: Of the training programs.
  """
  tokenizer, train, test = parts or data(config)
  model_config = dataclasses.replace(
    config.model,
    num_classes=config.task.num_classes,
    encoder=dataclasses.replace(
      config.model.encoder,
      vocab_size=tokenizer.vocab_size + 1,
      max_len=config.length,
    ),
  )
  most = max(int(part.units_bt.max()) + 1 for part in (train, test))
  model_config.capacity = dataclasses.replace(
    model_config.capacity, policy='ratio', ratio=most / config.length
  )
  model = model_config.make(nnx.Rngs(config.seed))
  _fit(config, model, train)
  mean = base.Shape(b=1, t=round((train.units_bt >= 0).sum(1).mean()))
  units = round((train.units_bt.max(1) + 1).mean())
  full = base.Shape(b=1, t=config.length)
  return {
    'accuracy': _accuracy(model, test),
    'flops': sum(model.flops(mean, units=units).values()),
    'flops_run': sum(model.flops(full).values()),
    'units_per_token': train.units_per_token,
  }


def _fit(config: Config, model: code_merge.CodeMerge, rows: tasks.Rows):
  """Trains in place."""
  optimizer = config.optim.make(config.steps)
  graph, params = nnx.split(model)
  everything = jax.tree.map(
    jnp.asarray, (rows.tokens_bt, rows.units_bt, rows.labels_b)
  )

  def loss(params, index, rng):
    tokens_bt, units_bt, labels_b = (x[index] for x in everything)
    model = nnx.merge(graph, params)
    logits = model.logits(model(tokens_bt, units_bt, rng=rng).hidden_btd)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, labels_b
    ).mean()

  def step(carry, rng):
    params, state = carry
    first, second = jax.random.split(rng)
    index = jax.random.choice(
      first, len(rows.labels_b), (config.batch_size,), replace=False
    )
    grads = jax.grad(loss)(params, index, second)
    updates, state = optimizer.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  @jax.jit
  def scan(params, rngs):
    return jax.lax.scan(step, (params, optimizer.init(params)), rngs)[0][0]

  rngs = jax.random.split(jax.random.key(config.seed), config.steps)
  nnx.update(model, scan(params, rngs))


def _accuracy(model: code_merge.CodeMerge, rows: tasks.Rows) -> float:
  call = nnx.jit(
    lambda model, tokens, units: model.logits(
      model(tokens, units).hidden_btd
    ).argmax(-1)
  )
  right, size = 0, 64
  for start in range(0, len(rows.labels_b), size):
    part = rows.take(np.arange(start, start + size) % len(rows.labels_b))
    best = np.asarray(call(model, part.tokens_bt, part.units_bt))
    num = min(size, len(rows.labels_b) - start)
    right += int((best == part.labels_b)[:num].sum())
  return right / len(rows.labels_b)

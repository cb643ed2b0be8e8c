# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a classifier of programs and measures it on others."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import optax
from flax import nnx

from experiments.code import fit, pretrained, tasks
from jaxtok.config import configclass
from jaxtok.evals import classification
from jaxtok.models import base, code_merge
from jaxtok.nn import ragged
from jaxtok.runs import files
from jaxtok.tokenizers import hf
from jaxtok.train import optim as optim_lib


@configclass
class Config(fit.Run):
  """A run."""

  model: code_merge.Config
  task: tasks.Config = dataclasses.field(default_factory=tasks.Config)
  # A published encoder (see `pretrained`) instead of model.encoder, of which
  # only the dropout is used then, and its tokens instead of new ones.
  init: str = ''
  prefix: tuple[str, ...] = ()  # With init: see `pretrained.ends`.
  vocab_size: int = 1000  # Of the BPE tokens, trained on the programs.
  length: int = 128  # Tokens of a program, special ones included; else cut.
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(lr=1e-3, warmup_steps=50)
  )
  steps: int = 400
  batch_size: int = 16
  seed: int = 0


def data(config: Config) -> tuple[Any, tasks.Rows, tasks.Rows]:
  """The tokenizer, and rows for training and for the test."""
  programs, labels, num = config.task.load(config.seed)
  around: dict[str, Any] = {}
  if config.init:
    tokenizer = pretrained.tokenizer(config.init)
    ends = pretrained.ends(config.init, tokenizer, config.prefix)
    around = dict(prefix=ends.prefix, suffix=ends.suffix)
  else:
    tokenizer = hf.Train(vocab_size=config.vocab_size).make(
      lambda: programs[:num]
    )
  around['language'] = config.task.rules
  every = tasks.rows(tokenizer, programs, labels, config.length, **around)
  index = np.arange(len(programs))
  return tokenizer, every.take(index[:num]), every.take(index[num:])


def run(
  config: Config, parts: Any = None, path: pathlib.Path | None = None
) -> dict[str, float]:
  """Trains and tests one model.

  Args:
    config: The run; `model.encoder.vocab_size` and `model.num_classes` are set
      by the data.
    parts: The result of `data`, if runs share it.
    path: Where to write class and prediction of each test program; or None.

  Returns:
    accuracy: Share of test programs whose class is found.
    macro_f1: Mean over classes of F1, the harmonic mean of precision and
      recall.
    flops: Matmul FLOPs of a forward pass over a program of mean length.
    flops_run: What is computed: over `length` tokens, padding included, with
      room for the units of the fullest row.
    units_per_token: Of the training programs.
  """
  tokenizer, train, test = parts or data(config)
  most = max(int(part.units_bt.max()) + 1 for part in (train, test))
  model = _make(config, tokenizer, most)
  fit.fit(
    model,
    _loss,
    (train.tokens_bt, train.units_bt, train.labels_b),
    optim=config.optim,
    steps=config.steps,
    batch_size=config.batch_size,
    seed=config.seed,
    name=f'{config.model.how.value}: ',
  )
  mean = base.Shape(b=1, t=round((train.units_bt >= 0).sum(1).mean()))
  units = round((train.units_bt.max(1) + 1).mean())
  full = base.Shape(b=1, t=config.length)
  found = _predict(model, test)
  if path is not None:
    pairs = zip(test.labels_b, found, strict=True)
    lines = (f'{label}\t{guess}\n' for label, guess in pairs)
    files.write_atomic(path, 'class\tpredicted\n' + ''.join(lines))
  scores = classification.scores(
    classification.confusion(test.labels_b, found, config.task.num_classes)
  )
  return {
    'accuracy': scores['accuracy'],
    'macro_f1': scores['macro_f1'],
    'flops': sum(model.flops(mean, units=units).values()),
    'flops_run': sum(model.flops(full).values()),
    'units_per_token': train.units_per_token,
  }


def _make(config: Config, tokenizer: Any, most: int) -> code_merge.CodeMerge:
  """The model of a run, with room for `most` units."""
  capacity = ragged.Capacity(policy='ratio', ratio=most / config.length)
  fields = dict(num_classes=config.task.num_classes, capacity=capacity)
  rngs = nnx.Rngs(config.seed)
  if config.init:
    model = pretrained.load(
      config.init,
      dropout=config.model.encoder.dropout,
      length=config.length,
      vocabulary=tokenizer,
    )
    fields |= dict(how=config.model.how, layer=config.model.layer)
    return code_merge.adopt(model, rngs=rngs, **fields)
  encoder = dataclasses.replace(
    config.model.encoder,
    vocab_size=tokenizer.vocab_size + 1,
    max_len=config.length,
  )
  return dataclasses.replace(config.model, encoder=encoder, **fields).make(rngs)


def _loss(model: code_merge.CodeMerge, batch: Any, rng: Any) -> Any:
  tokens_bt, units_bt, labels_b = batch
  logits = model.logits(model(tokens_bt, units_bt, rng=rng).hidden_btd)
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, labels_b
  ).mean()


def _predict(model: code_merge.CodeMerge, rows: tasks.Rows) -> np.ndarray:
  """The most probable class of each row."""
  call = nnx.jit(
    lambda model, tokens, units: model.logits(
      model(tokens, units).hidden_btd
    ).argmax(-1)
  )
  found, size = [], 64
  for start in range(0, len(rows.labels_b), size):
    part = rows.take(np.arange(start, start + size) % len(rows.labels_b))
    found.append(np.asarray(call(model, part.tokens_bt, part.units_bt)))
  return np.concatenate(found)[: len(rows.labels_b)]

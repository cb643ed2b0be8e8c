# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a model on rows that fit into memory: for probes of a few minutes.

Runs that are worth keeping go through `jaxtok.train`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxtok.objectives import next_token


@dataclasses.dataclass(frozen=True)
class Rows:
  """Sequences of one length, padded at the end.

  Attributes:
    ids: int32 [rows, t + 1]; the target of place i is the id at i + 1.
    is_target: Which ids are to be predicted, bool [rows, t + 1].
    positions: int32 [rows, t + 1].
  """

  ids: np.ndarray
  is_target: np.ndarray
  positions: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)

  def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows as a batch; see `data.batch`. No bytes are charged."""
    tokens = self.ids[rows, :-1]
    return {
      'tokens_bt': tokens,
      'targets_bt': self.ids[rows, 1:],
      'loss_mask_bt': self.is_target[rows, 1:].astype(np.float32),
      'segment_ids_bt': np.ones_like(tokens),
      'positions_bt': self.positions[rows, :-1],
      'num_bytes_bt': np.zeros_like(tokens),
    }


def make_rows(
  parts: Sequence[tuple[Any, Any]],
  length: int,
  tokens_per_window: int = 1,
) -> Rows:
  """Joins inputs and targets.

  Args:
    parts: For each row its inputs and its targets. The second one begins at a
      position that is a multiple of `tokens_per_window`, as the first does.
    length: Of all rows; at least that of the longest.
    tokens_per_window: Of the tokenizer.

  Raises:
    ValueError: If a row is longer than `length`.
  """
  shape = len(parts), length
  ids, is_target = np.zeros(shape, np.int32), np.zeros(shape, bool)
  positions = np.zeros(shape, np.int32)
  for i, (inputs, targets) in enumerate(parts):
    split, size = len(inputs), len(inputs) + len(targets)
    if size > length:
      raise ValueError(f'row {i} has {size} ids; length={length} is too small.')
    ids[i, :size] = np.concatenate([inputs, targets])
    is_target[i, split:size] = True
    # The last input predicts the first target.
    skip = -(split - 1) % tokens_per_window
    positions[i] = np.arange(length) + skip * (np.arange(length) >= split - 1)
  return Rows(ids, is_target, positions)


def train(
  model: Any,
  rows: Rows,
  *,
  steps: int,
  batch_size: int = 32,
  lr: float = 1e-3,
  seed: int = 0,
) -> np.ndarray:
  """Trains a model in place, by Adam with cosine decay.

  Args:
    model: See `models.base`.
    rows: What to train on; drawn at random.
    steps: How often.
    batch_size: Rows per step.
    lr: Highest learning rate; the first twentieth of the steps warms up.
    seed: Of the draws.

  Returns:
    Nats per target of each step [steps].
  """
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, lr, max(1, steps // 20), max(steps, 2)
  )
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
  objective = next_token.Config().make()
  graph, params, rest = nnx.split(model, nnx.Param, ...)
  state, rng = optimizer.init(params), np.random.default_rng(seed)

  unused = jax.random.key(0)

  @jax.jit
  def step(params, state, batch):
    def loss(params):
      found = objective(nnx.merge(graph, params, rest), batch, unused)
      return found.sum_nats / jnp.maximum(found.weight, 1.0)

    nats, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, nats

  found = []
  for _ in range(steps):
    chosen = rng.integers(0, len(rows), batch_size)
    params, state, nats = step(params, state, rows.batch(chosen))
    found.append(nats)
  nnx.update(model, params)
  return np.asarray(jax.device_get(found))


@dataclasses.dataclass(frozen=True)
class Score:
  """How well the targets of rows are predicted.

  Attributes:
    nats: Per target.
    accuracy: Share of targets with the highest logit.
    exact: Share of rows with all targets right: what greedy decoding gets.
  """

  nats: float
  accuracy: float
  exact: float


def score(model: Any, rows: Rows, batch_size: int = 64) -> Score:
  """Evaluates a model on all rows."""
  objective, unused = next_token.Config().make(), jax.random.key(0)
  graph, state = nnx.split(model)

  @jax.jit
  def measure(state, batch):
    found = objective.per_row(nnx.merge(graph, state), batch, unused)
    nats, accuracy = found['nats'], found['accuracy']
    return nats.total, accuracy.total, nats.weight

  parts = []
  for at in range(0, len(rows), batch_size):
    # The last batch is filled up with rows that are not counted.
    chosen = np.arange(at, at + batch_size) % len(rows)
    keep = min(batch_size, len(rows) - at)
    found = jax.device_get(measure(state, rows.batch(chosen)))
    parts.append([x[:keep] for x in found])
  nats, hits, weight = (
    np.concatenate(x).astype(np.float64) for x in zip(*parts, strict=True)
  )
  return Score(
    nats=float(nats.sum() / weight.sum()),
    accuracy=float(hits.sum() / weight.sum()),
    exact=float(np.mean(hits == weight)),
  )

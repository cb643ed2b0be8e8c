# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What an objective returns: sums and weights, never means.

Sums add up exactly over microbatches, devices, hosts and eval batches; the
division happens once, where a number is reported.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean kept as `total` and `weight`, both float32 scalars."""

  total: Any
  weight: Any

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(self.total + other.total, self.weight + other.weight)

  @property
  def value(self):
    """`total / weight`; 0 where the weight is 0."""
    weight = jnp.where(self.weight == 0, 1.0, self.weight)
    return jnp.where(self.weight == 0, 0.0, self.total / weight)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loss:
  """The result of an objective.

  Attributes:
    sum_nats: Sum over targets that is minimised, nats (auxiliary losses are
      added here, times the weight).
    weight: What `sum_nats` is divided by for the gradient, usually the number
      of targets.
    metrics: Name to `Mean`. An exact likelihood reports
      `bpb = Mean(nats / ln 2, num_bytes)`; a bound is called `bpb_bound`.
  """

  sum_nats: Any
  weight: Any
  metrics: dict[str, Mean]


class Objective(Protocol):
  """Callable from a model and a batch to a `Loss`; see architecture 1.

  One that does not call the model once, on `tokens_bt`, also has
  `flops(model, shape) -> dict`: see `train.flops.per_step`. One with state
  keeps it in variables of the model that are no parameters, and has
  `advance(model, metrics) -> None`: the training step calls it once per step
  with the metrics of the whole batch. Metrics whose names begin with '_' are
  for `advance` alone: they are not reported and may be arrays.
  """

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> Loss: ...


class RowObjective(Objective, Protocol):
  """An objective whose metrics evals can also have row by row."""

  def per_row(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> dict[str, Mean]:
    """The metrics as for evaluation, i.e. without dropout.

    Returns:
      Name to `Mean` whose total and weight are arrays `[b]`, from which evals
      take standard errors. `rng` serves bounds that are estimated by sampling.
    """
    ...

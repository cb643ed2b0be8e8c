# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all runs of this experiment share, and its training loop.

A program is short and a data set small, so all of it lies on the device and a
hundred steps are one call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxtok.config import configclass
from jaxtok.models import code_merge
from jaxtok.train import optim as optim_lib
from jaxtok.train import sharding

_CHUNK = 100  # Steps between two lines of output.
HOWS = tuple(how.value for how in code_merge.How)


@configclass
class Run:
  """A run of the experiment; `model.how` is set to each of `hows` in turn."""

  hows: tuple[str, ...] = HOWS

  def __post_init__(self):
    if not self.hows or set(self.hows) - set(HOWS):
      raise ValueError(
        f'hows={self.hows} must be some of {", ".join(HOWS)}, e.g. '
        "('none', 'learned')."
      )


def fit(
  model: nnx.Module,
  loss: Callable[[Any, Any, Any], Any],
  rows: Any,
  *,
  optim: optim_lib.Config,
  steps: int,
  batch_size: int,
  seed: int,
  name: str = '',
) -> None:
  """Trains a model in place, on rows drawn without replacement per step.

  Args:
    model: Any.
    loss: (model, rows of a batch, rng) -> mean nats, a scalar.
    rows: A tree of arrays with one row per example.
    optim: The optimizer.
    steps: How many.
    batch_size: Rows of a step.
    seed: Of batches and dropout.
    name: Begins the lines that are printed.

  Raises:
    ValueError: If there are fewer rows than a batch has, `optim.lr_scales`
      names no parameter, or the loss is not finite.
  """
  rows = jax.tree.map(jnp.asarray, rows)
  num_rows = len(jax.tree.leaves(rows)[0])
  if num_rows < batch_size:
    raise ValueError(
      f'batch_size={batch_size} must be <= {num_rows}, the examples for '
      'training. Lower it or take more examples.'
    )
  graph, params = nnx.split(model, nnx.Param)
  axes, params = sharding.parameter_axes(params), nnx.to_pure_dict(params)
  optimizer = optim.make_for(steps, params, axes)
  keys = jax.random.split(jax.random.key(seed), steps)
  run = _steps(graph, loss, optimizer, keys, batch_size)
  state = jax.jit(optimizer.init)(params)
  for start in range(0, steps, _CHUNK):
    stop = min(start + _CHUNK, steps)
    params, state, total = run(params, state, rows, start, stop)
    mean = float(total) / (stop - start)
    print(f'{name}step {stop}/{steps}  loss {mean:.4g}', flush=True)
    if not jnp.isfinite(total):
      raise ValueError(
        f'the loss is not finite before step {stop}. Lower optim.lr={optim.lr}.'
      )
  nnx.update(model, params)


def _steps(
  graph: Any, loss: Any, optimizer: Any, keys: Any, batch_size: int
) -> Any:
  """Does steps `start` to `stop`; also returns the sum of their losses."""

  def step(i, carry, rows):
    params, state, total = carry
    first, second = jax.random.split(keys[i])
    num_rows = len(jax.tree.leaves(rows)[0])
    index = jax.random.choice(first, num_rows, (batch_size,), replace=False)
    batch = jax.tree.map(lambda x: x[index], rows)
    value, grads = jax.value_and_grad(
      lambda params: loss(nnx.merge(graph, params), batch, second)
    )(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, total + value

  @jax.jit
  def run(params, state, rows, start, stop):
    carry = params, state, jnp.float32(0)
    body = lambda i, carry: step(i, carry, rows)
    return jax.lax.fori_loop(start, stop, body, carry)

  return run

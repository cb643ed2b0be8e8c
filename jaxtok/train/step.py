# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One optimizer step as a pure function of state and batch.

The gradient is that of `sum(nats) / sum(weight)` over the whole batch. With
microbatches the sums are accumulated and divided once, so the result does not
depend on how the rows were grouped, however uneven their weights are.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from jaxtok.objectives.base import Loss, Mean
from jaxtok.train.state import Layout, State


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
  """What a step reports; everything stays on the devices until it is read.

  Attributes:
    means: Name to `Mean`: those of the objective but for names that begin with
      '_', and `loss`, `grad_norm` (before clipping) and `lr`.
    tokens: Positions of the batch that are not padding.
    bytes: Source bytes charged to the batch's targets.
    bad: -1 if the loss, gradients and new parameters are finite; else the
      index of the first parameter that was not finite before the step, or
      after all parameters that of the first gradient, or after those that of
      the first new parameter, or three times their number if only the loss is
      bad.
  """

  means: dict[str, Mean]
  tokens: Any
  bytes: Any
  bad: Any


Step = Callable[[State, dict[str, Array]], tuple[State, StepMetrics]]


def make_step(
  layout: Layout,
  objective: Callable[..., Loss],
  *,
  seed: int,
  num_microbatches: int = 1,
  ema: float = 0.0,
) -> Step:
  """Builds the step; jit it with `compile_step`.

  Args:
    layout: Structure of the state.
    objective: See `jaxtok.objectives.base`.
    seed: Randomness of step n comes from `fold_in(key(seed), n)`.
    num_microbatches: Static; rows are dealt to microbatches in turn, so each
      device keeps its rows.
    ema: Decay of averaged parameters; 0 turns them off.
  """

  def sum_nats(params, rest, batch, rng):
    model = nnx.merge(layout.graphdef, params, rest)
    loss = objective(model, batch, rng)
    _, _, rest = nnx.split(model, nnx.Param, ...)
    return loss.sum_nats, (loss, nnx.to_pure_dict(rest))

  def gradient(state, batch):
    grad = jax.grad(sum_nats, has_aux=True)
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    if num_microbatches == 1:
      sums, (loss, rest) = grad(state.params, state.rest, batch, rng)
      return sums, loss, rest
    return _accumulate(grad, state, batch, rng, num_microbatches)

  def step(state, batch):
    sums, loss, rest = gradient(state, batch)
    rest = _advance(objective, layout.graphdef, state.params, rest, loss)
    weight = jnp.where(loss.weight == 0, 1.0, loss.weight)
    grads = jax.tree.map(lambda g: g / weight, sums)
    updates, opt_state = layout.optimizer.update(
      grads, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    new_state = State(
      step=state.step + 1,
      params=params,
      rest=rest,
      opt_state=opt_state,
      ema=_average(state.ema, params, state.step, ema),
    )
    lr = layout.learning_rate(state.step)
    checked = (state.params, grads, params)
    return new_state, _metrics(checked, loss, batch, lr)

  return step


def compile_step(
  layout: Layout,
  step: Step,
  batch: Any,
  compiler_options: Mapping[str, Any] | None = None,
) -> Any:
  """Compiles a step for the shapes of `batch`; the state is donated.

  Args:
    layout: Structure of the state.
    step: From `make_step`.
    batch: Arrays, or shapes with shardings.
    compiler_options: XLA's options, without the leading dashes.

  Returns:
    A compiled executable: `compiled(state, batch)`, with
    `memory_analysis()`, `cost_analysis()` and `as_text()`.
  """
  jitted = jax.jit(
    step, donate_argnums=0, out_shardings=(layout.shardings, None)
  )
  with jax.set_mesh(layout.mesh):
    lowered = jitted.lower(layout.shapes, batch)
    return lowered.compile(compiler_options)


def _accumulate(grad, state, batch, rng, num_microbatches):
  """Sums of gradients, losses and metrics over microbatches."""

  def split(x):
    # Row r goes to microbatch r % n: the split of rows over devices stays.
    x = x.reshape(-1, num_microbatches, *x.shape[1:])
    return jnp.swapaxes(x, 0, 1)

  def add(carry, xs):
    rest, *sums = carry
    microbatch, index = xs
    grads, (loss, rest) = grad(
      state.params, rest, microbatch, jax.random.fold_in(rng, index)
    )
    sums = jax.tree.map(jnp.add, tuple(sums), (grads, loss))
    return (rest, *sums), None

  microbatches = jax.tree.map(split, batch), jnp.arange(num_microbatches)
  first = jax.tree.map(lambda x: x[0], microbatches)
  shapes = jax.eval_shape(lambda: grad(state.params, state.rest, first[0], rng))
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[1][0])
  )
  carry, _ = jax.lax.scan(add, (state.rest, *zeros), microbatches)
  rest, sums, loss = carry
  return sums, loss, rest


def _advance(objective, graphdef, params, rest, loss: Loss):
  """Lets controllers see the whole batch, once per step."""
  model = nnx.merge(graphdef, params, rest)
  has_own, has_other = hasattr(model, 'advance'), hasattr(objective, 'advance')
  if not has_own and not has_other:
    return rest
  if has_own:
    model.advance(loss.metrics)
  if has_other:
    objective.advance(model, loss.metrics)
  _, _, rest = nnx.split(model, nnx.Param, ...)
  return nnx.to_pure_dict(rest)


def _average(average, params, step, decay: float):
  """Moves the average towards `params`; it forgets faster in the beginning."""
  if not average:
    return average
  keep = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, average, params)


def _metrics(checked, loss, batch, lr) -> StepMetrics:
  """`checked`: old parameters, gradients, new parameters."""
  grads = checked[1]
  norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
  one = jnp.ones(())
  return StepMetrics(
    means={k: v for k, v in loss.metrics.items() if k[0] != '_'}
    | {
      'loss': Mean(loss.sum_nats, loss.weight),
      'grad_norm': Mean(norm, one),
      'lr': Mean(lr, one),
    },
    tokens=_count(batch, 'segment_ids_bt', lambda x: x > 0),
    bytes=_count(batch, 'num_bytes_bt', lambda x: x),
    bad=_first_bad(checked, loss.sum_nats, norm),
  )


def _count(batch, key, what):
  if key not in batch:
    return jnp.zeros((), jnp.int32)
  return jnp.sum(what(batch[key]), dtype=jnp.int32)


def _first_bad(checked, sum_nats, norm):
  """Looks for the culprit only if something is wrong; see `StepMetrics`."""
  is_bad = lambda x: ~jnp.all(jnp.isfinite(x))

  def search():
    bad = [is_bad(x) for x in jax.tree.leaves(checked)]
    return jnp.argmax(jnp.stack([*bad, jnp.array(True)])).astype(jnp.int32)

  new = jnp.stack([is_bad(x) for x in jax.tree.leaves(checked[2])])
  fine = jnp.isfinite(sum_nats) & jnp.isfinite(norm) & ~jnp.any(new)
  return jax.lax.cond(fine, lambda: jnp.int32(-1), search)

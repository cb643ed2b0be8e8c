# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training state: one pytree that a step maps to the next.

The model appears in it as two plain dicts, `params` (what the optimizer
changes) and `rest` (all other variables, e.g. counters of controllers), so
that gradients, donation, sharding and checkpoints see only arrays.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtok.train import optim, sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Everything that changes from step to step, besides the data iterator.

  Attributes:
    step: Optimizer steps done, int32 scalar.
    params: Pure dict of the model's `nnx.Param` values.
    rest: Pure dict of its other variables.
    opt_state: The optimizer's state.
    ema: Averaged parameters, like `params`; empty if they are turned off.
  """

  step: Any
  params: Any
  rest: Any
  opt_state: Any
  ema: Any


@dataclasses.dataclass(frozen=True)
class Layout:
  """Everything about a training state but its numbers.

  Attributes:
    graphdef: Structure of the model.
    axes: Logical axis names of each parameter, a tree like `params`.
    optimizer: What updates `params`.
    learning_rate: Step number to learning rate.
    shapes: A `State` of shapes, each with its sharding.
    mesh: The devices.
    make_model: Makes the model from `nnx.Rngs`.
  """

  graphdef: Any
  axes: dict
  optimizer: optax.GradientTransformation
  learning_rate: Callable[[Any], Any]
  shapes: State
  mesh: Mesh
  make_model: Callable[[nnx.Rngs], nnx.Module]

  @property
  def shardings(self) -> State:
    """The sharding of each array of the state."""
    return jax.tree.map(lambda x: x.sharding, self.shapes)

  def init(self, seed: int) -> State:
    """Random parameters, created where they belong (never on one device)."""

    def create():
      model = self.make_model(nnx.Rngs(seed))
      _, params, rest = nnx.split(model, nnx.Param, ...)
      return _state(
        nnx.to_pure_dict(params),
        nnx.to_pure_dict(rest),
        self.optimizer,
        bool(self.shapes.ema),
      )

    # It runs once, so on a CPU, where compiling takes long, the compiler need
    # not try hard.
    options = {}
    if self.mesh.devices.flat[0].platform == 'cpu':
      options = {'xla_backend_optimization_level': 0}
    with jax.set_mesh(self.mesh):
      state = jax.jit(
        create, out_shardings=self.shardings, compiler_options=options
      )()
    return jax.device_put(state, self.shardings)  # For `jax.disable_jit`.

  def model(self, state: State, *, averaged: bool = True) -> nnx.Module:
    """The model with the state's parameters, averaged ones if there are."""
    params = state.ema if averaged and state.ema else state.params
    return nnx.merge(self.graphdef, params, state.rest)


def plan(
  make_model: Callable[[nnx.Rngs], nnx.Module],
  *,
  optimizer: optim.Config,
  steps: int,
  mesh: Mesh,
  ema: bool = False,
) -> Layout:
  """Works out the state's structure; computes nothing and fills no memory.

  Args:
    make_model: Makes the model from `nnx.Rngs`.
    optimizer: The optimizer's config.
    steps: Length of the run, for the learning-rate schedule.
    mesh: The devices, of this machine or of a topology to compile for.
    ema: Whether averaged parameters are kept.
  """
  graphdef, params, rest = nnx.split(
    nnx.eval_shape(lambda: make_model(nnx.Rngs(0))), nnx.Param, ...
  )
  axes = sharding.parameter_axes(params)
  params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
  transform = optimizer.make_for(steps, params, axes)
  shapes = jax.eval_shape(
    lambda p, r: _state(p, r, transform, ema), params, rest
  )
  param_shardings = sharding.shardings(params, axes, mesh)
  replicated = NamedSharding(mesh, PartitionSpec())
  shardings = State(
    step=replicated,
    params=param_shardings,
    rest=jax.tree.map(lambda _: replicated, rest),
    opt_state=sharding.optimizer_shardings(
      transform, shapes.opt_state, param_shardings, mesh
    ),
    ema=param_shardings if ema else {},
  )
  shapes = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
  return Layout(
    graphdef=graphdef,
    axes=axes,
    optimizer=transform,
    learning_rate=optimizer.learning_rate(steps),
    shapes=shapes,
    mesh=mesh,
    make_model=make_model,
  )


def names(tree: Any) -> list[str]:
  """Dotted name of each leaf, in the order of `jax.tree.leaves`."""
  return [
    jax.tree_util.keystr(path, simple=True, separator='.')
    for path, _ in jax.tree.leaves_with_path(tree)
  ]


def num_bytes(tree: Any) -> int:
  """Bytes of all arrays (or shapes) of a tree, each counted once."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _state(params, rest, optimizer, ema: bool) -> State:
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    rest=rest,
    opt_state=optimizer.init(params),
    # A copy, because both are donated to the step.
    ema=jax.tree.map(jnp.copy, params) if ema else {},
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a run begins: its last checkpoint, another run's weights, or chance."""

import dataclasses
import os
from typing import Any

import jax
from etils import epath
from flax import nnx

from jaxtok.runs import run as run_lib
from jaxtok.train import checkpoint, errors, setup, tally
from jaxtok.train import state as state_lib
from jaxtok.train.setup import Job


@dataclasses.dataclass(frozen=True)
class Start:
  """Where a run goes on from.

  Attributes:
    state: The training state.
    tally: The counters.
    origin: A sentence that says where they come from.
    due: Evals that a stopped run still owes for this step.
  """

  state: state_lib.State
  tally: tally.Tally
  origin: str
  due: list[str]


def begin(
  job: Job,
  checkpoints: checkpoint.Checkpoints,
  batches: Any,
  init_from: str | None,
) -> Start:
  """State and counters to go on from; moves `batches` to the same place.

  Args:
    job: The run.
    checkpoints: Of its workdir; they come before `init_from`.
    batches: The data iterator.
    init_from: 'RUN' or 'RUN@STEP', or None.

  Raises:
    CheckpointError: If no checkpoint can be read.
    ConfigError: If the weights of `init_from` do not fit the model.
  """
  found = checkpoints.restore(job.layout.shapes)
  if found is not None:
    counters = tally.Tally.from_json(found.meta['tally'], job.flops_per_step)
    # A pipeline whose processes differ says so if their number has changed.
    is_same = len(found.data) == jax.process_count()
    batches.set_state(found.data[jax.process_index() if is_same else 0])
    origin = f'continues after step {found.step} of {job.steps}'
    if found.step == job.steps:
      origin = f'all {job.steps} steps are done; raise steps to go on'
    return Start(found.state, counters, origin, found.meta['due'])
  state = job.layout.init(job.config.seed)
  counters = tally.Tally(flops_per_step=job.flops_per_step)
  origin = f'random weights, seed {job.config.seed}'
  if init_from is not None:
    state = _with_weights(job, state, init_from)
    origin = f'the weights of {init_from}'
  return Start(state, counters, f'step 0, from {origin}', [])


def check_weights(workdir: str | os.PathLike, init_from: str | None) -> None:
  """Checks that there are trained weights to evaluate.

  Raises:
    ConfigError: If the workdir has no checkpoint and no run is given.
  """
  if init_from is None and not setup.has_checkpoints(epath.Path(workdir)):
    raise errors.ConfigError(
      f'eval_only: workdir={workdir} has no checkpoint, so there is nothing to '
      'evaluate. Name the workdir of a trained run, or give --init_from=RUN.'
    )


def locate(init_from: str) -> tuple[str, int | None]:
  """Splits 'RUN' or 'RUN@STEP'.

  Raises:
    ConfigError: If it is neither.
    FileNotFoundError: If RUN is not a run directory.
  """
  path, _, step = init_from.partition('@')
  if '@' in init_from and not step.isdigit():
    raise errors.ConfigError(
      f'init_from={init_from!r} must be RUN or RUN@STEP, e.g. runs/a@500.'
    )
  run_lib.load(path)
  return path, int(step) if step else None


def _with_weights(
  job: Job, state: state_lib.State, source: str
) -> state_lib.State:
  """Replaces the weights, and the averages, by those of another run."""
  path, step = locate(source)
  run = run_lib.load(path)
  if run.tokenizer.fingerprint != job.tokenizer.fingerprint:
    raise errors.ConfigError(
      f'init_from={source}: that run has another tokenizer '
      f'({run.tokenizer!r}, here {job.tokenizer!r}), so its ids mean other '
      'bytes. Use the same tokenizer.'
    )
  found = checkpoint.restore_params(path, step)
  _check_shapes(source, found, job.layout.shapes)
  # What controllers keep begins anew if that run had none.
  model = job.layout.model(
    dataclasses.replace(job.layout.shapes, rest=state.rest)
  )
  nnx.update(model, found)
  _, params, rest = nnx.split(model, nnx.Param, ...)
  put = lambda tree, like: jax.device_put(
    nnx.to_pure_dict(tree), jax.tree.map(lambda x: x.sharding, like)
  )
  shapes = job.layout.shapes
  return dataclasses.replace(
    state,
    params=put(params, shapes.params),
    rest=put(rest, shapes.rest),
    ema=put(params, shapes.params) if state.ema else {},
  )


def _check_shapes(source: str, found: dict, shapes: state_lib.State) -> None:
  have = _shapes(found)
  optional = _shapes(shapes.rest)
  want = _shapes(shapes.params) | {
    name: shape for name, shape in optional.items() if name in have
  }
  differ = [
    f'{name}: {have.get(name, "absent")} there, {want.get(name, "absent")} here'
    for name in sorted(have.keys() | want.keys())
    if have.get(name) != want.get(name)
  ]
  if differ:
    more = f' and {len(differ) - 5} more' if len(differ) > 5 else ''
    raise errors.ConfigError(
      f'init_from={source} does not fit this model: {"; ".join(differ[:5])}'
      f'{more}. Give the model the sizes of that run.'
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = [x.shape for x in jax.tree.leaves(tree)]
  return dict(zip(state_lib.names(tree), leaves, strict=True))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a run begins: its last checkpoint, other weights, or chance.

Other weights are those of another run, or of a checkpoint folder of
`models.interop` (config.json and safetensors files).
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from jaxtok.models import interop, transformer
from jaxtok.runs import run as run_lib
from jaxtok.tokenizers import hf
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
    init_from: 'RUN', 'RUN@STEP', a checkpoint folder of `models.interop`, or
      None.

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
    state, note = _with_weights(job, state, init_from)
    origin = f'the weights of {init_from}{note}'
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
  """Splits 'RUN' or 'RUN@STEP'; a checkpoint folder has no steps.

  Raises:
    ConfigError: If it is none of them.
    FileNotFoundError: If there is nothing like that.
  """
  path, _, step = init_from.partition('@')
  if '@' in init_from and not step.isdigit():
    raise errors.ConfigError(
      f'init_from={init_from!r} must be RUN or RUN@STEP, e.g. runs/a@500.'
    )
  run = run_lib.load(path)
  if step and _is_foreign(run):
    raise errors.ConfigError(
      f'init_from={init_from!r}: {path} is a checkpoint folder, which has no '
      f'steps. Leave out @{step}.'
    )
  return path, int(step) if step else None


def _is_foreign(run: run_lib.Run) -> bool:
  """Whether a folder is a checkpoint of `models.interop`, not a run."""
  return 'model_type' in run.raw_config


def _with_weights(
  job: Job, state: state_lib.State, source: str
) -> tuple[state_lib.State, str]:
  """Replaces the weights, and the averages, by those of another run.

  Also what is to be known about them, or ''.
  """
  path, step = locate(source)
  run, note = run_lib.load(path), ''
  if _is_foreign(run):
    is_checked = _check_vocabulary(job, source, path)
    note = '' if is_checked else '; it has no vocabulary: tokenizer not checked'
    config, found = _read_foreign(job, source, path)
  else:
    config, found = _read_run(job, source, run, step)
  model = job.layout.model(state)
  own = _own_parts(source, model, config, found)
  _check_shapes(source, found, job.layout.shapes, own)
  nnx.update(model, found)
  _, params, rest = nnx.split(model, nnx.Param, ...)
  put = lambda tree, like: jax.device_put(
    nnx.to_pure_dict(tree), jax.tree.map(lambda x: x.sharding, like)
  )
  shapes = job.layout.shapes
  params = put(params, shapes.params)
  state = dataclasses.replace(
    state,
    params=params,
    rest=put(rest, shapes.rest),
    # A copy, because both are donated to the step.
    ema=jax.tree.map(jnp.copy, params) if state.ema else {},
  )
  return state, note


def _read_run(
  job: Job, source: str, run: run_lib.Run, step: int | None
) -> tuple[Any, dict]:
  """Config and variables of another run's model."""
  _check_tokenizer(job, source, run.tokenizer)
  return run.config.model, checkpoint.restore_params(run.workdir, step)


def _check_tokenizer(job: Job, source: str, other: Any) -> None:
  if other.fingerprint != job.tokenizer.fingerprint:
    raise errors.ConfigError(
      f'init_from={source}: those weights have another tokenizer ({other!r}, '
      f'here {job.tokenizer!r}), so its ids mean other bytes. Use the same one.'
    )


def _check_vocabulary(job: Job, source: str, path: str) -> bool:
  """Checks the tokenizer against a checkpoint's; False if it has none."""
  folder = epath.Path(path)
  has = lambda *names: all((folder / name).exists() for name in names)
  if not has('tokenizer.json') and not has('vocab.json', 'merges.txt'):
    return False
  own = job.config.tokenizer
  # With the run's own names of special tokens and the like.
  config = own if isinstance(own, hf.Config) else hf.Config(allow_lossy=True)
  try:
    other = dataclasses.replace(config, path=path).make()
  except ValueError as e:
    raise errors.ConfigError(f'init_from={source}: its vocabulary: {e}') from e
  _check_tokenizer(job, source, other)
  return True


def _read_foreign(job: Job, source: str, path: str) -> tuple[Any, dict]:
  """Config and variables of a checkpoint."""
  config, model = interop.load(path)
  own = job.config.model
  if type(own) is transformer.Config is type(config):
    _refuse(source, interop.differences(config, own))
  # As from a run: each process puts its part where it belongs.
  return config, jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))


def _own_parts(
  source: str, model: nnx.Module, config: Any, found: dict
) -> tuple[str, ...]:
  """Parts of the model that the weights may lack; see `models.base`."""
  if not hasattr(model, 'new_parts'):
    return ()
  try:
    parts = model.new_parts(config)
  except ValueError as e:
    raise errors.ConfigError(f'init_from={source}: {e}') from e
  return tuple(part for part in parts if part not in found)


def _refuse(source: str, changes: str) -> None:
  if changes:
    raise errors.ConfigError(
      f'init_from={source}: its weights would compute something else '
      f'here:\n{changes}'
    )


def _check_shapes(
  source: str, found: dict, shapes: state_lib.State, own: tuple[str, ...]
) -> None:
  have = _shapes(found)
  # What controllers keep begins anew if that run had none.
  kept = {k: v for k, v in _shapes(shapes.rest).items() if k in have}
  want = {
    name: shape
    for name, shape in (_shapes(shapes.params) | kept).items()
    if name.split('.')[0] not in own
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

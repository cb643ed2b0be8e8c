# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: state, data iterator and meta data of a run, through Orbax.

A checkpoint is written in the background and appears all at once. It carries a
checksum of every array, computed on the devices, so that a damaged one is
found when it is read; the one before it is used then. Checksums and arrays do
not depend on how the state is split, so a checkpoint restores onto any mesh
and any number of processes.

This module imports nothing else of `jaxtok.train` but errors and checksums.
"""

import dataclasses
import math
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import nnx

from jaxtok.train import checksum, errors

FOLDER = 'checkpoints'
BAD_FOLDER = 'checkpoints_damaged'


@dataclasses.dataclass(frozen=True)
class Restored:
  """A checkpoint that was read and found intact."""

  step: int
  state: Any
  data: Any
  meta: dict[str, Any]


class Checkpoints:
  """The checkpoints of a workdir: the newest ones and the best one.

  Args:
    workdir: The run directory.
    max_to_keep: How many of the newest are kept; the one with the lowest
      score is kept as well.
  """

  def __init__(self, workdir: str | os.PathLike, *, max_to_keep: int = 2):
    self._folder = epath.Path(workdir).resolve() / FOLDER
    self._manager = ocp.CheckpointManager(
      self._folder,
      item_handlers={
        'state': ocp.StandardCheckpointHandler(),
        'data': ocp.JsonCheckpointHandler(),
        'meta': ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        best_fn=lambda metrics: _score(metrics),
        best_mode='min',
        preservation_policy=_NewestAndBest(max_to_keep),
        cleanup_tmp_directories=True,
      ),
    )

  def steps(self) -> list[int]:
    """Steps that have a checkpoint, in order."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: Any,
    *,
    data: Any,
    meta: dict[str, Any],
    score: float | None = None,
  ) -> None:
    """Starts writing a checkpoint; returns when `state` may be donated.

    Args:
      step: Optimizer steps done. Nothing happens if it has a checkpoint.
      state: Tree of arrays.
      data: State of the data iterator, JSON types.
      meta: Counters, versions and so on, JSON types.
      score: What the best checkpoint has the least of.
    """
    if step in self._manager.all_steps():
      return
    sealed = {
      'values': meta,
      'arrays': checksum.of_arrays(state),
      'json': checksum.of_json(data, meta),
    }
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        data=ocp.args.JsonSave({'data': data}),
        meta=ocp.args.JsonSave(sealed),
      ),
      metrics={'score': score},
    )

  def restore(self, shapes: Any) -> Restored | None:
    """Reads the newest intact checkpoint; None if the workdir has none.

    Damaged ones are named in a warning and moved to `checkpoints_damaged/`.

    Args:
      shapes: The state's shapes, with the shardings to restore to.

    Raises:
      CheckpointError: If there are checkpoints but none can be read.
    """
    problems = {}
    for step in reversed(self.steps()):
      restored, problem = self._try(step, shapes)
      if _all_processes(problem is None):
        self._set_aside(problems, step)
        return restored
      problems[step] = problem or 'another process could not read it'
    if not problems:
      return None
    lines = '; '.join(f'step {k}: {v}' for k, v in problems.items())
    raise errors.CheckpointError(
      f'No checkpoint in {self._folder} can be restored ({lines}). If the '
      'model or optimizer config changed, undo that; otherwise start a new '
      'workdir.'
    )

  def reached_preemption(self, step: int) -> bool:
    """Whether some process of a `jax.distributed` run was asked to stop."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Returns when everything is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and lets go of the folder."""
    self._manager.close()

  def _try(self, step: int, shapes: Any) -> tuple[Restored | None, str | None]:
    try:
      return self._read(step, shapes), None
    except Exception as e:  # Orbax has no common class for damaged files.
      return None, f'{type(e).__name__}: {str(e).splitlines()[0][:300]}'

  def _read(self, step: int, shapes: Any) -> Restored:
    found = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(shapes),
        data=ocp.args.JsonRestore(),
        meta=ocp.args.JsonRestore(),
      ),
    )
    checksum.verify(found.state, found.data['data'], found.meta)
    return Restored(step, found.state, found.data['data'], found.meta['values'])

  def _set_aside(self, problems: dict[int, str], good: int) -> None:
    """Moves damaged checkpoints away, so that the run can write new ones."""
    for step, problem in problems.items():
      logging.warning(
        'Checkpoint %s is damaged (%s). Continuing from step %d; the damaged '
        'one was moved to %s.',
        self._folder / str(step),
        problem,
        good,
        BAD_FOLDER,
      )
      if jax.process_index() == 0:
        target = self._folder.parent / BAD_FOLDER / str(step)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
          target.rmtree()
        (self._folder / str(step)).rename(target)
    if problems:
      _all_processes(True)  # Nobody looks before they are moved.
      self._manager.reload()


def restore_params(
  workdir: str | os.PathLike, step: int | None = None
) -> dict[str, Any]:
  """Reads the variables of a run's model, without the optimizer's state.

  Args:
    workdir: The run directory.
    step: Which checkpoint; the newest intact one by default.

  Returns:
    Pure dict of NumPy arrays for `nnx.update(model, ...)`; the averaged
    parameters if the run has them, and the model's other variables.

  Raises:
    CheckpointError: If there is no such checkpoint, or it is damaged.
  """
  folder = epath.Path(workdir).resolve() / FOLDER
  steps = []
  if folder.exists():
    steps = sorted(
      int(path.name) for path in folder.iterdir() if path.name.isdigit()
    )
  if step is not None and step not in steps:
    raise errors.CheckpointError(
      f'{workdir} has no checkpoint of step {step}. It has: '
      f'{", ".join(map(str, steps)) or "none"}.'
    )
  problems = []
  for candidate in [step] if step is not None else reversed(steps):
    try:
      return _read_params(folder / str(candidate))
    except Exception as e:  # Orbax has no common class for damaged files.
      problems.append(f'step {candidate}: {type(e).__name__}: {e}')
      logging.warning('Checkpoint %s is damaged.', folder / str(candidate))
  raise errors.CheckpointError(
    f'{workdir} has no checkpoint that can be read '
    f'({"; ".join(problems) or "there is none"}).'
  )


class _NewestAndBest:
  """Orbax preservation policy: the newest n and the best-scored one."""

  def __init__(self, n: int):
    self._n = max(n, 1)

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    scores = [_score(c.metrics) for c in checkpoints]
    best = scores.index(min(scores)) if scores else 0
    newest = len(checkpoints) - self._n
    return [
      i >= newest or (i == best and math.isfinite(scores[i]))
      for i in range(len(checkpoints))
    ]


def _score(metrics: dict[str, Any] | None) -> float:
  score = (metrics or {}).get('score')
  return math.inf if score is None else score


def _read_params(folder: epath.Path) -> dict[str, Any]:
  handlers = {
    'state': ocp.PyTreeCheckpointHandler(),
    'data': ocp.JsonCheckpointHandler(),
    'meta': ocp.JsonCheckpointHandler(),
  }
  with ocp.CheckpointManager(
    folder.parent,
    item_handlers=handlers,
    options=ocp.CheckpointManagerOptions(create=False),
  ) as manager:
    step = int(folder.name)
    tree = manager.item_metadata(step)['state'].tree
    tree = {k: tree[k] for k in ('params', 'rest', 'ema')}
    if tree['ema']:
      del tree['params']
    found = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          item=tree,
          restore_args=jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
          ),
          partial_restore=True,
        ),
        data=ocp.args.JsonRestore(),
        meta=ocp.args.JsonRestore(),
      ),
    )
  checksum.verify(found.state, found.data['data'], found.meta)
  params = found.state.get('ema') or found.state['params']
  return nnx.restore_int_paths(_merge(params, found.state['rest']))


def _merge(a: dict, b: dict) -> dict:
  """Union of two nested dicts that share no leaf."""
  merged = dict(a)
  for key, value in b.items():
    merged[key] = _merge(merged[key], value) if key in merged else value
  return merged


def _all_processes(ok: bool) -> bool:
  """Whether `ok` is true in every process; also a barrier."""
  if jax.process_count() == 1:
    return ok
  from jax.experimental import multihost_utils

  return bool(np.all(multihost_utils.process_allgather(np.array(ok))))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that are trained once, however often an experiment is started."""

import hashlib
import json
import pathlib
from typing import Any

from jaxtok import config as config_lib
from jaxtok import runs, train
from jaxtok.data import source
from jaxtok.runs import run as run_lib
from jaxtok.train import errors, setup, space

_BEGUN = 'begun'  # In meta.json: what a run began with, besides its config.


def train_once(
  config: Any, workdir: pathlib.Path, *, init_from: pathlib.Path | None = None
) -> runs.Run:
  """Trains, goes on training, or loads the run if it is finished.

  The run in the workdir must be the one that is asked for. Its config may
  differ where that of a run which continues may (`runs.run.FIXED`).

  Args:
    config: Of the run.
    workdir: Its directory.
    init_from: A run whose weights this one starts from.

  Raises:
    ConfigChangedError: If the workdir holds a run with another config, on other
      text, or from other weights; the message shows what differs.
  """
  run = runs.Run(workdir)
  begun = _begun(config, init_from)
  if setup.has_checkpoints(run.workdir):
    others = _check_same(run, config, begun)
    if _is_finished(run, config.steps):
      print(f'{workdir} is finished.{others}')
      return run
  else:
    space.check(run.workdir, 0, 0)
    run.note(**{_BEGUN: begun})
  start = None if init_from is None else str(init_from)
  return train.run(config, workdir, init_from=start)


def _is_finished(run: runs.Run, steps: int) -> bool:
  sessions = run.meta.get('sessions', [])
  is_done = bool(sessions) and sessions[-1]['exit'] == 'finished'
  return is_done and run.meta.get('steps') == steps


def _begun(config: Any, init_from: pathlib.Path | None) -> dict[str, Any]:
  """The contents of the text, by split, and which weights come first."""
  text = {
    split: source.corpus_id(config.data.documents(split))
    for split in setup.splits(config)
  }
  weights = 'random' if init_from is None else _weights_id(init_from)
  return {'text': text, 'weights': weights}


def _weights_id(workdir: pathlib.Path) -> str:
  """A hash of what the weights of a run follow from."""
  run = runs.load(workdir)
  made = [run.raw_config, run.meta.get(_BEGUN), run.meta.get('steps')]
  data = json.dumps(made, sort_keys=True).encode()
  return hashlib.blake2b(data, digest_size=8).hexdigest()


def _check_same(run: runs.Run, config: Any, begun: dict[str, Any]) -> str:
  """Refuses another run than the one asked for.

  Returns:
    The fields that may differ and do, as lines, or ''.
  """
  fix = f'Undo the change, use another workdir, or delete {run.workdir}.'
  stored = run.meta.get(_BEGUN)
  if stored is None:
    raise errors.ConfigChangedError(
      f'workdir={run.workdir} holds a run that does not say what its text was, '
      'so it cannot stand for the one asked for. Use another workdir, or '
      f'delete {run.workdir}.'
    )
  changed, others = run_lib.changes(run, config)
  for split in stored['text'].keys() & begun['text'].keys():
    if stored['text'][split] != begun['text'][split]:
      pair = stored['text'][split], begun['text'][split]
      changed[f'contents of data, {split}'] = pair
  if stored['weights'] != begun['weights']:
    changed['weights that it starts from'] = stored['weights'], begun['weights']
  if changed:
    raise errors.ConfigChangedError(
      f'workdir={run.workdir} holds another run than the one asked for:\n'
      f'{config_lib.format_diff(changed)}\n{fix}'
    )
  if not others:
    return ''
  return f' Its settings -> those asked for:\n{config_lib.format_diff(others)}'

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that are trained once, however often an experiment is started."""

import pathlib
from typing import Any

from jaxtok import runs, train


def train_once(
  config: Any, workdir: pathlib.Path, *, init_from: pathlib.Path | None = None
) -> runs.Run:
  """Trains, goes on training, or loads the run if it is finished.

  Args:
    config: Of the run.
    workdir: Its directory.
    init_from: A run whose weights this one starts from.
  """
  if (workdir / 'config.json').exists():
    run = runs.load(workdir)
    sessions = run.meta.get('sessions', [])
    is_done = bool(sessions) and sessions[-1]['exit'] == 'finished'
    if is_done and run.meta.get('steps') == config.steps:
      print(f'{workdir} is finished.')
      return run
  source = None if init_from is None else str(init_from)
  return train.run(config, workdir, init_from=source)

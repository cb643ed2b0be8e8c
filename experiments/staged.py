# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What experiments of several stages share: a run directory and a clock."""

import dataclasses
import pathlib
import time
from typing import Any

from jaxtok import config as config_lib
from jaxtok.runs import files


@dataclasses.dataclass
class Staged:
  """A config and a run directory; a stage that has files there is not rerun.

  Attributes:
    config: The config.
    workdir: Where files go.
  """

  config: Any
  workdir: pathlib.Path

  def __post_init__(self):
    self.workdir = pathlib.Path(self.workdir)
    self.begin = time.perf_counter()

  def log(self, text: str) -> None:
    print(f'[{time.perf_counter() - self.begin:5.0f} s] {text}', flush=True)

  def keep_config(self, *free: str) -> None:
    """Writes the config where there is none yet.

    Args:
      *free: Fields that may change from call to call; they are not written.

    Raises:
      ValueError: If there is another.
    """
    path = self.workdir / 'config.json'
    now = config_lib.to_dict(self.config)
    now = {name: value for name, value in now.items() if name not in free}
    if not path.exists():
      self.workdir.mkdir(parents=True, exist_ok=True)
      files.write_json(path, now)
    elif files.read_json(path) != now:
      raise ValueError(
        f'{path} holds another config. Choose another --workdir, or delete '
        'this one.'
      )

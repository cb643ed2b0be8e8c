# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the suite does with each model, and which numbers are of it."""

import dataclasses
import functools
import pathlib
from typing import Any

from jaxtok import config as config_lib
from jaxtok.data import source
from jaxtok.runs import files
from jaxtok.train import errors


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is done with each model.

  Attributes:
    size: Of the configs.
    budget: Training FLOPs.
    first: Source config of the text.
    second: Source config of the second language, or None.
    max_bytes: Of each text that is evaluated.
  """

  size: str
  budget: float
  first: Any
  second: Any
  max_bytes: int

  @functools.cached_property
  def facts(self) -> dict[str, Any]:
    """By flag, as JSON; of a text also hashes of what it holds.

    Raises:
      ValueError: If a text cannot be read; the message names the flag.
    """
    second = self.second
    return {
      'size': self.size,
      'budget': self.budget,
      'data': _text('data', self.first),
      'second': None if second is None else _text('second', second),
      'max_bytes': self.max_bytes,
    }

  def open(self, path: pathlib.Path) -> dict[str, Any]:
    """The numbers in a file, with the plan that they are of.

    A second language may come later, or be left out this time.

    Raises:
      ConfigChangedError: If they are of another plan.
    """
    if not path.exists():
      return {'plan': self.facts}
    found = files.read_json(path)
    fix = f'use another --workdir, or delete {path.parent} with all in it.'
    if 'plan' not in found:
      raise errors.ConfigChangedError(
        f'{path} does not say which text its numbers are of: {fix}'
      )
    before = found['plan']
    now = self.facts | {'second': self.facts['second'] or before['second']}
    if before['second'] is None:
      before = before | {'second': now['second']}
    if changes := config_lib.diff(before, now):
      named = {_flag(name): pair for name, pair in changes.items()}
      raise errors.ConfigChangedError(
        f'{path} holds numbers of another plan:\n'
        f'{config_lib.format_diff(named)}\nUndo the change, {fix}'
      )
    return found | {'plan': now}


def _text(flag: str, config: Any) -> dict[str, Any]:
  try:
    ids = {
      f'contents of {split}': source.corpus_id(
        source.documents(config.make(split))
      )
      for split in ('train', 'validation')
    }
  except (OSError, ValueError) as error:
    raise ValueError(f'--{flag}: {error}') from error
  return {'source': config_lib.to_dict(config), **ids}


def _flag(name: str) -> str:
  """E.g. '--data, source.path' of 'data.source.path'."""
  flag, _, rest = name.partition('.')
  return f'--{flag}, {rest}' if rest else f'--{flag}'

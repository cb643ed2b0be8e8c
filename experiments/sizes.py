# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The sizes of a config file: the word after `:` in `--config=file.py:size`."""

from typing import TypeVar

T = TypeVar('T')


def pick(size: str, **choices: T) -> T:
  """Returns the choice called `size`.

  Raises:
    ValueError: If there is no such size; the message lists those there are.
  """
  if size not in choices:
    raise ValueError(
      f'size {size!r} does not exist. Use one of: {", ".join(choices)}.'
    )
  return choices[size]


def split(size: str, *kinds: str) -> tuple[str, str]:
  """The parts of SIZE or SIZE_KIND; the kind is '' if there is none.

  Raises:
    ValueError: If the kind is not among `kinds`.
  """
  name, _, kind = size.partition('_')
  if kind and kind not in kinds:
    allowed = ', '.join([name, *(f'{name}_{kind}' for kind in kinds)])
    raise ValueError(f'size {size!r} does not exist. Use one of: {allowed}.')
  return name, kind

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns mistakes in `--config...` flags into sentences."""

import dataclasses
import difflib
import pathlib
import re
from typing import Any


def _config_value(argv: list[str]) -> str | None:
  for i, arg in enumerate(argv):
    if match := re.fullmatch(r'--?config=(.*)', arg):
      return match.group(1)
    if arg in ('--config', '-config') and i + 1 < len(argv):
      return argv[i + 1]
  return None


def check(argv: list[str]) -> None:
  """Checks that the config file is there and makes a config.

  Raises:
    ValueError: If it cannot be read, has no `get_config` or this fails.
  """
  value = _config_value(argv)
  if value is None:
    if fields := [a for a in argv[1:] if re.match(r'--?config\.', a)]:
      raise ValueError(f'{fields[0]} needs --config=FILE before it.')
    return
  load(value)


def load(value: str) -> Any:
  """Calls `get_config` of `path/file.py[:argument]`."""
  path, _, argument = value.partition(':')
  file = pathlib.Path(path)
  if not file.is_file():
    near = difflib.get_close_matches(
      file.name, [p.name for p in file.parent.glob('*.py')], n=1
    )
    hint = f' Did you mean {file.parent / near[0]}?' if near else ''
    raise ValueError(
      f'--config={value}: there is no file {path}.{hint} --list shows the '
      'configs of an experiment.'
    )
  scope: dict[str, Any] = {'__name__': 'config', '__file__': str(file)}
  try:
    exec(compile(file.read_text(), str(file), 'exec'), scope)
    make = scope['get_config']
  except KeyError:
    raise ValueError(
      f'--config={value}: {path} does not define get_config().'
    ) from None
  except (SyntaxError, ImportError) as error:
    raise ValueError(
      f'--config={value}: {path} cannot be loaded: {error}.'
    ) from error
  try:
    return make(argument) if argument else make()
  except (TypeError, ValueError, KeyError) as error:
    raise ValueError(f'--config={value}: {error}') from error


def explain_field(argv: list[str], error: Exception) -> str:
  """Names the misspelt field of an override and the nearest right one."""
  value = _config_value(argv)
  config = load(value) if value else None
  for arg in argv[1:]:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', arg)
    if match and (text := _missing(config, match.group(1).split('.'))):
      return f'{arg}: {text}'
  return f'the command line could not be read: {error}'


def _missing(config: Any, names: list[str]) -> str | None:
  """Why the path of field names does not exist in a config, or None."""
  here = 'config'
  for name in names:
    fields = _fields(config)
    if name not in fields:
      near = difflib.get_close_matches(name, fields, n=1)
      hint = f' Did you mean {near[0]!r}?' if near else ''
      owner = type(config).__module__ + ':' + type(config).__qualname__
      return (
        f'{here} ({owner}) has no field {name!r}.{hint} It has: '
        f'{", ".join(fields) or "no fields"}.'
      )
    config = config[name] if isinstance(config, dict) else getattr(config, name)
    here = f'{here}.{name}'
  return None


def _fields(config: Any) -> list[str]:
  if isinstance(config, dict):
    return list(config)
  if dataclasses.is_dataclass(config):
    return [field.name for field in dataclasses.fields(config)]
  return []

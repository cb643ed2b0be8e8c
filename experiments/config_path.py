# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns mistakes in `--config...` flags into sentences."""

import dataclasses
import difflib
import functools
import pathlib
import re
import traceback
import typing
from typing import Any

from jaxtok import config as config_lib


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
      raise ValueError(f'{fields[0]} needs --config=FILE beside it.')
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
  try:
    source = file.read_text(encoding='utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'--config={value}: {path} is no text, but a config is a Python file. '
      '--list shows the configs of an experiment.'
    ) from error
  scope: dict[str, Any] = {'__name__': 'config', '__file__': str(file)}
  try:
    exec(compile(source, str(file), 'exec'), scope)
    make = scope.get('get_config')
    config = None
    if make is not None:
      config = make(argument) if argument else make()
  except Exception as error:  # Whatever the user's file raises.
    raise ValueError(
      f'--config={value}: {_place(error, file)}{_message(error)}'
    ) from error
  if make is None:
    raise ValueError(f'--config={value}: {path} does not define get_config().')
  if not dataclasses.is_dataclass(config):
    raise ValueError(
      f'--config={value}: get_config() of {path} returned {config!r}; it must '
      'return a config, e.g. a train.Config.'
    )
  return config


def _place(error: Exception, file: pathlib.Path) -> str:
  """The last line of the config file that an error passed through."""
  if isinstance(error, SyntaxError):
    return ''  # Its message has the line.
  frames = traceback.extract_tb(error.__traceback__)
  lines = [f.lineno for f in frames if f.filename == str(file)]
  return f'line {lines[-1]}: ' if lines else ''


def _message(error: Exception) -> str:
  """The words of an error; its class too, where they do not explain it."""
  if isinstance(error, ValueError | AttributeError | TypeError):
    return str(error)
  return f'{type(error).__name__}: {error}'


def config_first(argv: list[str]) -> list[str]:
  """The command line with --config=FILE before the fields that change it."""
  program, first, rest = argv[:1], [], list(argv[1:])
  for i, arg in enumerate(rest):
    if re.match(r'--?config(=|$)', arg):
      end = i + 1 if '=' in arg else i + 2
      first, rest = rest[i:end], rest[:i] + rest[end:]
      break
  return [*program, *first, *rest]


def explain_field(argv: list[str], error: Exception) -> str:
  """Names the misspelt field of an override and the nearest right one."""
  value = _config_value(argv)
  config = load(value) if value else None
  for arg in argv[1:]:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', arg)
    if match and (text := _missing(config, match.group(1).split('.'))):
      return f'{arg}: {text}'
  return f'the command line could not be read: {error}'


def explain_whole(argv: list[str], error: Exception) -> str:
  """Says how to change a field that holds a config, which no flag can."""
  value = _config_value(argv)
  top = load(value) if value else None
  for arg in argv[1:]:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', arg)
    names = match.group(1).split('.') if match else []
    if not names or _missing(top, names):
      continue
    *above, name = names
    owner = functools.reduce(_field, above, top)
    held = _field(owner, name)
    if isinstance(owner, dict) or not dataclasses.is_dataclass(held):
      continue
    # A config of a known class may at least be set to None.
    if typing.get_type_hints(type(owner))[name] is not Any:
      continue
    (field,) = (f for f in dataclasses.fields(owner) if f.name == name)
    there_are = ', '.join(field.metadata.get('choices', ()))
    choices = f' There are: {there_are}.' if there_are else ''
    path = '.'.join(['config', *names])
    own = ', '.join(f.name for f in dataclasses.fields(held)) or 'none'
    return (
      f'{arg}: {path} holds a {type(held).__name__}, which a flag cannot '
      f'replace. Write another into the config file.{choices} A flag can '
      f'change its fields ({own}), e.g. --{path}.FIELD=VALUE.'
    )
  return str(error)


def _field(config: Any, name: str) -> Any:
  return config[name] if isinstance(config, dict) else getattr(config, name)


def _missing(config: Any, names: list[str]) -> str | None:
  """Why the path of field names does not exist in a config, or None."""
  for name in names:
    if isinstance(config, dict):
      found = name in config
    else:
      found = dataclasses.is_dataclass(config) and name in {
        field.name for field in dataclasses.fields(config)
      }
    if not found:
      return config_lib.unknown_field(config, name)
    config = _field(config, name)
  return None

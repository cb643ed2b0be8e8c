# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Typed configs: keyword-only dataclasses that go to JSON and back.

A config's class *is* the choice of method: every config has a `make` method
that builds the thing it configures, so nothing needs a registry. JSON stores
the class as `"type": "module:Class"`.
"""

import dataclasses
import difflib
import enum
import importlib
import types
import typing
from typing import Any


@typing.dataclass_transform(kw_only_default=True)
def configclass(cls):
  """Keyword-only dataclass with a hash, so that it can be static in jit.

  Only its fields can be set: `config.stpes = 3` raises an AttributeError that
  names the nearest field.
  """
  cls = dataclasses.dataclass(kw_only=True, unsafe_hash=True)(cls)
  names = frozenset(field.name for field in dataclasses.fields(cls))

  def set_field(self, name: str, value: Any) -> None:
    if name not in names:
      raise AttributeError(unknown_field(self, name))
    object.__setattr__(self, name, value)

  cls.__setattr__ = set_field
  return cls


def unknown_field(owner: Any, name: str) -> str:
  """A sentence saying that a config (or dict) has no such field."""
  if isinstance(owner, dict):
    known = list(owner)
  else:
    is_config = dataclasses.is_dataclass(owner)
    known = [f.name for f in dataclasses.fields(owner)] if is_config else []
  near = difflib.get_close_matches(name, known, n=1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  return (
    f'{type_name(type(owner))} has no field {name!r}.{hint} It has: '
    f'{", ".join(known) or "no fields"}.'
  )


def type_name(cls: type) -> str:
  """The name under which JSON stores a class, e.g. `'jaxtok.x:Config'`."""
  return f'{cls.__module__}:{cls.__qualname__}'


def to_dict(config: Any) -> Any:
  """Turns a config tree into JSON types; dataclasses carry their `type`.

  Args:
    config: A config, or anything that a config field may hold: numbers,
      strings, bytes, None, enums, tuples, lists, dicts with string keys.

  Returns:
    A value that `json.dumps` accepts.

  Raises:
    TypeError: If a field holds something that cannot be stored.
  """
  match config:
    case None | bool() | int() | float() | str():
      return config
    case enum.Enum():
      return {'type': type_name(type(config)), 'name': config.name}
    case bytes():
      return {'type': 'bytes', 'hex': config.hex()}
    case tuple():
      return {'type': 'tuple', 'items': [to_dict(x) for x in config]}
    case list():
      return [to_dict(x) for x in config]
    case dict():
      return {str(k): to_dict(v) for k, v in config.items()}
  if dataclasses.is_dataclass(config) and not isinstance(config, type):
    fields = {
      f.name: to_dict(getattr(config, f.name))
      for f in dataclasses.fields(config)
    }
    return {'type': type_name(type(config)), **fields}
  raise TypeError(
    f'{config!r} of type {type(config).__name__} cannot be stored in a '
    'config. Use numbers, strings, tuples, dicts, enums or configclasses.'
  )


def _load_type(name: str) -> type:
  module, _, qualname = name.partition(':')
  try:
    found: Any = importlib.import_module(module)
    for part in qualname.split('.'):
      found = getattr(found, part)
  except (ImportError, AttributeError) as e:
    raise ValueError(
      f'config type {name!r} cannot be imported ({e}). If the class lives '
      'outside jaxtok, put its folder on PYTHONPATH; if it was renamed, '
      'edit "type" in the JSON file.'
    ) from e
  return found


def from_dict(data: Any) -> Any:
  """The inverse of `to_dict`.

  Raises:
    ValueError: If a class cannot be imported or has no such field.
  """
  if isinstance(data, list):
    return [from_dict(x) for x in data]
  if not isinstance(data, dict):
    return data
  if 'type' not in data:
    return {k: from_dict(v) for k, v in data.items()}
  if data['type'] == 'tuple':
    return tuple(from_dict(x) for x in data['items'])
  if data['type'] == 'bytes':
    return bytes.fromhex(data['hex'])
  cls = _load_type(data['type'])
  if issubclass(cls, enum.Enum):
    return cls[data['name']]
  values = {k: from_dict(v) for k, v in data.items() if k != 'type'}
  known = {f.name for f in dataclasses.fields(cls)}
  if unknown := sorted(set(values) - known):
    raise ValueError(
      f'{data["type"]} has no field {", ".join(unknown)}. It has: '
      f'{", ".join(sorted(known))}. The file may come from another version.'
    )
  return cls(**values)


def _matches(value: Any, hint: Any) -> bool:
  """Whether a value fits a field's annotation; unknown annotations pass."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (typing.Union, types.UnionType):
    return any(_matches(value, arg) for arg in args)
  if origin is tuple:
    if not isinstance(value, tuple):
      return False
    if len(args) == 2 and args[1] is Ellipsis:
      return all(_matches(item, args[0]) for item in value)
    return len(value) == len(args) and all(map(_matches, value, args))
  if origin is not None:
    return isinstance(value, origin) if isinstance(origin, type) else True
  if hint is float:
    return isinstance(value, int | float) and not isinstance(value, bool)
  if hint is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, hint) if isinstance(hint, type) else True


def check_types(config: Any, path: str = 'config') -> None:
  """Checks the value of each field of a config tree against its annotation.

  Raises:
    TypeError: Naming the field, its value and the type it must have.
  """
  if isinstance(config, dict):
    for key, value in config.items():
      check_types(value, f'{path}.{key}')
  if not dataclasses.is_dataclass(config):
    return
  hints = typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    value, hint = getattr(config, field.name), hints[field.name]
    if not _matches(value, hint):
      name = getattr(hint, '__name__', None) if not typing.get_args(hint) else 0
      raise TypeError(
        f'{path}.{field.name}={value!r} must be of type {name or hint}.'
      )
    check_types(value, f'{path}.{field.name}')


def check(config: Any) -> None:
  """Checks types, then each dataclass's own rules (`__post_init__`) again.

  Overrides from a command line set fields after construction, so the rules
  of a class have to be asked a second time.

  Raises:
    TypeError, ValueError: As the field's class says.
  """
  check_types(config)
  _recheck(config)


def _recheck(config: Any) -> None:
  if isinstance(config, dict):
    for value in config.values():
      _recheck(value)
  if dataclasses.is_dataclass(config):
    for field in dataclasses.fields(config):
      _recheck(getattr(config, field.name))
    if hasattr(config, '__post_init__'):
      config.__post_init__()


def _flatten(data: Any, prefix: str = '') -> dict[str, Any]:
  """Leaves of a `to_dict` value by dotted path; tuples are leaves."""
  if isinstance(data, dict) and data.get('type') not in ('tuple', 'bytes'):
    leaves = {}
    for key, value in data.items():
      leaves |= _flatten(value, f'{prefix}.{key}' if prefix else key)
    return leaves
  return {prefix: data}


def diff(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
  """Fields in which two configs differ.

  Args:
    old: A config.
    new: A config.

  Returns:
    Dotted field path to `(old value, new value)`; None stands for "absent".
  """
  a, b = _flatten(to_dict(old)), _flatten(to_dict(new))
  show = lambda x: (
    tuple(x['items']) if isinstance(x, dict) and 'items' in x else x
  )
  return {
    path: (show(a.get(path)), show(b.get(path)))
    for path in sorted(a.keys() | b.keys())
    if a.get(path) != b.get(path)
  }


def format_diff(changes: dict[str, tuple[Any, Any]]) -> str:
  """One line per changed field, e.g. `  model.dim: 128 -> 96`."""
  return '\n'.join(f'  {k}: {a} -> {b}' for k, (a, b) in changes.items())

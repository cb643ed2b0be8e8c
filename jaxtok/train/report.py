# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The block of facts that a run prints before its first step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxtok.train import progress, sharding, state


def config_lines(config: Any) -> list[str]:
  """What a config chooses: the class of each part, and changed fields."""
  parts, plain = [], []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      parts.append((field.name, value))
    elif isinstance(value, dict):
      parts += [(f'{field.name}.{name}', v) for name, v in value.items()]
    elif value != field.default:
      plain.append(f'{field.name}={_show(value)}')
  lines = [f'{name:<10} {_describe(value)}' for name, value in parts]
  return lines + ([' '.join(plain)] if plain else [])


def parameter_line(shapes: state.State) -> str:
  """Parameters in all, by top module, and the bytes of the whole state."""
  sizes = {
    name: sum(x.size for x in jax.tree.leaves(tree))
    for name, tree in shapes.params.items()
  }
  by_module = ', '.join(f'{k} {v:,}' for k, v in sizes.items())
  in_all = progress.quantity(state.num_bytes(shapes))
  return f'{sum(sizes.values()):,} ({by_module}); state with optimizer {in_all}'


def memory_line(compiled: Any, num_devices: int) -> str:
  """Peak memory that the compiler expects a step to need."""
  stats = compiled.memory_analysis()
  if stats is None:
    return 'unknown: the compiler gives no estimate here'
  kept = stats.argument_size_in_bytes
  new = max(stats.output_size_in_bytes - stats.alias_size_in_bytes, 0)
  temporary = stats.temp_size_in_bytes
  each = ' on each device' if num_devices > 1 else ''
  return (
    f'{progress.quantity(kept + new + temporary)} peak expected{each} '
    f'(state and batch {progress.quantity(kept)}, temporary '
    f'{progress.quantity(new + temporary)})'
  )


def data_line(text: Any, rows_per_step: int, steps: int) -> str:
  """Size of the training split, and how often the run reads it."""
  num_bytes = text.num_bytes('train')
  num_rows = len(text.rows('train'))
  epochs = rows_per_step * steps / num_rows
  return (
    f'train {progress.quantity(num_bytes)} in {num_rows:,} rows, read '
    f'{epochs:.3g} times; validation '
    f'{progress.quantity(text.num_bytes("validation"))}'
  )


def block(facts: Mapping[str, str | list[str]]) -> str:
  """Facts under each other, with their names in a column."""
  lines = []
  for name, fact in facts.items():
    for i, line in enumerate([fact] if isinstance(fact, str) else fact):
      lines.append(f'{name if i == 0 else "":<11} {line}')
  return '\n'.join(lines)


def describe_mesh(layout: state.Layout) -> list[str]:
  """The mesh, and parameters that it cannot split as the rules say."""
  lines = [sharding.describe(layout.mesh)]
  lost = sharding.unsharded(layout.shapes.params, layout.axes, layout.mesh)
  if lost:
    more = f' and {len(lost) - 3} more' if len(lost) > 3 else ''
    lines.append(f'on every device, not split: {"; ".join(lost[:3])}{more}')
  return lines


def _show(value: Any) -> str:
  return getattr(value, 'name', None) or repr(value)


def _describe(config: Any) -> str:
  """E.g. 'transformer: dim=96 num_layers=2'."""
  cls = type(config)
  name = cls.__module__.rpartition('.')[2]
  if cls.__name__ != 'Config':
    name = f'{name}.{cls.__name__}'
  changed = []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    if value == default:
      continue
    if dataclasses.is_dataclass(value):
      changed.append(f'{field.name}=({_describe(value)})')
    else:
      changed.append(f'{field.name}={_show(value)}')
  return f'{name}: {" ".join(changed)}' if changed else name

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
  lines, plain = [], []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if isinstance(value, dict):
      for name, part in value.items():
        lines.append(f'{field.name}.{name}: {_describe(part)}')
    elif not dataclasses.is_dataclass(value):
      if value != field.default:
        plain.append(f'{field.name}={_show(value)}')
    elif field.default_factory is dataclasses.MISSING:
      lines.append(f'{field.name}: {_describe(value)}')
    elif changed := _changed(value):
      lines.append(f'{field.name}: {changed}')
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


def data_lines(config: Any, text: Any, steps: int) -> list[str]:
  """Size of the splits in use, and how often the run reads the first."""
  splits = dict.fromkeys(
    split
    for c in config.evals.values()
    if (split := getattr(c, 'split', '')) not in ('', 'train')
  )
  epochs = config.batch_size * steps / len(text.rows('train'))
  return [
    f'{text.describe("train")}; read {epochs:.3g} times',
    *map(text.describe, splits),
  ]


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
  """E.g. 'transformer dim=96 num_layers=2'."""
  cls = type(config)
  name = cls.__module__.rpartition('.')[2]
  if cls.__name__ != 'Config':
    name = f'{name}.{cls.__name__}'
  changed = _changed(config)
  return f'{name} {changed}' if changed else name


def _changed(config: Any) -> str:
  """Fields that differ from the class's defaults."""
  changed = []
  for field in dataclasses.fields(config):
    value, default = getattr(config, field.name), field.default
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    if value == default:
      continue
    if dataclasses.is_dataclass(value):
      changed.append(f'{field.name}=({_describe(value)})')
    else:
      changed.append(f'{field.name}={_show(value)}')
  return ' '.join(changed)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs go to JSON and back and refuse values of the wrong type."""

import dataclasses
import enum
import json
from typing import Any

import pytest

from jaxtok import config as config_lib


class Color(enum.Enum):
  RED = 'r'
  BLUE = 'b'


@config_lib.configclass
class Inner:
  dim: int = 4
  widths: tuple[int, ...] = (1, 2)
  color: Color = Color.RED
  blob: bytes = b'\x00\xff'
  limit: int | None = None

  def __post_init__(self):
    if self.dim < 1:
      raise ValueError(f'dim must be >= 1, got {self.dim}.')


@config_lib.configclass
class Outer:
  model: Any
  lr: float = 0.1
  evals: dict[str, Any] = dataclasses.field(default_factory=dict)


def make_outer() -> Outer:
  return Outer(
    model=Inner(dim=7, color=Color.BLUE, limit=3),
    evals={'val': Inner(widths=())},
  )


def test_configs_survive_json():
  config = make_outer()
  text = json.dumps(config_lib.to_dict(config))
  assert config_lib.from_dict(json.loads(text)) == config


def test_configs_hash_by_value():
  assert hash(make_outer().model) == hash(make_outer().model)


def test_a_misspelt_field_cannot_be_set():
  config = make_outer()
  with pytest.raises(AttributeError, match=r"'dmi'\. Did you mean 'dim"):
    config.model.dmi = 3
  assert not hasattr(config.model, 'dmi')


def test_diff_names_changed_leaves_by_path():
  changed = make_outer()
  changed.model.dim = 8
  changed.evals['val'].widths = (3,)
  assert config_lib.diff(make_outer(), changed) == {
    'evals.val.widths': ((), (3,)),
    'model.dim': (7, 8),
  }


def test_diff_shows_a_replaced_class():
  changed = dataclasses.replace(make_outer(), model=Outer(model=None))
  assert 'model.type' in config_lib.diff(make_outer(), changed)


def test_unknown_field_in_json_lists_the_known_ones():
  data = config_lib.to_dict(Inner()) | {'dmi': 3}
  with pytest.raises(ValueError, match=r'no field dmi\. It has: blob, color'):
    config_lib.from_dict(data)


def test_unimportable_class_in_json_says_what_to_do():
  with pytest.raises(ValueError, match='PYTHONPATH'):
    config_lib.from_dict({'type': 'no_such_module_xyz:Config'})


def test_values_that_json_cannot_hold_are_refused():
  with pytest.raises(TypeError, match='cannot be stored'):
    config_lib.to_dict(Outer(model=object()))


@pytest.mark.parametrize(
  'path, value',
  [
    ('dim', 1.5),
    ('dim', True),
    ('widths', ('a',)),
    ('widths', [1]),
    ('color', 'r'),
    ('limit', 'x'),
  ],
)
def test_wrong_types_are_named_with_their_path(path, value):
  config = make_outer()
  setattr(config.model, path, value)
  with pytest.raises(TypeError, match=rf'config\.model\.{path}='):
    config_lib.check_types(config)


def test_check_asks_the_rules_of_a_class_again():
  config = make_outer()
  config.model.dim = 0
  with pytest.raises(ValueError, match='dim must be >= 1, got 0'):
    config_lib.check(config)


def test_valid_configs_pass_check():
  config = make_outer()
  config.lr = 1  # An int is a fine float.
  config_lib.check(config)

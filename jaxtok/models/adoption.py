# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Puts the weights of one model into another that has parts of its own.

What the `adopt` functions of models share.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx


def put(
  model: nnx.Module,
  weights: Mapping[tuple, Any],
  *,
  new: tuple[str, ...],
  kept: Mapping[str, Any],
  given: Mapping[str, Any],
) -> None:
  """Changes a model in place.

  Args:
    model: What gets the weights.
    weights: Path to variable.
    new: Parts of the model that stay as they are where no weight fits.
    kept: The config that the weights are of, by field.
    given: Fields that the model has instead.

  Raises:
    ValueError: If any other parameter has no weight of its shape, or a weight
      no parameter.
  """
  own = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
  shape = lambda tree, path: tree[path].shape if path in tree else 'absent'
  fits = lambda path: shape(own, path) == shape(weights, path)
  for path in sorted(own.keys() | weights.keys(), key=str):
    if path[0] in new or fits(path):
      continue
    changed = [  # No fraction has a say in shapes.
      name
      for name, value in given.items()
      if value != kept.get(name, value) and not isinstance(value, float)
    ]
    shown = ', '.join(f'{k}={given[k]}' for k in changed or given)
    raise ValueError(
      f'{".".join(map(str, path))} is {shape(weights, path)} in the model that '
      f'is adopted and {shape(own, path)} with {shown or "this config"}. Leave '
      f'out {", ".join(changed or given) or "what is not in the model"}.'
    )
  found = [(path, value) for path, value in weights.items() if fits(path)]
  nnx.update(model, nnx.from_flat_state(found))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Logical axis names and the mesh axes they are split over.

Models name the axes of their parameters (`nnx.Param(x, axes=('embed',
'mlp'))`) and of a few activations (`constrain(x_btd, 'batch', 'length',
None)`) and know nothing else about devices. A mesh has the axes 'data' and
'model', and 'replica' and 'seq' if they are used; see `train.sharding`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

# 'embed' over 'data' is FSDP: each device keeps a slice of every matrix and
# gathers the rest when it is needed. The others are tensor parallelism.
PARAMETERS: dict[str, str | None] = {
  'embed': 'data',
  'vocab': 'model',
  'mlp': 'model',
  'heads': 'model',
  'kv': 'model',
  'head_dim': None,
  'layers': None,
}

ACTIVATIONS: dict[str, tuple[str, ...]] = {
  'batch': ('replica', 'data'),
  'length': ('seq',),
  'vocab': ('model',),
  'mlp': ('model',),
  'heads': ('model',),
  'kv': ('model',),
}


def parameter_spec(
  axes: Sequence[str | None] | None,
  shape: Sequence[int],
  mesh_shape: Mapping[str, int],
) -> PartitionSpec:
  """How one parameter is split.

  Vectors (norm scales, biases) and parameters without names are replicated.
  So is an axis whose size does not divide by the mesh axis, e.g. 2 key heads
  over model=4.

  Args:
    axes: Logical name of each axis; names without a rule are replicated.
    shape: Sizes of the axes.
    mesh_shape: Mesh axis name to number of devices.

  Raises:
    ValueError: If there are not as many names as axes.
  """
  if axes is None or sum(name != 'layers' for name in axes) < 2:
    return PartitionSpec()
  if len(axes) != len(shape):
    raise ValueError(
      f'axes={tuple(axes)} must name each axis of a parameter of shape '
      f'{tuple(shape)}.'
    )
  spec: list[str | None] = []
  for name, size in zip(axes, shape, strict=True):
    rule = PARAMETERS.get(name) if name else None
    devices = mesh_shape.get(rule, 1)
    usable = devices > 1 and size % devices == 0 and rule not in spec
    spec.append(rule if usable else None)
  return PartitionSpec(*spec)


def activation_spec(
  names: Sequence[str | None], mesh_shape: Mapping[str, int]
) -> PartitionSpec:
  """How an activation with these logical axes is split."""

  def entry(name):
    rule = ACTIVATIONS.get(name, ()) if name else ()
    used = tuple(axis for axis in rule if mesh_shape.get(axis, 1) > 1)
    return used if len(used) > 1 else (used[0] if used else None)

  return PartitionSpec(*map(entry, names))


def constrain(x: Any, *names: str | None) -> Any:
  """Tells the compiler how an activation is split over the devices.

  Does nothing without a mesh (`jax.set_mesh`), and leaves alone an axis that
  does not divide or that a surrounding `shard_map` has split already.

  Args:
    x: An array.
    *names: A key of `ACTIVATIONS` or None (replicated) for each axis.

  Raises:
    ValueError: If there are not as many names as axes.
  """
  if len(names) != x.ndim:
    raise ValueError(
      f'{len(names)} names {names} given for an array of shape {x.shape}.'
    )
  sizes = auto_axes()
  if math.prod(sizes.values()) == 1:
    return x
  spec = activation_spec(names, sizes)
  fits = [
    axis if size % num_devices(axis, sizes) == 0 else None
    for axis, size in zip(spec, x.shape, strict=True)
  ]
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*fits))


def auto_axes() -> dict[str, int]:
  """Axes of the current mesh that the compiler splits arrays over, and sizes.

  Empty without a mesh (`jax.set_mesh`); a surrounding `shard_map` takes its
  axes out.
  """
  mesh = jax.sharding.get_abstract_mesh()
  types = zip(mesh.axis_names, mesh.axis_types, strict=True)
  return {axis: mesh.shape[axis] for axis, t in types if t == AxisType.Auto}


def num_devices(axis: Any, sizes: Mapping[str, int]) -> int:
  """Devices that an entry of a `PartitionSpec` splits an axis over."""
  axes = (axis,) if isinstance(axis, str) else axis or ()
  return math.prod(sizes[a] for a in axes)

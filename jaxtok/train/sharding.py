# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The mesh of devices, and how a training state lies on it.

Parameters follow the rules of `jaxtok.partition`; optimizer state and averaged
parameters lie like the parameters they belong to; the batch is split by rows.
One device, eight virtual ones and a pod run the same code.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtok import partition
from jaxtok.config import configclass


@configclass
class Config:
  """Number of devices along each axis of the mesh; -1 means "the rest"."""

  data: int = -1  # Rows of the batch; also splits parameters (FSDP).
  model: int = 1  # Tensor parallelism: heads, MLP, vocabulary.
  seq: int = 1  # Positions of a row, for ring attention.
  replica: int = 1  # Copies of the parameters, across slow networks.

  def __post_init__(self):
    for name, size in self.axes().items():
      if size != -1 and size < 1:
        raise ValueError(
          f'mesh.{name} must be >= 1, or -1 for "the rest", got {size}.'
        )
    if list(self.axes().values()).count(-1) > 1:
      raise ValueError(
        f'mesh has -1 ("the rest") twice in {self.axes()}; give one a number.'
      )

  def axes(self) -> dict[str, int]:
    """Axis names, slowest network first, to sizes."""
    return {
      'replica': self.replica,
      'data': self.data,
      'seq': self.seq,
      'model': self.model,
    }

  def resolve(self, num_devices: int) -> dict[str, int]:
    """Sizes with -1 filled in; 'replica' and 'seq' only if they are used.

    Raises:
      ValueError: If the sizes do not fit the number of devices.
    """
    axes = self.axes()
    fixed = math.prod(size for size in axes.values() if size > 0)
    given = ', '.join(f'mesh.{k}={v}' for k, v in axes.items() if v > 1)
    if fixed > num_devices or (-1 in axes.values() and num_devices % fixed):
      raise ValueError(
        f'{given} needs a multiple of {fixed} devices, but there are '
        f'{num_devices}. Make the product divide {num_devices}.'
      )
    rest = num_devices // fixed
    axes = {name: rest if n == -1 else n for name, n in axes.items()}
    keep = lambda name: name in ('data', 'model') or axes[name] > 1
    return {name: n for name, n in axes.items() if keep(name)}

  def make(self, devices: Sequence[Any] | None = None) -> Mesh:
    """Builds the mesh; a mesh smaller than the machine uses its first devices.

    Args:
      devices: All of `jax.devices()` by default.

    Raises:
      ValueError: If the sizes do not fit, or leave out devices of another
        process.
    """
    devices = list(jax.devices() if devices is None else devices)
    axes = self.resolve(len(devices))
    used = math.prod(axes.values())
    if used < len(devices) and len({d.process_index for d in devices}) > 1:
      raise ValueError(
        f'the mesh {axes} uses {used} of {len(devices)} devices, which leaves '
        'processes without work. Set mesh.data=-1.'
      )
    if len({getattr(d, 'slice_index', 0) for d in devices}) > 1:
      raise ValueError(
        f'the mesh {axes} spans several TPU slices, which is not supported. '
        'Run one job per slice.'
      )
    # `jax.make_mesh` would not split a physical axis of a v6e or v5p slice,
    # e.g. for data=64 model=4 on 16x16 chips.
    grid = mesh_utils.create_device_mesh(
      tuple(axes.values()), devices[:used], allow_split_physical_axes=True
    )
    return Mesh(grid, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def parameter_axes(state: Any) -> dict:
  """The `axes` metadata of each variable, as a tree like the pure dict.

  Raises:
    ValueError: If a parameter has another number of axes than names.
  """

  def names(path, variable):
    axes = variable.get_metadata().get('axes')
    rank = len(variable.get_value().shape)
    if axes is not None and len(axes) != rank:
      raise ValueError(
        f'parameter {".".join(map(str, path))} of shape '
        f'{variable.get_value().shape} has axes={axes}; name each axis.'
      )
    return axes

  return nnx.to_pure_dict(nnx.map_state(names, state))


def shardings(params: Any, axes: Any, mesh: Mesh) -> Any:
  """A `NamedSharding` for each parameter.

  Args:
    params: Tree of arrays or shapes.
    axes: Tree of the same structure with names or None; `parameter_axes`.
    mesh: The devices.
  """
  leaves, treedef = jax.tree.flatten(params)
  specs = [
    partition.parameter_spec(names, leaf.shape, mesh.shape)
    for leaf, names in zip(leaves, treedef.flatten_up_to(axes), strict=True)
  ]
  return jax.tree.unflatten(treedef, [NamedSharding(mesh, s) for s in specs])


def optimizer_shardings(
  optimizer: optax.GradientTransformation,
  opt_state: Any,
  param_shardings: Any,
  mesh: Mesh,
) -> Any:
  """Moments lie like their parameters; counts are on all devices.

  Args:
    optimizer: What made `opt_state`.
    opt_state: The optimizer's state, or its shapes.
    param_shardings: From `shardings`.
    mesh: The devices.
  """
  replicated = NamedSharding(mesh, PartitionSpec())
  return optax.tree_map_params(
    optimizer,
    lambda _, sharding: sharding,
    opt_state,
    param_shardings,
    transform_non_params=lambda _: replicated,
  )


def batch_sharding(mesh: Mesh, rank: int) -> NamedSharding:
  """Rows over 'replica' and 'data', positions over 'seq'."""
  names = ('batch', 'length')[:rank] + (None,) * (rank - 2)
  return NamedSharding(mesh, partition.activation_spec(names, mesh.shape))


def batch_shapes(
  row: Mapping[str, Any], batch_size: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and shardings of a whole batch, from one of its rows."""
  return {
    key: jax.ShapeDtypeStruct(
      (batch_size, *value.shape),
      value.dtype,
      sharding=batch_sharding(mesh, value.ndim + 1),
    )
    for key, value in row.items()
  }


def check_batch_size(
  batch_size: int, mesh_shape: Mapping[str, int], num_microbatches: int = 1
) -> None:
  """Checks that rows can be dealt evenly.

  Raises:
    ValueError: With the nearest numbers that would work.
  """
  data = mesh_shape.get('data', 1) * mesh_shape.get('replica', 1)
  parts = data * num_microbatches
  if batch_size > 0 and batch_size % parts == 0:
    return
  bigger = max(math.ceil(batch_size / parts), 1) * parts
  if num_microbatches > 1:
    raise ValueError(
      f'batch_size={batch_size} must divide by num_microbatches times the '
      f'data axis ({num_microbatches} x {data} devices). Use {bigger} or '
      'change num_microbatches.'
    )
  smaller = math.gcd(max(batch_size, 1), data)
  raise ValueError(
    f'batch_size={batch_size} must divide by the data axis ({data} devices). '
    f'Use {bigger} or set mesh.data={smaller}.'
  )


def describe(mesh: Mesh) -> str:
  """E.g. '8 x cpu, mesh data=4 model=2'."""
  device = mesh.devices.flat[0]
  axes = ' '.join(f'{name}={size}' for name, size in mesh.shape.items())
  return f'{mesh.size} x {device.device_kind}, mesh {axes}'


def unsharded(params: Any, axes: Any, mesh: Mesh) -> list[str]:
  """Parameter axes that have a rule but do not divide by their mesh axis."""
  found = []
  flat, treedef = jax.tree.flatten_with_path(params)
  for (path, leaf), names in zip(
    flat, treedef.flatten_up_to(axes), strict=True
  ):
    for name, size in zip(names or (), np.shape(leaf), strict=False):
      devices = mesh.shape.get(partition.PARAMETERS.get(name) or '', 1)
      if len(names) > 1 and size % devices:
        where = jax.tree_util.keystr(path, simple=True, separator='.')
        found.append(f'{where}: {name}={size} over {devices} devices')
  return found

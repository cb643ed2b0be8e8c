# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which tensor of a foreign checkpoint holds which parameters, both ways.

A family of models is a list of `Tensor`s, one line for each name in the
checkpoint, and two functions between config.json and our config. Seen as a
matrix [inputs, outputs], a tensor holds one parameter or several side by side
(GPT-2 stores queries, keys and values in one); `nn.Linear` of PyTorch stores
the transpose. That is all that the families differ in.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from jaxtok import partition
from jaxtok.models.interop import safetensors

# (path of a parameter, its axes' names, its shape) -> where it goes.
Shardings = Callable[[str, Any, tuple[int, ...]], jax.sharding.Sharding]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of a checkpoint.

  Attributes:
    name: Its name there.
    params: Dotted paths of our parameters in it, side by side along the
      outputs.
    num_in: How many leading axes of our parameters are inputs; 0 for vectors.
    is_transposed: Whether it is stored as [outputs, inputs].
    is_interleaved: Whether the last axis of our parameters is a head whose
      neighbouring dimensions are rotated together there; see `nn.rope`.
  """

  name: str
  params: tuple[str, ...]
  num_in: int = 0
  is_transposed: bool = False
  is_interleaved: bool = False

  def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Its shape in the checkpoint, given the shapes of our parameters."""
    inputs = shapes[self.params[0]][: self.num_in]
    outputs = sum(self._widths(shapes))
    if not self.num_in:
      return (outputs,)
    matrix = (math.prod(inputs), outputs)
    return matrix[::-1] if self.is_transposed else matrix

  def _widths(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    return [math.prod(shapes[p][self.num_in :]) for p in self.params]

  def split(
    self, stored: np.ndarray, shapes: Mapping[str, tuple[int, ...]]
  ) -> dict[str, np.ndarray]:
    """Our parameters as views of the stored tensor."""
    matrix = stored.T if self.is_transposed else stored
    ends = np.cumsum(self._widths(shapes))
    parts = np.split(matrix, ends[:-1], axis=-1)
    params = {
      path: part.reshape(shapes[path])
      for path, part in zip(self.params, parts, strict=True)
    }
    if not self.is_interleaved:
      return params
    halves = lambda x: (x[..., ::2], x[..., 1::2])
    return {k: np.concatenate(halves(x), axis=-1) for k, x in params.items()}

  def join(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tensor to store; the inverse of `split`."""
    if self.is_interleaved:
      raise NotImplementedError('interleaved tensors are read, not written.')
    parts = []
    for path in self.params:
      shape = params[path].shape
      inputs = (math.prod(shape[: self.num_in]),) if self.num_in else ()
      parts.append(np.asarray(params[path]).reshape(*inputs, -1))
    matrix = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return matrix.T if self.is_transposed else matrix


def linear(name: str, *params: str, num_in: int = 1) -> Tensor:
  """The weight of a PyTorch `nn.Linear`, stored as [outputs, inputs]."""
  return Tensor(name, params, num_in, is_transposed=True)


def matrix(name: str, *params: str, num_in: int = 1) -> Tensor:
  """A matrix stored as [inputs, outputs], or a table [rows, width]."""
  return Tensor(name, params, num_in)


def interleaved(tensor: Tensor) -> Tensor:
  """The same tensor, its heads in the order of other rotations."""
  return dataclasses.replace(tensor, is_interleaved=True)


def vector(name: str, *params: str) -> Tensor:
  """A bias or the scale of a norm."""
  return Tensor(name, params)


@dataclasses.dataclass(frozen=True)
class Family:
  """How checkpoints with one `model_type` are read and written.

  Attributes:
    model_type: In config.json.
    prefix: Start of most names; checkpoints of the bare model lack it.
    read_config: (config.json, names in the checkpoint) -> our config. Raises
      `Unsupported` for settings that we do not have.
    write_config: Our config -> config.json, as well as it can be said there;
      `save` refuses configs that do not come back unchanged.
    tensors: Our config -> all tensors.
    ignored: Regular expressions of names that hold nothing we need.
  """

  model_type: str
  prefix: str
  read_config: Callable[[dict[str, Any], Collection[str]], Any]
  write_config: Callable[[Any], dict[str, Any]]
  tensors: Callable[[Any], list[Tensor]]
  ignored: tuple[str, ...] = ()


class Unsupported(ValueError):
  """A checkpoint asks for something that our models cannot do."""


def require(raw: Mapping[str, Any], key: str, *allowed: Any) -> None:
  """Raises `Unsupported` unless config.json's `key` is absent or allowed."""
  if key in raw and raw[key] not in allowed:
    raise Unsupported(
      f'config.json has {key}={raw[key]!r}; only '
      f'{" or ".join(map(repr, allowed))} can be loaded.'
    )


def by_rules(mesh: Mesh) -> Shardings:
  """Shardings after the rules of `jaxtok.partition`, for `load`."""

  def sharding(path, axes, shape):
    del path
    return NamedSharding(
      mesh, partition.parameter_spec(axes, shape, mesh.shape)
    )

  return sharding


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
  """Dotted path -> shape."""
  return {
    _dotted(path): tuple(variable.get_value().shape)
    for path, variable in nnx.to_flat_state(params)
  }


def _dotted(path: Sequence[Any]) -> str:
  return '.'.join(map(str, path))


def without_prefix(
  tensors: Iterable[Tensor], prefix: str, names: Collection[str]
) -> list[Tensor]:
  """Drops a prefix from the expected names if no name in a file has it."""
  tensors = list(tensors)
  if not prefix or any(name.startswith(prefix) for name in names):
    return tensors
  return [
    dataclasses.replace(t, name=t.name.removeprefix(prefix)) for t in tensors
  ]


def check_names(
  reader: safetensors.Reader,
  tensors: Sequence[Tensor],
  ignored: Iterable[str] = (),
) -> None:
  """Checks that each tensor of a checkpoint is used or known to be useless.

  Raises:
    safetensors.FormatError: If there are others, i.e. the checkpoint is of
      another architecture than config.json says.
  """
  used = {t.name for t in tensors}
  pattern = re.compile('|'.join(f'(?:{p})' for p in ignored) or '(?!)')
  others = [n for n in reader if n not in used and not pattern.search(n)]
  if others:
    raise safetensors.FormatError(
      f'{reader.path} holds {len(others)} tensors that a model of its '
      f'config.json does not have: {safetensors.some(others)}. Is config.json '
      'of another checkpoint, or was an adapter saved with it?'
    )


def read(
  reader: safetensors.Reader,
  tensors: Iterable[Tensor],
  params: Any,
  *,
  dtype: Any = None,
  shardings: Shardings | None = None,
) -> Any:
  """Fills parameters from a checkpoint, one tensor after the other.

  Args:
    reader: The checkpoint.
    tensors: What to read. Parameters that none of them mentions stay.
    params: Parameters or their shapes (`nnx.eval_shape`).
    dtype: Type of the new parameters; None keeps the checkpoint's.
    shardings: Where each parameter goes; None means the default device.

  Returns:
    A state like `params`.

  Raises:
    safetensors.MissingError: If a tensor is missing.
    safetensors.FormatError: If a tensor has another shape.
  """
  flat = {_dotted(path): (path, v) for path, v in nnx.to_flat_state(params)}
  shapes = shapes_of(params)
  for tensor in tensors:
    for path, part in tensor.split(
      _stored(reader, tensor, shapes), shapes
    ).items():
      key, variable = flat[path]
      axes = variable.get_metadata().get('axes')
      where = shardings and shardings(path, axes, part.shape)
      value = safetensors.place(part, dtype, where)
      flat[path] = key, variable.replace(value)
  return nnx.from_flat_state(dict(flat.values()))


def _stored(
  reader: safetensors.Reader, tensor: Tensor, shapes: Mapping[str, tuple]
) -> np.ndarray:
  want = tensor.shape(shapes)
  try:
    stored = reader[tensor.name]
  except safetensors.MissingError as e:
    raise safetensors.MissingError(
      f'{e} Its shape should be {want}, for the parameter '
      f'{", ".join(tensor.params)}.'
    ) from e
  if stored.shape != want:
    raise safetensors.FormatError(
      f'{reader.path}: {tensor.name} has shape {stored.shape}, but after '
      f'config.json it should be {want}, for the parameter '
      f'{", ".join(tensor.params)}.'
    )
  return stored


def pending(
  tensors: Iterable[Tensor], params: Any, vocab_size: int, dtype: Any
) -> dict[str, safetensors.Pending]:
  """Tensors to be written, each fetched from its devices when its turn comes.

  Args:
    tensors: What to write.
    params: All parameters of a model.
    vocab_size: Rows of the vocabulary; padding beyond them is left out.
    dtype: Type in the file.

  Raises:
    ValueError: If a parameter is in no tensor, or lies on other processes.
  """
  tensors, values = list(tensors), {}
  for path, variable in nnx.to_flat_state(params):
    axes = variable.get_metadata().get('axes') or ()
    cut = tuple(slice(vocab_size if a == 'vocab' else None) for a in axes)
    values[_dotted(path)] = variable.get_value(), cut
  if lost := sorted(set(values) - {p for t in tensors for p in t.params}):
    raise ValueError(
      f'the checkpoint has no place for {safetensors.some(lost)}. Save such a '
      'model as a run instead.'
    )
  if not all(value.is_fully_addressable for value, _ in values.values()):
    raise ValueError(
      'parameters are spread over several processes; gather them first, with '
      'jax.experimental.multihost_utils.process_allgather.'
    )
  shapes = {
    path: jax.eval_shape(lambda x, cut=cut: x[cut], value).shape
    for path, (value, cut) in values.items()
  }

  def entry(tensor: Tensor) -> safetensors.Pending:
    part = lambda value, cut: np.asarray(value)[cut]
    fetch = lambda: tensor.join({p: part(*values[p]) for p in tensor.params})
    return safetensors.Pending(tensor.shape(shapes), np.dtype(dtype), fetch)

  return {tensor.name: entry(tensor) for tensor in tensors}

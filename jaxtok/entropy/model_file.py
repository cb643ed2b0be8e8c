# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models in npz files: integers, what they are, and their SHA-256."""

import io
from typing import Any

import numpy as np
from etils import epath

from jaxtok.entropy import integer_model, quantize, table
from jaxtok.entropy.integer_model import IntByteLM
from jaxtok.entropy.table import TableModel

Model = IntByteLM | TableModel


class ModelFileError(ValueError):
  """The file is no model, or a damaged one."""


def save_model(model: Model, path: Any) -> None:
  """Writes a model to a path or open file; `load_model` reads it back."""
  if isinstance(model, TableModel):
    freqs_rv = np.diff(np.asarray(model.cdf_rv), axis=1).astype(np.uint16)
    kind, arrays = table.KIND, {'freqs_rv': freqs_rv, 'order': model.order}
  else:
    kind, arrays = integer_model.KIND, integer_model.check(model).arrays()
  write_arrays(path, kind, model.fingerprint(), arrays)


def load_model(path: Any) -> Model:
  """Reads a model that `save_model` wrote.

  Raises:
    FileNotFoundError: If there is no such file.
    ModelFileError: If it is something else or was changed.
  """
  build = {table.KIND: _table, integer_model.KIND: integer_model.from_arrays}
  arrays = read_arrays(path)
  kind = str(arrays.get('kind', 'none'))
  if kind not in build:
    raise ModelFileError(
      f'{path} is of kind {kind!r}; models are of kind {" or ".join(build)}.'
    )
  try:
    model = build[kind](arrays)
  except (KeyError, ValueError) as e:
    raise ModelFileError(f'{path} is damaged: {e}.') from e
  check_fingerprint(path, arrays, model.fingerprint())
  return model


def write_arrays(
  path: Any, kind: str, fingerprint: str, arrays: dict[str, Any]
) -> None:
  """Writes integers, what they are, and their SHA-256 as npz."""
  arrays = {name: np.asarray(value) for name, value in arrays.items()}
  arrays |= {'kind': np.array(kind), 'fingerprint': np.array(fingerprint)}
  if hasattr(path, 'write'):
    np.savez_compressed(path, **arrays)
    return
  with epath.Path(path).open('wb') as file:
    np.savez_compressed(file, **arrays)


def read_arrays(path: Any) -> dict[str, np.ndarray]:
  """Arrays of an npz file by name.

  Raises:
    FileNotFoundError: If there is no such file.
    ModelFileError: If it is no npz file.
  """
  path = epath.Path(path)
  if not path.exists() or path.is_dir():
    raise FileNotFoundError(f'there is no model file {path}.')
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
      return dict(file)
  except Exception as e:  # Damaged zip files raise errors of many kinds.
    raise ModelFileError(f'{path} is not a model file of jaxtok.') from e


def check_fingerprint(
  path: Any, arrays: dict[str, np.ndarray], found: str
) -> None:
  """Raises ModelFileError unless the SHA-256 is the one in the file."""
  if found != str(arrays.get('fingerprint')):
    raise ModelFileError(f'{path} is damaged: its SHA-256 does not match.')


def _table(arrays: dict[str, np.ndarray]) -> TableModel:
  freqs_rv = arrays['freqs_rv'].astype(np.uint32)
  cdf_rv = np.pad(
    np.cumsum(freqs_rv, axis=1, dtype=np.uint32), ((0, 0), (1, 0))
  )
  quantize.check_cdf(cdf_rv, 'freqs_rv')
  return TableModel(cdf_rv, int(arrays['order']))

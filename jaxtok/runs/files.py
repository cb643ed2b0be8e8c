# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old or the new version, never half of one."""

import io
import json
import os
import zipfile
import zlib
from typing import Any

import numpy as np
from etils import epath

PathLike = str | os.PathLike


def is_local(path: PathLike) -> bool:
  """Whether a path is on this machine's file system (not `gs://...`)."""
  return '://' not in os.fspath(path)


def write_atomic(path: PathLike, content: str | bytes) -> None:
  """Writes a file through a temporary one beside it, and makes its folder.

  Object stores show an object only when it is complete, so only local files
  take the detour.
  """
  path = epath.Path(path)
  data = content.encode() if isinstance(content, str) else content
  path.parent.mkdir(parents=True, exist_ok=True)
  if not is_local(path):
    path.write_bytes(data)
    return
  temporary = f'{os.fspath(path)}.{os.getpid()}.tmp'
  try:
    with open(temporary, 'wb') as f:
      f.write(data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  finally:
    if os.path.exists(temporary):
      os.remove(temporary)


def write_json(path: PathLike, value: Any) -> None:
  """Writes indented JSON that ends with a newline, atomically."""
  write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def read_json(path: PathLike) -> Any:
  """Reads JSON.

  Raises:
    ValueError: If the file is not JSON; the message names it.
  """
  path = epath.Path(path)
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as e:
    raise ValueError(
      f'{os.fspath(path)} is not valid JSON ({e}). It was written by another '
      'program or edited by hand; restore it or start a new workdir.'
    ) from e


def write_npz(path: PathLike, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays to an .npz file, compressed and atomically."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  write_atomic(path, buffer.getvalue())


def read_npz(path: PathLike, mend: str) -> dict[str, np.ndarray]:
  """Reads all arrays of an .npz file.

  Args:
    path: Of the file.
    mend: What to do if it is damaged, a sentence for the error.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is empty, cut short, has a wrong byte or is something
      else; the message names it.
  """
  data = io.BytesIO(epath.Path(path).read_bytes())
  try:
    # np.load would take files of other kinds, too.
    with zipfile.ZipFile(data), np.load(data, allow_pickle=False) as stored:
      arrays = {key: stored[key] for key in stored.files}
  except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError):
    arrays = {}
  if not arrays:
    raise ValueError(
      f'{os.fspath(path)} is empty or damaged: it is no whole .npz file. {mend}'
    )
  return arrays

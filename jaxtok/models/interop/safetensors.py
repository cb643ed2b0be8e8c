# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes safetensors checkpoints one tensor at a time.

A file is: the header's length (8 bytes, little endian), the header (JSON:
name -> dtype, shape, byte range), the bytes. A sharded checkpoint is a folder
of such files with `model.safetensors.index.json` naming each tensor's file.

Files are memory-mapped, so what is held in memory is the tensor (or the device
shards of it) being converted, never the model. The format is read here rather
than through the library because bfloat16, slices, and messages about broken
files all need the header anyway; tests compare with the library.
"""

import contextlib
import dataclasses
import difflib
import json
import math
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import jax
import ml_dtypes
import numpy as np

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

_DTYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
  'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
  'I64': np.dtype(np.int64),
  'I32': np.dtype(np.int32),
  'I16': np.dtype(np.int16),
  'I8': np.dtype(np.int8),
  'U64': np.dtype(np.uint64),
  'U32': np.dtype(np.uint32),
  'U16': np.dtype(np.uint16),
  'U8': np.dtype(np.uint8),
  'BOOL': np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class FormatError(ValueError):
  """A file or folder is not a whole, well-formed checkpoint."""


class MissingError(KeyError):
  """A checkpoint lacks a tensor."""

  def __str__(self) -> str:
    return self.args[0]  # KeyError would show the message in quotes.


class Reader(Mapping):
  """Name -> read-only array of a checkpoint; nothing is copied.

  Args:
    path: A `.safetensors` file, or a folder with `model.safetensors` or with
      shards and their index.

  Raises:
    FileNotFoundError: If there is no checkpoint.
    FormatError: If a file is damaged or a shard is missing.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = os.fspath(path)
    self._tensors: dict[str, np.ndarray] = {}
    for file, wanted in _files(self.path).items():
      found = _map_file(file)
      if wanted is not None and (absent := sorted(set(wanted) - set(found))):
        raise FormatError(
          f'{file} lacks {some(absent)}, which {INDEX} says it holds. The '
          'index and the shards are of different checkpoints.'
        )
      self._tensors |= found

  def __getitem__(self, name: str) -> np.ndarray:
    if name not in self._tensors:
      near = difflib.get_close_matches(name, self._tensors, n=3, cutoff=0.5)
      raise MissingError(
        f'{self.path} has no tensor {name!r}. '
        + (f'Nearest: {", ".join(near)}.' if near else f'It has {some(self)}.')
      )
    return self._tensors[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._tensors)

  def __len__(self) -> int:
    return len(self._tensors)


def some(names: Iterable[str], limit: int = 5) -> str:
  """Joins a few names for a message, and counts the rest."""
  names = list(names)
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return ', '.join(names[:limit]) + more


def _files(path: str) -> dict[str, list[str] | None]:
  """Files of a checkpoint -> names that its index puts there."""
  if os.path.isfile(path):
    return {path: None}
  if not os.path.isdir(path):
    raise FileNotFoundError(
      f'{path} does not exist. Give a .safetensors file or the folder that '
      f'holds {SINGLE} or {INDEX}.'
    )
  index = os.path.join(path, INDEX)
  if os.path.exists(index):
    return _read_index(index)
  single = os.path.join(path, SINGLE)
  if os.path.exists(single):
    return {single: None}
  raise FileNotFoundError(
    f'{path} holds neither {SINGLE} nor {INDEX}; it holds '
    f'{some(sorted(os.listdir(path)), 8) or "nothing"}. Pickled weights '
    '(.bin, .pt) are not read: save them as safetensors first, with '
    'transformers save_pretrained().'
  )


def _read_index(index: str) -> dict[str, list[str] | None]:
  try:
    with open(index, encoding='utf-8') as f:
      places = json.load(f)['weight_map']
  except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as e:
    raise FormatError(
      f'{index} is not an index: {type(e).__name__} {e}. It must be JSON with '
      '"weight_map": {tensor name: file}.'
    ) from e
  files: dict[str, list[str] | None] = {}
  for name, file in places.items():
    if os.path.basename(file) != file:
      raise FormatError(f'{index} puts {name} outside its folder: {file!r}.')
    full = os.path.join(os.path.dirname(index), file)
    files[full] = [*(files.get(full) or []), name]
  if absent := [f for f in files if not os.path.exists(f)]:
    raise FormatError(
      f'{len(absent)} of {len(files)} shards named in {index} are missing: '
      f'{some(map(os.path.basename, absent))}. Download them again.'
    )
  return files


def _map_file(file: str) -> dict[str, np.ndarray]:
  """Maps a file into memory and cuts it into arrays."""
  size = os.path.getsize(file)
  with open(file, 'rb') as f:
    header, start = _read_header(f, file, size)
    data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
  header.pop('__metadata__', None)
  tensors, end = {}, 0
  for name, entry in header.items():
    dtype, shape, (begin, stop) = _entry(file, name, entry)
    end = max(end, stop)
    if start + stop > size:
      continue  # Reported below, with the size that the file should have.
    count = math.prod(shape)
    tensors[name] = np.frombuffer(data, dtype, count, start + begin).reshape(
      shape
    )
  if start + end != size:
    what = 'truncated' if size < start + end else 'followed by other bytes'
    raise FormatError(
      f'{file} is {what}: it has {size:,} bytes, its header describes '
      f'{start + end:,}. Download or save it again.'
    )
  return tensors


def _read_header(f: BinaryIO, file: str, size: int) -> tuple[dict, int]:
  prefix = f.read(8)
  length = struct.unpack('<Q', prefix)[0] if len(prefix) == 8 else size
  if 8 + length > size:
    raise FormatError(
      f'{file} is truncated or not a safetensors file: {size:,} bytes cannot '
      'hold the header.'
    )
  try:
    header = json.loads(f.read(length))
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise FormatError(f'{file} has a damaged header: {e}.') from e
  if not isinstance(header, dict):
    raise FormatError(f'{file} has a damaged header: it is no JSON object.')
  return header, 8 + length


def _entry(
  file: str, name: str, entry: Any
) -> tuple[np.dtype, tuple[int, ...], tuple[int, int]]:
  try:
    code, shape = entry['dtype'], tuple(entry['shape'])
    begin, stop = entry['data_offsets']
    is_sound = 0 <= begin <= stop and all(n >= 0 for n in shape)
  except (KeyError, TypeError, ValueError):
    code, shape, begin, stop, is_sound = None, (), 0, 0, False
  if is_sound and code not in _DTYPES:
    raise FormatError(
      f'{file}: {name} has dtype {code!r}, which is not one of '
      f'{", ".join(_DTYPES)}.'
    )
  if not is_sound or stop - begin != math.prod(shape) * _DTYPES[code].itemsize:
    raise FormatError(
      f'{file}: the header entry of {name} is damaged: {entry}.'
    )
  return _DTYPES[code], shape, (begin, stop)


def place(
  view: np.ndarray, dtype: Any = None, sharding: Any = None
) -> jax.Array:
  """Copies an array, or each device's part of it, to devices.

  Args:
    view: Usually a view of a memory-mapped file.
    dtype: What to convert to; None keeps it.
    sharding: A `jax.sharding.Sharding`; None means the default device.
  """

  def part(index) -> np.ndarray:
    # A copy, so that no array aliases the file.
    return np.array(view[index], dtype=dtype or view.dtype, order='C')

  if sharding is None:
    return jax.device_put(part(...))
  return jax.make_array_from_callback(view.shape, sharding, part)


@dataclasses.dataclass(frozen=True)
class Pending:
  """A tensor to be written: its shape and dtype, and how to get it."""

  shape: tuple[int, ...]
  dtype: Any
  get: Callable[[], np.ndarray]

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write(
  folder: str | os.PathLike,
  tensors: Mapping[str, Pending],
  *,
  max_shard_bytes: int = 5 * 10**9,
) -> None:
  """Writes a checkpoint into a folder, fetching one tensor at a time.

  Args:
    folder: An existing folder; see `new_folder` for an atomic one.
    tensors: Name to tensor, written in this order.
    max_shard_bytes: A file gets no more than this, unless a single tensor has
      more. One file is called `model.safetensors`; several get an index.
  """
  if max_shard_bytes < 1:
    raise ValueError(f'max_shard_bytes={max_shard_bytes} must be >= 1.')
  shards: list[dict[str, Pending]] = [{}]
  for name, tensor in tensors.items():
    used = sum(t.nbytes for t in shards[-1].values())
    if shards[-1] and used + tensor.nbytes > max_shard_bytes:
      shards.append({})
    shards[-1][name] = tensor
  if len(shards) == 1:
    _write_file(os.path.join(folder, SINGLE), shards[0])
    return
  places = {}
  for i, shard in enumerate(shards, 1):
    file = f'model-{i:05d}-of-{len(shards):05d}.safetensors'
    _write_file(os.path.join(folder, file), shard)
    places |= dict.fromkeys(shard, file)
  total = sum(t.nbytes for t in tensors.values())
  index = {'metadata': {'total_size': total}, 'weight_map': places}
  with open(os.path.join(folder, INDEX), 'w', encoding='utf-8') as f:
    json.dump(index, f, indent=2)


def _write_file(file: str, tensors: Mapping[str, Pending]) -> None:
  # Other programs look for the format that the metadata names.
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  end = 0
  for name, tensor in tensors.items():
    header[name] = {
      'dtype': _CODES[np.dtype(tensor.dtype)],
      'shape': list(tensor.shape),
      'data_offsets': [end, end + tensor.nbytes],
    }
    end += tensor.nbytes
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # Aligns the data.
  with open(file, 'wb') as f:
    f.write(struct.pack('<Q', len(text)) + text)
    for name, tensor in tensors.items():
      array = np.asarray(tensor.get())
      if array.shape != tuple(tensor.shape):
        raise ValueError(
          f'{name} has shape {array.shape} instead of {tensor.shape}.'
        )
      f.write(np.ascontiguousarray(array, tensor.dtype).reshape(-1).view('u1'))
    f.flush()
    os.fsync(f.fileno())


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[str]:
  """Yields a temporary folder that becomes `path` if all goes well.

  Raises:
    FileExistsError: If `path` exists and is not an empty folder.
  """
  path = os.path.abspath(path)
  if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
    raise FileExistsError(
      f'{path} exists already. Choose a new folder, or delete it first.'
    )
  temporary = f'{path}.incomplete-{os.getpid()}'
  os.makedirs(temporary)
  try:
    yield temporary
    os.rename(temporary, path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise

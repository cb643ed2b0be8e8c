# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The texts that coders are measured on, from the folder JAXTOK_DATA names."""

import os
import sysconfig
from collections.abc import Iterator

import jaxlib

from experiments.compressed_text.configs import m1
from jaxtok.data import archives, files, splits
from jaxtok.data import text as text_lib

_PART = 1 << 20  # Bytes of a document of `mixed`.
_ENWIK8 = 'english_text/enwik8_head.xml.xz'
_TEXT8 = 'english_text/text8_head.txt.xz'


def folder() -> str:
  """The folder of data sets.

  Raises:
    ValueError: If JAXTOK_DATA is not set to a folder.
  """
  path = os.environ.get('JAXTOK_DATA', '')
  if not os.path.isdir(path):
    raise ValueError(
      f'JAXTOK_DATA={path!r} must be the folder of data sets. Set it, e.g. '
      'JAXTOK_DATA=data python -m ...'
    )
  return path


def _read(name: str) -> bytes:
  return b''.join(archives.read(os.path.join(folder(), name)))


def novel(split: str = 'test') -> bytes:
  """A whole novel that M1 was not trained on."""
  source = text_lib.Files(path=os.path.join(folder(), m1.NOVELS))
  return b''.join(text_lib.Config(source=source).documents(split))


def held_out() -> dict[str, bytes]:
  """English that M1 was not trained on, by name."""
  return {
    'enwik8_head, test': _read(_ENWIK8)[3_600_000:],
    'text8_head, test': _read(_TEXT8)[-110_000:],
    'novel': novel(),
  }


def prose(num_bytes: int) -> bytes:
  """All novels one after the other, those of the training split included."""
  path = os.path.join(folder(), m1.NOVELS)
  parts = (b''.join(archives.read(path, x)) for x in archives.members(path))
  return b''.join(parts)[:num_bytes]


def mixed(num_bytes: int) -> Iterator[tuple[str, bytes]]:
  """Text, arrays and machine code, a MB from each file in turn.

  From the data sets, unpacked, and from the compiled modules of Python and
  JAX. The order is fixed for a fixed set of files.

  Args:
    num_bytes: When to stop; the last document is cut.

  Yields:
    Name and bytes of each document.
  """
  modules = [sysconfig.get_path('stdlib'), os.path.dirname(jaxlib.__file__)]
  roots = [folder(), *(os.path.join(x, '**/*.so') for x in modules)]
  readers = [_parts(file) for root in roots for file in _files(root)]
  while readers and num_bytes > 0:
    still = []
    for reader in readers:
      found = next(reader, None)
      if found is None or num_bytes <= 0:
        continue
      name, data = found
      yield name, data[:num_bytes]
      num_bytes -= len(data)
      still.append(reader)
    readers = still


def _files(root: str) -> list[files.File]:
  """Files of a folder or glob, in an order that mixes kinds."""
  return sorted(files.find(root), key=lambda x: splits.name_hash(x.name))


def _parts(file: files.File) -> Iterator[tuple[str, bytes]]:
  """A file in parts of at most a MB, with names."""
  buffer, start = bytearray(), 0
  for data in archives.read(file.path, file.member):
    buffer += data
    while len(buffer) >= _PART:
      yield f'{file.name}:{start}', bytes(buffer[:_PART])
      del buffer[:_PART]
      start += _PART
  if buffer:
    yield f'{file.name}:{start}', bytes(buffer)

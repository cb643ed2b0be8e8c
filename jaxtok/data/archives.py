# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens .xz, .gz, .bz2 and .zip files as plain bytes.

Compression is recognised by the end of the name. A .zip file is a folder: its
members are documents of their own. Archives inside archives are not opened.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator

_OPENERS = {'.xz': lzma.open, '.gz': gzip.open, '.bz2': bz2.open}
_REFUSED = (
  *('.tar', '.tgz', '.txz', '.tar.xz', '.tar.gz', '.tar.bz2', '.zst', '.7z'),
  *('.rar', '.parquet'),
)
_PART_BYTES = 1 << 20
# What truncated or damaged archives raise while they are read.
_ERRORS = (
  *(OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile),
  *(NotImplementedError, RuntimeError),
)


def suffix(path: str) -> str:
  """'.xz', '.gz', '.bz2' or '.zip', or '' for a file that is read as it is."""
  end = os.path.splitext(path)[1].lower()
  return end if end in _OPENERS or end == '.zip' else ''


def check_readable(path: str) -> None:
  """Raises ValueError for archives that would only be read as noise."""
  for end in _REFUSED:
    if path.lower().endswith(end):
      raise ValueError(
        f'{path} is a {end} file, which is not opened. Unpack it to a folder, '
        'pack it as .zip, .xz, .gz or .bz2, or leave it out by a glob.'
      )


def _unreadable(path: str, error: Exception) -> ValueError:
  reason = str(error) or type(error).__name__
  return ValueError(
    f'{path} cannot be unpacked: {reason}. It may be truncated, damaged or '
    'encrypted; get it again or unpack it by hand.'
  )


def members(path: str) -> list[str]:
  """Names of the files in a .zip archive, sorted; without hidden ones.

  Raises:
    ValueError: If the archive cannot be read.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      names = [i.filename for i in archive.infolist() if not i.is_dir()]
  except _ERRORS as e:
    raise _unreadable(path, e) from e
  hidden = lambda name: any(
    part.startswith('.') or part == '__MACOSX' for part in name.split('/')
  )
  return sorted({name for name in names if not hidden(name)})


def read(path: str, member: str = '') -> Iterator[bytes]:
  """The unpacked bytes of a file or of a member of a .zip, in parts.

  Raises:
    ValueError: If the archive cannot be read.
  """
  try:
    with contextlib.ExitStack() as stack:
      if member:
        archive = stack.enter_context(zipfile.ZipFile(path))
        file = stack.enter_context(archive.open(member))
      else:
        opener = _OPENERS.get(suffix(path), open)
        file = stack.enter_context(opener(path, 'rb'))
      yield from iter(lambda: file.read(_PART_BYTES), b'')
  except _ERRORS as e:
    if not suffix(path):
      raise
    raise _unreadable(f'{path}/{member}' if member else path, e) from e

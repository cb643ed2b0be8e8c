# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A user's own text: a file, a folder or a glob; text or binary.

Each file is a document, as is each member of a .zip; .xz, .gz and .bz2 files
are unpacked. Plain files from 1 MiB on are read where they are; all else is
copied into memory once (into the cache folder if it is more than 64 MiB).
Documents come in the order of a hash of their names, so that the first ones
are a fair sample.
"""

import dataclasses
import functools
import glob
import os
from collections.abc import Iterator

from absl import logging

from jaxtok.config import configclass
from jaxtok.data import archives, cache, splits, stored

_LARGE_BYTES = 1 << 20  # Plain files from here on are not copied.
_RUN_FILES = {'config.json', 'meta.json'}  # Together they mark a run.


@configclass
class Files:
  """Text in files, divided by `splits.by_name`, else `splits.by_position`.

  A folder is read with all its subfolders. Left out are names that start
  with a dot, `__pycache__`, empty files, and the folders of jaxtok's own runs.
  """

  path: str = ''  # File, folder or glob (`**` for subfolders).
  validation: str = ''  # If given, `path` is all train.
  test: str = ''  # Likewise.
  max_document_bytes: int = 1 << 20  # Longer documents are cut, at line ends.

  def __post_init__(self):
    if self.max_document_bytes < 1:
      raise ValueError(
        f'max_document_bytes must be >= 1, got {self.max_document_bytes}.'
      )

  def make(self, split: str) -> stored.Stored:
    """The documents of a split.

    Raises:
      FileNotFoundError: If a path or glob matches nothing.
      ValueError: If an archive is damaged or a split has no documents.
    """
    path, divides = splits.choose_path(self, split)
    files = find(path)
    ranges = _divide(files, split) if divides else load(files).ranges
    names, parts = self._cut(load(files), ranges)
    if not parts:
      raise ValueError(
        f'{path} has no documents for {split}: its {load(files).num_bytes} '
        'bytes are too few to be divided. Use more text, or give '
        'validation=PATH and test=PATH.'
      )
    key = cache.digest(files, split, divides, self.max_document_bytes)
    return stored.Stored(load(files).arrays, parts, names, key)

  def _cut(self, library: 'Library', ranges: list) -> tuple[list, list]:
    """Names and ranges of documents of at most `max_document_bytes`."""
    names, parts = [], []
    for name, array, start, stop in ranges:
      for low, high in stored.pieces(
        library.arrays[array], start, stop, self.max_document_bytes
      ):
        parts.append((array, low, high))
        names.append(name if high - low == stop - start else f'{name}:{low}')
    return names, parts


@dataclasses.dataclass(frozen=True)
class File:
  """A document on disk; `size` and `mtime_ns` are those of the file."""

  name: str
  path: str
  member: str
  size: int
  mtime_ns: int

  @property
  def is_large(self) -> bool:
    """Whether it is read where it is."""
    return self.size >= _LARGE_BYTES and not archives.suffix(self.path)


class Library:
  """The contents of files, in hash order of their names.

  Attributes:
    arrays: uint8 arrays or `stored.FileArray`s.
    ranges: Name, number of the array, first byte and end of each document
      that is not empty.
    key: Changes when a file does.
  """

  def __init__(self, files: tuple[File, ...]):
    self.key = cache.digest(files)
    copied = [file for file in files if not file.is_large]
    parts = (archives.read(file.path, file.member) for file in copied)
    array, ends = stored.concatenate(parts, cache.digest(copied))
    self.arrays, places, start = [array] if copied else [], {}, 0
    for file, stop in zip(copied, ends.tolist(), strict=True):
      places[file] = (0, start, stop)
      start = stop
    for file in files:
      if file.is_large:
        places[file] = (len(self.arrays), 0, file.size)
        self.arrays.append(stored.FileArray(file.path))
    order = splits.hash_order([file.name for file in files])
    located = [(files[i].name, *places[files[i]]) for i in order]
    self.ranges = [part for part in located if part[3] > part[2]]

  @property
  def num_bytes(self) -> int:
    """Bytes of all documents."""
    return sum(stop - start for _, _, start, stop in self.ranges)


@functools.lru_cache(maxsize=3)
def load(files: tuple[File, ...]) -> Library:
  """Opens files; the splits of a corpus share the result."""
  library = Library(files)
  if not library.num_bytes:
    raise ValueError(
      f'{files[0].path} is empty.'
      if len(files) == 1
      else f'all {len(files)} files, such as {files[0].path}, are empty.'
    )
  return library


@functools.cache  # Once, not for each split.
def _say_divided(path: str) -> None:
  logging.info(
    '%s: too few files to keep whole ones apart; each is divided by position.',
    path,
  )


def _divide(files: tuple[File, ...], split: str) -> list:
  library = load(files)
  ranges = library.ranges
  sizes = [stop - start for _, _, start, stop in ranges]
  assigned = splits.by_name([name for name, *_ in ranges], sizes)
  if assigned is not None:
    return [
      part for part, its in zip(ranges, assigned, strict=True) if its == split
    ]
  _say_divided(files[0].path)
  divided = []
  for name, array, start, stop in ranges:
    low, high = splits.by_position(library.arrays[array], start, stop, split)
    divided.append((name, array, low, high))
  return divided


def _walk(folder: str) -> Iterator[str]:
  own_cache = os.path.abspath(cache.default_cache_dir())
  for parent, folders, names in os.walk(folder):
    # What jaxtok itself writes would change the text from run to run.
    if set(names) >= _RUN_FILES or os.path.abspath(parent) == own_cache:
      logging.info('%s is left out of the text: jaxtok wrote it.', parent)
      folders.clear()
      continue
    folders[:] = sorted(
      name
      for name in folders
      if not name.startswith('.') and name != '__pycache__'
    )
    for name in sorted(names):
      path = os.path.join(parent, name)
      if not name.startswith('.') and os.path.isfile(path):
        yield path


def _match(path: str) -> tuple[str, list[str]]:
  """The folder that names are relative to, and the paths found."""
  if not path:
    raise ValueError('path is empty. Give a file, a folder or a glob.')
  if '://' in path:
    raise ValueError(
      f'{path} is not a local path. Copy the files to this machine first.'
    )
  path = os.path.expanduser(path)
  if os.path.isdir(path):
    return path, list(_walk(path))
  if os.path.exists(path):
    return os.path.dirname(path), [path]
  if not glob.has_magic(path):
    raise FileNotFoundError(
      f'{path} does not exist (the current folder is {os.getcwd()}).'
    )
  fixed = path[: min(path.index(c) for c in '*?[' if c in path)]
  found = [p for p in glob.glob(path, recursive=True) if os.path.isfile(p)]
  if not found:
    raise FileNotFoundError(
      f'the glob {path} matches no file (the current folder is '
      f'{os.getcwd()}). Use ** for files in subfolders; quote globs in a shell.'
    )
  return os.path.dirname(fixed), sorted(found)


def find(path: str) -> tuple[File, ...]:
  """The files and archive members that a path, folder or glob means.

  Returns:
    Files sorted by name; names are relative to the folder or to the fixed
    part of the glob, so they do not depend on where the corpus lies.

  Raises:
    FileNotFoundError: If nothing matches.
    ValueError: If a folder is empty or an archive cannot be read.
  """
  root, paths = _match(path)
  found = []
  for one in paths:
    archives.check_readable(one)
    stat = os.stat(one)
    name = os.path.relpath(one, root or '.').replace(os.sep, '/')
    if archives.suffix(one) == '.zip':
      labels = [(f'{name}/{m}', m) for m in archives.members(one)]
    else:
      labels = [(name, '')]
    found += [
      File(label, os.path.abspath(one), member, stat.st_size, stat.st_mtime_ns)
      for label, member in labels
    ]
  if not found:
    raise ValueError(f'{path} holds no files (hidden ones are not read).')
  return tuple(sorted(found, key=lambda file: file.name))

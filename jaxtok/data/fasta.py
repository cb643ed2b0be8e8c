# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Genomes in FASTA files, as documents of upper-case ACGT.

A record's lines are joined; lower case (masked repeats) becomes upper case.
Runs of ACGT are cut into documents of `piece` bases; other letters (N, codes
for several bases) end a run and are left out, as DNABERT-2 leaves out sequences
with N (arXiv:2306.15006, section 4.1).

Each file is divided by position: the first 90 % of its documents are train,
the next 5 % validation, the rest test.
"""

import functools
import os
import re

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import archives, cache, files, source, stored

_SHARES = (0.90, 0.95)  # End of train, end of validation.
_RUN = re.compile(rb'[ACGT]+')


@configclass
class Fasta:
  """A file, a folder, a glob or a .zip of FASTA files."""

  path: str = ''  # `$NAME` is a variable of the environment.
  piece: int = 512  # Bases of a document.
  min_bases: int = 64  # Shorter documents are left out.

  def __post_init__(self):
    if not 1 <= self.min_bases <= self.piece:
      raise ValueError(
        f'min_bases={self.min_bases} must be in 1..piece={self.piece}.'
      )

  def make(self, split: str) -> stored.Stored:
    """The documents of a split.

    Raises:
      FileNotFoundError: If a path or glob matches nothing.
      ValueError: If a file is no FASTA or a split has no documents.
    """
    source.check_split(split)
    self.__post_init__()  # Fields may have been set since.
    found = files.find(expand(self.path))
    parts, names = [], []
    arrays = [genome(file) for file in found]
    for number, (_, ends) in enumerate(arrays):
      ranges = self._documents(ends)
      cuts = [0, *(int(len(ranges) * share) for share in _SHARES), len(ranges)]
      chosen = source.SPLITS.index(split)
      for start, stop in ranges[cuts[chosen] : cuts[chosen + 1]]:
        parts.append((number, start, stop))
        names.append(f'{found[number].name}:{start}')
    if not parts:
      raise ValueError(
        f'{self.path} has no documents for {split}: too few sequences of at '
        f'least min_bases={self.min_bases} bases. Use more, or a smaller piece.'
      )
    key = cache.digest('fasta', found, split, self.piece, self.min_bases)
    return stored.Stored([bases for bases, _ in arrays], parts, names, key)

  def _documents(self, ends: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pieces of the runs that end at `ends`."""
    found, start = [], 0
    for end in ends:
      for low in range(start, end, self.piece):
        high = min(low + self.piece, end)
        if high - low >= self.min_bases:
          found.append((low, high))
      start = end
    return found


def expand(path: str) -> str:
  """A path with variables of the environment filled in.

  Raises:
    ValueError: If one is not set.
  """
  found = os.path.expandvars(path)
  if match := re.search(r'\$\{?(\w+)', found):
    raise ValueError(
      f'{path} needs the environment variable {match[1]}, which is not set. '
      f'Set it to the folder of data, e.g. {match[1]}=data, or give a path.'
    )
  return found


@functools.lru_cache(maxsize=16)
def genome(file: files.File) -> tuple[np.ndarray, tuple[int, ...]]:
  """All runs of ACGT of a file, one after the other, and where each ends.

  Raises:
    ValueError: If it does not begin with '>'.
  """
  data = b''.join(archives.read(file.path, file.member))
  if not data.lstrip().startswith(b'>'):
    raise ValueError(
      f'{file.name} is no FASTA file: it must begin with ">", not '
      f'{data[:10]!r}. Name FASTA files only, e.g. by a glob.'
    )
  runs, ends, size = [], [], 0
  for record in re.split(rb'^\s*>', data, flags=re.MULTILINE)[1:]:
    _, _, lines = record.partition(b'\n')
    for run in _RUN.findall(lines.translate(None, b' \t\r\n').upper()):
      runs.append(run)
      size += len(run)
      ends.append(size)
  return np.frombuffer(b''.join(runs), np.uint8), tuple(ends)

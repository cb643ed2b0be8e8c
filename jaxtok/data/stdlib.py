# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The text that every Python installation has: its standard library.

The library's .py files and the language reference of `pydoc_data.topics`:
about 12 MB of code and English, nothing to download. Tests are left out. The
text depends on the Python version; `Text.corpus_id` tells texts apart.
"""

import functools
import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pydoc_data import topics

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import cache, splits, stored
from jaxtok.data.source import check_split

_SKIPPED_FOLDERS = {
  *('test', 'tests', 'idle_test', '__pycache__'),
  *('site-packages', 'dist-packages'),
}
_TOPICS = 'pydoc_data/topics.py'


@configclass
class Stdlib:
  """The default corpus, divided by file with `splits.by_name`.

  Held-out text is the same for every `max_bytes`.
  """

  max_bytes: int = 0  # Of the training split, whole files; 0 means all.

  def __post_init__(self):
    if self.max_bytes < 0:
      raise ValueError(f'max_bytes must be >= 0, got {self.max_bytes}.')

  def make(self, split: str) -> stored.Stored:
    """The documents of a split, in the order of a hash of their names."""
    check_split(split)
    array, names, ends, content = _corpus()
    sizes = np.diff(ends, prepend=0)
    assigned = splits.by_name(names, sizes.tolist())
    if assigned is None:
      raise ValueError(
        f'the standard library of this Python has {len(names)} source files, '
        'too few to divide. Use Files(path=...) with other text.'
      )
    chosen = [i for i, its in enumerate(assigned) if its == split]
    if split == 'train' and self.max_bytes:
      fits = np.cumsum(sizes[chosen]) <= self.max_bytes
      chosen = chosen[: max(1, int(fits.sum()))]
    ranges = [(0, ends[i] - sizes[i], ends[i]) for i in chosen]
    key = cache.digest(content, split, self.max_bytes)
    return stored.Stored([array], ranges, [names[i] for i in chosen], key)


def _sources() -> Iterator[tuple[str, bytes]]:
  root = sysconfig.get_path('stdlib')
  for folder, folders, names in os.walk(root):
    folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
    for name in sorted(names):
      path = os.path.join(folder, name)
      label = os.path.relpath(path, root).replace(os.sep, '/')
      # The build's own paths and flags are not text; topics follow below.
      is_text = not name.startswith('_sysconfigdata') and label != _TOPICS
      if name.endswith('.py') and is_text:
        with open(path, 'rb') as file:
          yield label, file.read()
  for topic, text in sorted(topics.topics.items()):
    yield f'{_TOPICS}/{topic}', text.encode()


@functools.cache
def _corpus() -> tuple[np.ndarray, list[str], np.ndarray, str]:
  """All bytes, names in hash order, ends, and a hash of the bytes."""
  found = {name: data for name, data in _sources() if data}
  names = list(found)
  names = [names[i] for i in splits.hash_order(names)]
  data = b''.join(found[name] for name in names)
  ends = np.cumsum([len(found[name]) for name in names])
  content = hashlib.blake2b(data, digest_size=16).hexdigest()
  return np.frombuffer(data, np.uint8), names, ends, content

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The cache folder: where it is, who writes, what happens when it is full."""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import logging


def default_cache_dir() -> pathlib.Path:
  """`$JAXTOK_CACHE`, or `~/.cache/jaxtok`."""
  if folder := os.environ.get('JAXTOK_CACHE'):
    return pathlib.Path(folder)
  cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(cache).expanduser() / 'jaxtok'


def digest(*parts: Any) -> str:
  """32 hexadecimal digits from the `repr` of values: the name of a cache."""
  return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Makes the folder of `path` and holds a lock on it between processes.

  The lock ends with the process, even if it is killed.

  Raises:
    OSError: If the folder cannot be written or is full; says what to set.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + '.lock'), 'w') as handle:
      try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        logging.info('Waiting for another process, which writes %s.', path)
        fcntl.flock(handle, fcntl.LOCK_EX)
      yield
  except OSError as e:
    inside = str(e.filename or '').startswith(str(path.parent))
    if not inside and e.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise  # About the documents, not about the cache.
    raise OSError(
      f'cannot write the cache {path} ({e.strerror}). Set the environment '
      'variable JAXTOK_CACHE to a folder on a disk with enough space.'
    ) from e

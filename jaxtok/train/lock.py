# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One process at a time writes to a workdir."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from jaxtok.runs import files
from jaxtok.train import errors

FILENAME = '.lock'


@contextlib.contextmanager
def hold(workdir: files.PathLike) -> Iterator[None]:
  """Keeps other processes from training or evaluating in the same workdir.

  The operating system lets go of the lock when the process dies, however it
  dies. Object stores have no locks; nothing is checked there.

  Raises:
    WorkdirError: If another process holds it; the message has its number.
  """
  if not files.is_local(workdir):
    yield
    return
  with open(os.path.join(os.fspath(workdir), FILENAME), 'a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise errors.WorkdirError(
        f'workdir={os.fspath(workdir)} is in use by process {file.read()}. '
        'Wait for it, stop it, or use another workdir.'
      ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    yield

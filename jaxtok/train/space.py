# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether a run can be saved, asked before any work is done."""

import os
import shutil

import jax
from etils import epath

from jaxtok.train import checkpoint, errors


def check(
  workdir: str | os.PathLike, checkpoint_bytes: int, max_to_keep: int
) -> None:
  """Checks, before any work is done, that a run can be saved.

  Args:
    workdir: The run directory; made if missing.
    checkpoint_bytes: Size of one checkpoint.
    max_to_keep: Checkpoints that are kept, besides the best one and the one
      that is being written.

  Raises:
    WorkdirError: If the folder cannot be written, or its disk is too small.
  """
  workdir = epath.Path(workdir)
  probe = workdir / f'.probe.{jax.process_index()}'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b'0' * 4096)
    probe.unlink()
  except OSError as e:
    raise errors.WorkdirError(
      f'workdir={workdir} cannot be written: {e}. Choose a folder that you '
      'may write to, on a disk with free space.'
    ) from e
  if '://' in os.fspath(workdir):
    return  # Object stores have no size.
  free = shutil.disk_usage(workdir).free
  needed = checkpoint_bytes * (max_to_keep + 2) - _size(
    workdir / checkpoint.FOLDER
  )
  if free < needed:
    raise errors.WorkdirError(
      f'workdir={workdir} has {free / 2**20:.0f} MiB free, but the run needs '
      f'up to {needed / 2**20:.0f} MiB more: {max_to_keep + 2} checkpoints of '
      f'{checkpoint_bytes / 2**20:.1f} MiB (max_to_keep={max_to_keep}, the '
      'best one, and the one being written). Free some space, lower '
      'max_to_keep, or choose another disk.'
    )


def _size(folder: epath.Path) -> int:
  if not folder.exists():
    return 0
  return sum(
    os.path.getsize(os.path.join(root, name))
    for root, _, names in os.walk(folder)
    for name in names
  )

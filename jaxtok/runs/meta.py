# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What meta.json records: how, with what and on what a run was made.

A run that was interrupted and continued has one session per process.
"""

import datetime
import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

_PACKAGES = (
  'jaxtok',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'numpy',
  'tokenizers',
  'tiktoken',
)
_MAX_DIFF_CHARS = 200_000


def now() -> str:
  """The time in UTC, e.g. '2026-01-31T12:00:00Z'."""
  time = datetime.datetime.now(datetime.UTC)
  return time.strftime('%Y-%m-%dT%H:%M:%SZ')


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that results depend on."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _git(folder: pathlib.Path, *args: str) -> str | None:
  command = ['git', '--no-optional-locks', '-C', str(folder), *args]
  try:
    done = subprocess.run(command, capture_output=True, timeout=20, check=True)
  except (OSError, subprocess.SubprocessError):
    return None  # No git, or no repository: there is nothing to record.
  return done.stdout.decode(errors='replace')


def git() -> dict[str, Any] | None:
  """Commit, uncommitted changes and untracked files of the running code.

  Looks at the repository that holds jaxtok, else at the current folder's;
  None if neither is in one. A long diff is cut and says so.
  """
  for folder in (pathlib.Path(__file__).parent, pathlib.Path.cwd()):
    commit = _git(folder, 'rev-parse', 'HEAD')
    if commit is None:
      continue
    diff = _git(folder, 'diff', 'HEAD') or ''
    if len(diff) > _MAX_DIFF_CHARS:
      cut = f'\n[cut after {_MAX_DIFF_CHARS} of {len(diff)} characters]\n'
      diff = diff[:_MAX_DIFF_CHARS] + cut
    status = _git(folder, 'status', '--porcelain') or ''
    untracked = [x[3:] for x in status.splitlines() if x.startswith('??')]
    return {'commit': commit.strip(), 'diff': diff, 'untracked': untracked}
  return None


def device() -> dict[str, Any]:
  """The devices of this program; initialises them if nothing else has."""
  import jax

  devices = jax.devices()
  return {
    'platform': devices[0].platform,
    'kind': devices[0].device_kind,
    'devices': len(devices),
    'processes': jax.process_count(),
  }


def session() -> dict[str, Any]:
  """The record of a process that starts working on a run."""
  return {
    'started': now(),
    'stopped': None,
    'exit': None,
    'command': shlex.join(
      [pathlib.Path(sys.executable).name, *sys.orig_argv[1:]]
    ),
    'versions': versions(),
    'git': git(),
    'device': device(),
  }

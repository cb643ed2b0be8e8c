# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a claim's `measure` for its seeds and records the numbers."""

import datetime
import math
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

from experiments.ledger import claim as claim_lib
from jaxtok.runs import files, meta


def measure(
  claim: claim_lib.Claim, workdir: pathlib.Path, *, resume: bool = False
) -> tuple[str, dict[str, Any]]:
  """Measures a claim on the device that JAX has.

  Args:
    claim: The claim.
    workdir: Each seed gets the empty folder `<workdir>/<name>/seed_<seed>`;
      what was there is deleted.
    resume: Whether to go on with what an interrupted call left: numbers of
      seeds that had ended are taken, the folder of the next is kept, so that
      its runs go on too.

  Returns:
    The device's name, and what to record for it. `reused_files` are those that
    earlier calls left in the claim's folder and in those of claims that it
    shares with: `seconds` and `commit` are not theirs. Nor do `seconds` count
    what an interrupted call spent on `resumed_seeds`.

  Raises:
    ValueError: If the claim is not made for this device, a number is missing,
      or what is to be resumed was made by other code.
  """
  device = meta.device()
  if device['platform'] not in claim.devices:
    raise ValueError(
      f'{claim.name} is measured on {" or ".join(claim.devices)}, but JAX runs '
      f'on {device["platform"]}.'
    )
  git = meta.git() or {}  # Now: the code may be changed while it is measured.
  start, results = time.perf_counter(), []
  reused = _files(workdir, (claim.name, *claim.shares))
  made_by = {
    'commit': git.get('commit'),
    'has_uncommitted_changes': _has_changes(git),
    'versions': meta.versions(),
  }
  begun_by = made_by | {'device': device['kind']}
  seeds = [_Seed(workdir / claim.name, seed) for seed in claim.seeds]
  resumed = [one.seed for one in seeds if resume and one.is_begun(begun_by)]
  if resume and not resumed:
    print(f'  nothing to resume in {workdir / claim.name}', flush=True)
  for one in seeds:
    results.append(one.measure(claim, begun_by, one.seed in resumed))
  is_cpu = device['platform'] == 'cpu'
  return 'cpu' if is_cpu else device['kind'], {
    'measured': {key: [r[key] for r in results] for key in results[0]},
    'seeds': list(claim.seeds),
    'seconds': round(time.perf_counter() - start, 1),
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    **made_by,
    'devices': device['devices'],
    'reused_files': reused,
    'resumed_seeds': resumed,
  }


class _Seed:
  """The folder of a seed, and the file beside it that says who made it."""

  def __init__(self, folder: pathlib.Path, seed: int):
    self.seed, self.folder = seed, folder / f'seed_{seed}'
    self._path = folder / f'seed_{seed}.json'

  def is_begun(self, made_by: dict[str, Any]) -> bool:
    """Whether an earlier call by the same code began with it."""
    if not self._path.exists():
      return False
    try:
      found = files.read_json(self._path)['made_by']
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{self._path} is empty or damaged: it should say which code began '
        'with this seed. Call again without --resume to begin anew.'
      ) from error
    if found != made_by or made_by['has_uncommitted_changes']:
      raise ValueError(
        f'{self.folder} cannot be resumed: it was begun at commit '
        f'{found["commit"]} on {found["device"]}, now it is '
        f'{made_by["commit"]} on {made_by["device"]}; both must be the same, '
        'with the same packages and nothing uncommitted. Call again without '
        '--resume to begin anew.'
      )
    return True

  def measure(
    self, claim: claim_lib.Claim, made_by: dict[str, Any], is_resumed: bool
  ) -> dict[str, float]:
    """The numbers of the seed: those that are there, or measured now."""
    if is_resumed and (found := files.read_json(self._path)['found']):
      return found
    if not is_resumed:
      shutil.rmtree(self.folder, ignore_errors=True)
    self.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(self._path, {'made_by': made_by, 'found': None})
    found = claim.measure(self.folder, seed=self.seed)
    found = {key: float(value) for key, value in found.items()}
    if missing := sorted(set(claim.metrics()) - set(found)):
      raise ValueError(
        f'{claim.name}.measure returned no {", ".join(missing)}, for which '
        'there is a threshold.'
      )
    files.write_json(self._path, {'made_by': made_by, 'found': found})
    return found


def _has_changes(git: dict[str, Any]) -> bool:
  """Whether anything but the records of claims is not committed."""
  lines = git.get('diff', '').splitlines()
  changed = [x.split(' b/')[-1] for x in lines if x.startswith('diff --git ')]
  changed += git.get('untracked', [])
  return any(not name.startswith('docs/claims/') for name in changed)


def _files(workdir: pathlib.Path, claims: Sequence[str]) -> list[str]:
  """What earlier calls left beside the seeds' folders: not made by this one."""
  found = [
    path.relative_to(workdir)
    for name in claims
    for path in (workdir / name).rglob('*')
    if path.is_file()
  ]
  is_shared = lambda path: not path.parts[1].startswith('seed_')
  return sorted(path.as_posix() for path in filter(is_shared, found))


def record(claim: claim_lib.Claim, device: str, entry: dict[str, Any]) -> None:
  """Writes the numbers of a device; those of other devices stay."""
  devices = claim.records() | {device: entry}
  for found in devices.values():
    for values in found['measured'].values():
      if not all(map(math.isfinite, values)):
        raise ValueError(f'{claim.name} measured {values}; not recorded.')
  files.write_json(
    claim.record_path,
    {'claim': claim.name, 'devices': dict(sorted(devices.items()))},
  )

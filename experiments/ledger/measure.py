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
  claim: claim_lib.Claim, workdir: pathlib.Path
) -> tuple[str, dict[str, Any]]:
  """Measures a claim on the device that JAX has.

  Args:
    claim: The claim.
    workdir: Each seed gets the empty folder `<workdir>/<name>/seed_<seed>`;
      what was there is deleted.

  Returns:
    The device's name, and what to record for it. `reused_files` are those that
    earlier calls left in the claim's folder and in those of claims that it
    shares with: `seconds` and `commit` are not theirs.

  Raises:
    ValueError: If the claim is not made for this device, or a number is
      missing.
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
  for seed in claim.seeds:
    folder = workdir / claim.name / f'seed_{seed}'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = {k: float(v) for k, v in claim.measure(folder, seed=seed).items()}
    if missing := sorted(set(claim.metrics()) - set(result)):
      raise ValueError(
        f'{claim.name}.measure returned no {", ".join(missing)}, for which '
        'there is a threshold.'
      )
    results.append(result)
  is_cpu = device['platform'] == 'cpu'
  return 'cpu' if is_cpu else device['kind'], {
    'measured': {key: [r[key] for r in results] for key in results[0]},
    'seeds': list(claim.seeds),
    'seconds': round(time.perf_counter() - start, 1),
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'commit': git.get('commit'),
    'has_uncommitted_changes': _has_changes(git),
    'versions': meta.versions(),
    'devices': device['devices'],
    'reused_files': reused,
  }


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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Several processes as one program.

`initialize` joins the others if the environment shows that there are others,
and does nothing on one machine or in a notebook. It must come before the first
JAX computation, so it is never called on import.
"""

import json
import os
import re
import urllib.request
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from jaxtok.train import errors, sharding

_METADATA = (
  'http://metadata.google.internal/computeMetadata/v1/instance/attributes/'
  'worker-network-endpoints'
)


def num_processes(environ: Mapping[str, str] = os.environ) -> int:
  """How many processes the environment says belong together.

  It is asked in this order: `JAX_NUM_PROCESSES` (with
  `JAX_COORDINATOR_ADDRESS` and `JAX_PROCESS_ID`: the way to start processes
  by hand), SLURM, Open MPI, and the list of workers of a TPU slice.
  """
  for name in (
    'JAX_NUM_PROCESSES',
    'SLURM_STEP_NUM_TASKS',
    'OMPI_COMM_WORLD_SIZE',
  ):
    if name in environ:
      return int(environ[name])
  hosts = environ.get('TPU_WORKER_HOSTNAMES') or _tpu_hosts(environ)
  return len(hosts.split(','))


def set_coordinator(value: str) -> None:
  """Names the processes to join, as the environment variables do.

  Args:
    value: 'HOST:PORT,COUNT,INDEX': the address of process 0, the number of
      processes, and which of them this one is.

  Raises:
    ConfigError: If it does not have that form.
  """
  match = re.fullmatch(r'([^,]+:\d+),(\d+),(\d+)', value)
  if not match or int(match[3]) >= int(match[2]):
    raise errors.ConfigError(
      f'coordinator={value!r} must be HOST:PORT,COUNT,INDEX with INDEX in '
      '0..COUNT-1, e.g. 10.0.0.2:1234,4,0.'
    )
  names = ('COORDINATOR_ADDRESS', 'NUM_PROCESSES', 'PROCESS_ID')
  for name, text in zip(names, match.groups(), strict=True):
    os.environ[f'JAX_{name}'] = text


def initialize() -> None:
  """Joins the other processes, if there are any; safe to call again.

  Raises:
    ConfigError: If the environment is incomplete.
  """
  count = num_processes()
  if count < 2 or jax.distributed.is_initialized():
    return
  by_hand = {}
  if 'JAX_NUM_PROCESSES' in os.environ:
    missing = [
      name
      for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID')
      if name not in os.environ
    ]
    if missing:
      raise errors.ConfigError(
        f'JAX_NUM_PROCESSES={count} is set, but {" and ".join(missing)} is '
        'not. Set JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0 and '
        f'JAX_PROCESS_ID=0..{count - 1} in each process.'
      )
    by_hand = {
      'coordinator_address': os.environ['JAX_COORDINATOR_ADDRESS'],
      'num_processes': count,
      'process_id': int(os.environ['JAX_PROCESS_ID']),
    }
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(**by_hand)
  logging.info('process %d of %d', jax.process_index(), jax.process_count())


def is_main() -> bool:
  """Whether this process writes files and prints."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until all processes have come here."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def check_shared(workdir: str | os.PathLike) -> None:
  """Checks that all processes see the same workdir.

  Raises:
    WorkdirError: In all processes, if one does not see what process 0 wrote.
  """
  if jax.process_count() == 1:
    return
  token = epath.Path(workdir) / '.shared'
  if is_main():
    token.parent.mkdir(parents=True, exist_ok=True)
    token.write_text('All processes of a run see this file.\n')
  barrier('workdir written')
  blind = [i for i, sees in enumerate(gather(token.exists())) if not sees]
  if blind:
    raise errors.WorkdirError(
      f'process {blind[0]} does not see what process 0 wrote to its workdir '
      f'(here workdir={workdir}). A run of several processes needs one workdir '
      'that all of them share: a network file system or gs://...'
    )


def reader(mesh: Mesh, batch_size: int) -> tuple[int, int]:
  """Which part of each batch this process has to read.

  Processes whose devices hold the same rows (tensor parallelism across
  processes) read the same part.

  Returns:
    Index and number of parts.

  Raises:
    ConfigError: If this process' devices hold rows that are not one such part.
  """
  split = sharding.batch_sharding(mesh, 1)
  indices = split.addressable_devices_indices_map((batch_size,))
  rows = {
    row for (piece,) in indices.values() for row in _rows(piece, batch_size)
  }
  first, count = min(rows), len(rows)
  if max(rows) - first + 1 != count or first % count or batch_size % count:
    raise errors.ConfigError(
      f'process {jax.process_index()} holds rows {first}..{max(rows)} of '
      f'{batch_size} in pieces; order the mesh so that the data axis is '
      'contiguous in each process.'
    )
  return first // count, batch_size // count


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Forms a batch over all devices from each process' own rows."""
  return {
    key: jax.make_array_from_process_local_data(
      sharding.batch_sharding(mesh, value.ndim), value
    )
    for key, value in batch.items()
  }


def gather(value: Any) -> list[Any]:
  """A JSON value of each process, in order, on all of them."""
  if jax.process_count() == 1:
    return [value]
  from jax.experimental import multihost_utils

  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.array(len(text)))
  padded = np.pad(text, (0, int(lengths.max()) - len(text)))
  rows = multihost_utils.process_allgather(padded)
  return [
    json.loads(row[:length].tobytes())
    for row, length in zip(rows, lengths, strict=True)
  ]


def _rows(piece: slice, batch_size: int) -> range:
  return range(*piece.indices(batch_size))


def _tpu_hosts(environ: Mapping[str, str]) -> str:
  """Workers of a TPU VM as its metadata server lists them, or ''."""
  has_tpu = os.path.exists('/dev/accel0') or os.path.exists('/dev/vfio/0')
  if not has_tpu or environ.get('TPU_SKIP_MDS_QUERY'):
    return ''
  request = urllib.request.Request(
    _METADATA, headers={'Metadata-Flavor': 'Google'}
  )
  try:
    with urllib.request.urlopen(request, timeout=5) as answer:
      return answer.read().decode()
  except OSError:
    return ''  # A TPU outside Google Cloud, or another kind of device.

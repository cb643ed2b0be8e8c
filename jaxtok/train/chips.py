# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chips that are not here, and the compilers that know them.

The compilers of TPUs (`pip install libtpu`) and of NVIDIA GPUs (`pip install
'jax[cuda13]'`) run on any computer. They tell the memory per device of a real
sharded program; they do not run it. A compiler works in a process of its own,
because it needs environment variables that would disturb this one: `elsewhere`
starts one, whose `main` is `answer`.
"""

import dataclasses
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jaxtok.train import errors
from jaxtok.train.progress import quantity


@dataclasses.dataclass(frozen=True)
class Chip:
  """What is known about one chip.

  Attributes:
    default: Topology if only the name is given.
    hbm_bytes: Memory of a chip.
    flops: Highest dense bfloat16 FLOPs per second of a chip.
    bandwidth: Bytes per second between a chip and its memory.
  """

  default: str
  hbm_bytes: int
  flops: float
  bandwidth: float


# Vendors' data sheets.
CHIPS = {
  'v4': Chip('2x2x1', 32 * 2**30, 275e12, 1228e9),
  'v5e': Chip('2x2', 16 * 2**30, 197e12, 819e9),
  'v5p': Chip('2x2x1', 95 * 2**30, 459e12, 2765e9),
  'v6e': Chip('2x2', 32 * 2**30, 918e12, 1640e9),
  'tpu7x': Chip('2x2x1', 192 * 2**30, 2307e12, 7380e9),
  'h200': Chip('', 141 * 10**9, 989e12, 4800e9),
}

_MISSING = {
  'tpu': (
    'libtpu',
    'the TPU compiler is not installed here: pip install libtpu (half a GB; '
    'no TPU is needed).',
  ),
  'cuda': (
    'jax_cuda13_plugin',
    "the CUDA compiler is not installed here: pip install 'jax[cuda13]' "
    '(several GB; no GPU is needed).',
  ),
}

_H200 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: 233472
threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536
registers_per_block_limit: 65536 } platform_name: "CUDA" dnn_version_info {
major: 9 minor: 8 patch: 0 } device_description_str: "NVIDIA H200" """

# What a compiled program needs on each device, in bytes.
MEMORY = ('arguments', 'outputs', 'temporary', 'code')

Request = dict[str, Any]


def parse(name: str) -> tuple[str, str]:
  """Splits e.g. 'v5e:16x16' into chip and layout; 'v6e' gets a default.

  Raises:
    ConfigError: If the name means nothing.
  """
  chip, colon, layout = name.partition(':')
  has_layout = chip != 'h200' and re.fullmatch(r'\d+(x\d+)*', layout)
  if chip not in CHIPS or (colon and not has_layout):
    raise errors.ConfigError(
      f'topology={name!r} is unknown. Use CHIP or CHIP:LAYOUT, e.g. v5e:16x16, '
      f'v6e:4x4, tpu7x:2x2x1, h200; chips: {", ".join(CHIPS)}.'
    )
  return chip, layout or CHIPS[chip].default


def check(topology: str) -> tuple[str, str]:
  """Chip and layout, if the compiler for them is here.

  Raises:
    ConfigError: If the name means nothing or the compiler is missing.
  """
  chip, layout = parse(topology)
  module, hint = _MISSING[platform(chip)]
  if importlib.util.find_spec(module) is None:
    raise errors.ConfigError(f'topology={topology}: {hint}')
  return chip, layout


def platform(chip: str) -> str:
  """The name by which jax knows the chip's compiler."""
  return 'cuda' if chip == 'h200' else 'tpu'


def devices(chip: str, layout: str) -> list[Any]:
  """The devices of a topology, to make a mesh of; call it in `answer`."""
  from jax.experimental import topologies

  if platform(chip) == 'cuda':
    description = topologies.get_topology_desc(
      'h200', 'cuda', target_config=_H200, topology='1x1x1'
    )
  else:
    description = topologies.get_topology_desc(f'{chip}:{layout}', 'tpu')
  return description.devices


def elsewhere(module: str, request: Request) -> dict[str, Any]:
  """Runs `python -m module` with the environment that compilers want.

  Args:
    module: Its `main` calls `answer`.
    request: JSON that it gets.

  Returns:
    Its answer, or `{'error': reason}`.
  """
  environ = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join(p for p in sys.path if p),
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_HOSTNAMES': 'localhost',
  }
  done = subprocess.run(
    [sys.executable, '-m', module],
    input=json.dumps(request),
    env=environ,
    text=True,
    capture_output=True,
    check=False,
  )
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ['no message'])[-1]
    return {'error': f'the compiler failed: {last}'}
  return json.loads(done.stdout.splitlines()[-1])


def answer(compile_here: Callable[[Request], dict[str, Any]]) -> None:
  """The other side of `elsewhere`: stdin to the last line of stdout."""
  try:
    found = compile_here(json.load(sys.stdin))
  except Exception as e:  # Reported by the process that asked.
    found = {'error': f'{str(e).strip()[:2000]}'}
  print(json.dumps(found))


def memory_of(compiled: Any) -> dict[str, int]:
  """Bytes per device of a compiled program, by `MEMORY`.

  What an output shares with an argument (donation) counts as argument.
  """
  memory = compiled.memory_analysis()
  return {
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes - memory.alias_size_in_bytes,
    'temporary': memory.temp_size_in_bytes,
    'code': memory.generated_code_size_in_bytes,
  }


def devices_per_chip(topology: str, num_devices: int) -> int:
  """Some chips show up as two devices, which share its memory and speed.

  Args:
    topology: Its name.
    num_devices: Of the whole topology.
  """
  layout = parse(topology)[1]
  chips = math.prod(map(int, layout.split('x'))) if layout else 1
  return max(num_devices // chips, 1)


def memory_line(found: Mapping[str, Any], available: int) -> str:
  """Text: the sum of `memory_of`, its share of the available bytes, parts."""
  peak = sum(found[part] for part in MEMORY)
  return (
    f'{quantity(peak)} per device ({100 * peak / available:.1f} % of '
    f'{quantity(available)}): '
    + ', '.join(f'{part} {quantity(found[part])}' for part in MEMORY)
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiles the training step for machines that are not here.

The compilers of TPUs (`pip install libtpu`) and of NVIDIA GPUs (`pip install
'jax[cuda13]'`) run on any computer. They tell the memory per device, FLOPs and
collectives of the real sharded program; they do not run it. The compiler works
in a process of its own, because it needs environment variables that would
disturb this one.
"""

import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from jaxtok.train import errors
from jaxtok.train.config import Config


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

_COLLECTIVE = re.compile(
  r'= (?P<shape>.+?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|'
  r'ragged-all-to-all|collective-permute|collective-broadcast)(-start)?\('
)
_BYTES = {'pred': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 'f64': 8}


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


def report(config: Config, topology: str) -> str:
  """Compiles the sharded training step for `topology` and describes it.

  Args:
    config: The run's config; its data gives the shapes of a batch.
    topology: E.g. 'v5e:16x16' (256 chips), 'v6e', 'tpu7x:2x2x1', 'h200'.

  Returns:
    Text: memory per device, FLOPs, estimated time, collectives.

  Raises:
    ConfigError: If the name is unknown, the compiler is missing, or the
      program cannot be compiled (e.g. does not fit into memory).
  """
  chip, layout = parse(topology)
  module, hint = _MISSING[_platform(chip)]
  if importlib.util.find_spec(module) is None:
    raise errors.ConfigError(f'topology={topology}: {hint}')
  found = _compile_elsewhere(_request(config, chip, layout))
  if 'error' in found:
    raise errors.ConfigError(f'topology={topology}: {found["error"]}')
  return _format(topology, chip, found)


def _platform(chip: str) -> str:
  """The name by which jax knows the chip's compiler."""
  return 'cuda' if chip == 'h200' else 'tpu'


def _request(config: Config, chip: str, layout: str) -> dict[str, Any]:
  """All that the other process has to know."""
  from jaxtok import config as config_lib
  from jaxtok.train import setup

  tokenizer = setup.make_tokenizer(config, None)
  text = config.data.make(tokenizer)
  model = setup.resolve_model(config, tokenizer.vocab_size)
  row = setup.first_row(text)
  return {
    'config': config_lib.to_dict(
      dataclasses.replace(config, model=model, data=None, tokenizer=None)
    ),
    'row': {k: [list(v.shape), str(v.dtype)] for k, v in row.items()},
    'chip': chip,
    'layout': layout,
  }


def _compile_elsewhere(request: dict[str, Any]) -> dict[str, Any]:
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
    [sys.executable, '-m', 'jaxtok.train.topology'],
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


def compile_here(request: dict[str, Any]) -> dict[str, Any]:
  """The other process: compiles and returns numbers, or `{'error': ...}`."""
  import jax
  import numpy as np

  from jaxtok import config as config_lib
  from jaxtok.train import flops, sharding, state, step

  config = config_lib.from_dict(request['config'])
  devices = _devices(request['chip'], request['layout'])
  mesh = config.mesh.make(devices)
  sharding.check_batch_size(
    config.batch_size, mesh.shape, config.num_microbatches
  )
  batch = sharding.batch_shapes(
    {k: np.zeros(*v) for k, v in request['row'].items()},
    config.batch_size,
    mesh,
  )
  layout = state.plan(
    config.model.make,
    optimizer=config.optim,
    steps=config.steps,
    mesh=mesh,
    ema=config.ema > 0,
  )
  train_step = step.make_step(
    layout,
    config.objective.make(),
    seed=config.seed,
    num_microbatches=config.num_microbatches,
    ema=config.ema,
  )
  platform = _platform(request['chip'])
  compiled, exchanged = _compile(layout, train_step, batch, platform)
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis() or {}  # The CUDA compiler gives none.
  return {
    'devices': mesh.size,
    'devices_there': len(devices),
    'device': mesh.devices.flat[0].device_kind,
    'mesh': dict(mesh.shape),
    'parameters': sum(x.size for x in jax.tree.leaves(layout.shapes.params)),
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes - memory.alias_size_in_bytes,
    'temporary': memory.temp_size_in_bytes,
    'code': memory.generated_code_size_in_bytes,
    'flops': cost.get('flops'),
    'bytes_accessed': cost.get('bytes accessed', 0.0),
    'seconds': cost.get('optimal_seconds'),
    'model_flops': flops.per_step(
      layout.model(layout.shapes),
      flops.batch_shape(batch),
      remat=config.remat,
    ),
    'collectives': exchanged,
  }


def _compile(layout, train_step, batch, platform: str) -> tuple[Any, Any]:
  """The compiled step and its collectives, see `_collectives_of`."""
  from jaxtok_kernels import dispatch

  from jaxtok.train import step

  # This process has CPUs only: say what the program is for, or layers choose
  # the forms that are fast there.
  with (
    dispatch.lowering_platforms(platform),
    tempfile.TemporaryDirectory() as dump,
  ):
    options = {'xla_dump_to': dump, 'xla_dump_hlo_as_text': True}
    compiled = step.compile_step(
      layout, train_step, batch, options if platform == 'tpu' else None
    )
    return compiled, _collectives_of(compiled, dump)


def _devices(chip: str, layout: str) -> list[Any]:
  from jax.experimental import topologies

  if _platform(chip) == 'cuda':
    description = topologies.get_topology_desc(
      'h200', 'cuda', target_config=_H200, topology='1x1x1'
    )
  else:
    description = topologies.get_topology_desc(f'{chip}:{layout}', 'tpu')
  return description.devices


def _collectives_of(
  compiled: Any, dump: str | os.PathLike
) -> dict[str, dict[str, int]] | str:
  """See `collectives`; or why there is nothing to count.

  A TPU's compiler may be newer than jaxlib and use what that cannot read: then
  the text that the compiler itself wrote into the folder `dump` is read.
  """
  import jax

  try:
    return collectives(compiled.as_text())
  except jax.errors.JaxRuntimeError as e:
    texts = list(pathlib.Path(dump).glob('*jit_step*.after_optimizations.txt'))
    if texts:
      return collectives(texts[0].read_text())
    reason = str(e).strip().splitlines()[0]
    return f'unknown, as this jaxlib cannot read the program: {reason}'


def collectives(hlo: str) -> dict[str, dict[str, int]]:
  """Collectives of a compiled program, by kind.

  Gives their count, their result bytes, and those of the largest array. The
  compiler may split one collective into pieces that run beside other work;
  pieces share a channel and count once. The body of a loop counts once.
  """
  seen, found = set(), {}
  for line in hlo.splitlines():
    match = _COLLECTIVE.search(line)
    if not match:
      continue
    channel = re.search(r'channel_id=(\d+)', line)
    if channel:
      if channel[1] in seen:
        continue
      seen.add(channel[1])
    none = {'count': 0, 'bytes': 0, 'largest': 0}
    entry = found.setdefault(match['kind'], none)
    sizes = _array_bytes(match['shape'])
    largest = max(sizes, default=0)
    entry['count'] += 1
    # The shape of an asynchronous one holds its operand too.
    entry['bytes'] += largest if match[3] else sum(sizes)
    entry['largest'] = max(entry['largest'], largest)
  return found


def _array_bytes(shape: str) -> list[int]:
  """Bytes of each array of an HLO shape."""
  sizes = []
  for dtype, dims in re.findall(r'([a-z]+\d*\w*)\[([\d,]*)\]', shape):
    bits = re.search(r'\d+', dtype)
    width = _BYTES.get(dtype) or (math.ceil(int(bits[0]) / 8) if bits else 1)
    sizes.append(width * math.prod(int(d) for d in dims.split(',') if d))
  return sizes


def _format(topology: str, name: str, found: Mapping[str, Any]) -> str:
  from jaxtok.train import report as report_lib
  from jaxtok.train.progress import quantity

  chip, devices = CHIPS[name], found['devices']
  layout = parse(topology)[1]
  # Some chips show up as two devices, which share its memory and speed.
  chips = math.prod(map(int, layout.split('x'))) if layout else 1
  per_chip = max(found['devices_there'] // chips, 1)
  parts = ('arguments', 'outputs', 'temporary', 'code')
  peak = sum(found[part] for part in parts)
  available = chip.hbm_bytes / per_chip
  mesh = ' '.join(f'{k}={v}' for k, v in found['mesh'].items())
  return report_lib.block(
    {
      'topology': f'{topology}: {devices} x {found["device"]}, mesh {mesh}',
      'parameters': f'{found["parameters"]:,}',
      'memory': (
        f'{quantity(peak)} per device ({100 * peak / available:.1f} % of '
        f'{quantity(available)}): '
        + ', '.join(f'{part} {quantity(found[part])}' for part in parts)
      ),
      'compute': _compute_line(found),
      'time': _time_line(found, chip, per_chip),
      'collectives': _collective_lines(found['collectives']),
    }
  )


def _collective_lines(found: Mapping[str, Any] | str) -> list[str] | str:
  from jaxtok.train.progress import quantity

  if isinstance(found, str):
    return found
  return [
    f'{kind:<20} {v["count"]:>5} x  {quantity(v["bytes"])} per device, '
    f'the largest array {quantity(v["largest"])}'
    for kind, v in sorted(found.items())
  ] or 'none'


def _compute_line(found: Mapping[str, Any]) -> str:
  model = found['model_flops'] / found['devices']
  line = f'{model:.3g} FLOPs per device and step by the model'
  if found['flops'] is not None:
    line += f', {found["flops"]:.3g} by the compiler (loop bodies once)'
  return line


def _time_line(found: Mapping[str, Any], chip: Chip, per_chip: int) -> str:
  seconds, unknown = _seconds(found, chip, per_chip)
  if found['seconds'] is None:
    return f'{seconds:.3g} s per step at full speed; no estimate from CUDA'
  source = 'by the compiler'
  if unknown:
    source += f', without {unknown} operations that it cannot estimate'
  speed = found['model_flops'] / found['devices'] / seconds
  usage = 100 * speed / (chip.flops / per_chip)
  return (
    f'{seconds:.3g} s per step {source}; {usage:.2g} % of the highest bfloat16 '
    'FLOP/s'
  )


def _seconds(
  found: Mapping[str, Any], chip: Chip, per_chip: int
) -> tuple[float, int]:
  """The compiler's estimate, and for how many operations it has none.

  Those count -1 s each in XLA's sum; the whole number that is missing is the
  least that lifts the sum to what FLOPs and bytes take at full speed.
  """
  flops = max(found['flops'] or 0, found['model_flops'] / found['devices'])
  least = per_chip * max(
    flops / chip.flops, found['bytes_accessed'] / chip.bandwidth
  )
  seconds = found['seconds']
  if seconds is None:
    return least, 0
  unknown = max(math.ceil(least - seconds), 0) if seconds < 0 else 0
  return seconds + unknown, unknown


def main() -> None:
  """Reads a request from stdin; the last line of stdout is the answer."""
  try:
    answer = compile_here(json.load(sys.stdin))
  except Exception as e:  # Reported by the process that asked.
    answer = {'error': f'{str(e).strip()[:2000]}'}
  print(json.dumps(answer))


if __name__ == '__main__':
  main()

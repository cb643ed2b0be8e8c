# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiles the training step for machines that are not here.

See `chips` for the compilers. They tell the memory per device, FLOPs and
collectives of the real sharded step.
"""

import dataclasses
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

from jaxtok.train import chips, errors
from jaxtok.train.config import Config

_COLLECTIVE = re.compile(
  r'= (?P<shape>.+?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|'
  r'ragged-all-to-all|collective-permute|collective-broadcast)(-start)?\('
)
_BYTES = {'pred': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 'f64': 8}


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
  chip, layout = chips.check(topology)
  found = chips.elsewhere(__name__, _request(config, chip, layout))
  if 'error' in found:
    raise errors.ConfigError(f'topology={topology}: {found["error"]}')
  return _format(topology, chip, found)


def _request(config: Config, chip: str, layout: str) -> dict[str, Any]:
  """All that the other process has to know."""
  from jaxtok import config as config_lib
  from jaxtok.train import setup

  tokenizer = setup.make_tokenizer(config, None)
  text = config.data.make(tokenizer)
  model = setup.resolve_model(config, tokenizer)
  row = setup.first_row(text)
  return {
    'config': config_lib.to_dict(
      dataclasses.replace(config, model=model, data=None, tokenizer=None)
    ),
    'row': {k: [list(v.shape), str(v.dtype)] for k, v in row.items()},
    'chip': chip,
    'layout': layout,
  }


def compile_here(request: dict[str, Any]) -> dict[str, Any]:
  """The other process: compiles and returns numbers, or `{'error': ...}`."""
  import jax
  import numpy as np

  from jaxtok import config as config_lib
  from jaxtok.train import flops, sharding, state, step

  config = config_lib.from_dict(request['config'])
  devices = chips.devices(request['chip'], request['layout'])
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
  platform = chips.platform(request['chip'])
  compiled, exchanged = _compile(layout, train_step, batch, platform)
  cost = compiled.cost_analysis() or {}  # The CUDA compiler gives none.
  return {
    'devices': mesh.size,
    'devices_there': len(devices),
    'device': mesh.devices.flat[0].device_kind,
    'mesh': dict(mesh.shape),
    'parameters': sum(x.size for x in jax.tree.leaves(layout.shapes.params)),
    **chips.memory_of(compiled),
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

  chip = chips.CHIPS[name]
  per_chip = chips.devices_per_chip(topology, found['devices_there'])
  mesh = ' '.join(f'{k}={v}' for k, v in found['mesh'].items())
  return report_lib.block(
    {
      'topology': (
        f'{topology}: {found["devices"]} x {found["device"]}, mesh {mesh}'
      ),
      'parameters': f'{found["parameters"]:,}',
      'memory': chips.memory_line(found, chip.hbm_bytes // per_chip),
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


def _time_line(
  found: Mapping[str, Any], chip: chips.Chip, per_chip: int
) -> str:
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
  found: Mapping[str, Any], chip: chips.Chip, per_chip: int
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


if __name__ == '__main__':
  chips.answer(compile_here)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds tile sizes for the device that is here, or ranks them without one.

  python -m jaxtok_kernels.tune [--kernels=selected_decode] [--write]
  python -m jaxtok_kernels.tune --static --chips=v5e [--out=static.json]

On a device: of a kernel's candidates, those that fit the memory formula and
compile are timed in turn (inputs random normal, caches flushed); the fastest
goes to `tuned/<chip>.json`, where `tuning.config` finds it. On a machine
without accelerators `--static` ranks the TPU candidates by VLIW bundles and
spills per token of a step. That ignores stalls and copies: a heuristic for
where to look first, never used by `tuning.config`.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtok_kernels import aot, bench, cases, tuning
from jaxtok_kernels.hardware import CHIPS
from jaxtok_kernels.linear_attention import cost as linear_cost
from jaxtok_kernels.linear_attention.features import feature_dim
from jaxtok_kernels.selected_decode import cost as decode_cost


@dataclasses.dataclass(frozen=True)
class Space:
  """What can be chosen for a kernel.

  Attributes:
    kernel: Name in `tuning.config`.
    cases: Names of the functions in `cases` that run it.
    tpu: Candidate values of each entry of the TPU config.
    triton: Likewise for Triton.
    mosaic_gpu: Likewise for Mosaic GPU.
    memory: Bytes of fast memory of a TPU config at the sizes of a call.
    step: Tokens that a TPU program's loop body handles, to compare bundles.
    names: Part of the case's name that selects among `cases`.
  """

  kernel: str
  cases: tuple[str, ...]
  tpu: Mapping[str, tuple[int, ...]]
  triton: Mapping[str, tuple[int, ...]]
  memory: Callable[[dict[str, int], dict[str, int]], int]
  step: Callable[[dict[str, int]], int]
  names: str = ''
  mosaic_gpu: Mapping[str, tuple[int, ...]] = dataclasses.field(
    default_factory=dict
  )


def _decode_memory(config, sizes) -> int:
  wanted = {k: sizes[k] for k in ('k', 'h', 'rows')}
  return decode_cost.tpu_vmem(config, **wanted)


def _linear_memory(feature: str, config, sizes) -> int:
  n, h, e = sizes['n'], sizes['h'], sizes['e']
  return linear_cost.tpu_vmem(
    config,
    heads=linear_cost.heads_per_group(n, h, e),
    h=h,
    e=e,
    features=feature_dim(feature, h),
  )


def _tile_memory(config, sizes) -> int:
  """Double buffered keys or scores of a tile."""
  heads = sizes.get('k', 0) * sizes.get('h', 0) * 2 + 4 * sizes.get('n', 0)
  return 2 * config['tile'] * heads


SPACES = (
  Space(
    'flash_attention',
    ('flash_attention',),
    tpu={},
    triton={
      'block_q': (64, 128),
      'block_kv': (32, 64, 128),
      'num_warps': (4, 8),
      'num_stages': (2, 3, 4),
    },
    mosaic_gpu={'block_kv': (64, 128), 'num_stages': (2, 3, 4)},
    memory=lambda config, sizes: 0,
    step=lambda config: 1,
    names='forward',
  ),
  Space(
    'flash_attention_backward',
    ('flash_attention',),
    tpu={},
    triton={
      'block_q': (64, 128),
      'block_kv': (64, 128),
      'num_warps': (4, 8),
      'num_stages': (1, 2, 3),
    },
    memory=lambda config, sizes: 0,
    step=lambda config: 1,
    names='grad',
  ),
  Space(
    'selected_decode',
    ('gather_decode', 'block_decode', 'paged_decode', 'tree_attention'),
    tpu={'tokens': (128, 256, 512)},
    triton={
      'block': (32, 64, 128),
      'num_warps': (2, 4),
      'least': (256, 512, 1024),
    },
    memory=_decode_memory,
    step=lambda config: config['tokens'],
  ),
  Space(
    'linear_attention',
    ('linear_attention',),
    tpu={'chunk': (128, 256), 'chunks': (1, 2, 4, 8)},
    triton={'chunk': (32, 64, 128), 'num_warps': (2, 4, 8)},
    memory=functools.partial(_linear_memory, 'taylor2'),
    step=lambda config: config['chunk'],
    names='taylor2',
  ),
  Space(
    'linear_attention_gated',
    ('linear_attention',),
    tpu={'chunk': (16,), 'chunks': (8, 16, 32)},
    triton={'chunk': (16,), 'num_warps': (2, 4, 8)},
    memory=functools.partial(_linear_memory, 'identity'),
    step=lambda config: config['chunk'],
    names='gated',
  ),
  Space(
    'decode_scores',
    ('decode_scores',),
    tpu={'tile': (256, 512, 1024, 2048)},
    triton={'tile': (64, 128, 256)},
    memory=_tile_memory,
    step=lambda config: config['tile'],
  ),
  Space(
    'soft_vote',
    ('soft_vote',),
    tpu={'tile': (1024, 2048, 4096, 8192)},
    triton={'tile': (256, 512, 1024)},
    memory=_tile_memory,
    step=lambda config: config['tile'],
  ),
  Space(
    'topk_threshold',
    ('topk_threshold',),
    tpu={},
    triton={'tile': (1024, 2048, 4096)},
    memory=lambda config, sizes: 0,
    step=lambda config: 1,
  ),
)


def candidates(space: Space, implementation: str) -> list[dict[str, int]]:
  """All combinations of an implementation's values; none if it has none."""
  values = getattr(space, implementation)
  if not values:
    return []
  return [
    dict(zip(values, x, strict=True))
    for x in itertools.product(*values.values())
  ]


def asked(case: cases.Case, space: Space, implementation: str):
  """What the kernel asks `tuning.config` for in a case.

  Returns:
    dtype and sizes of the call, None if it does not ask (another kernel runs).
  """
  with tuning.recording() as calls:
    fn = functools.partial(case.run, implementation)
    jax.eval_shape(fn, *case.shapes())
  same = [
    (dtype, sizes)
    for kernel, name, dtype, sizes in calls
    if (kernel, name) == (space.kernel, implementation)
  ]
  return same[0] if same else None


def fitting(
  space: Space, implementation: str, sizes: dict[str, int], chip: str | None
) -> list[dict[str, int]]:
  """Candidates whose memory formula is within the chip's fast memory."""
  found = candidates(space, implementation)
  if implementation != 'tpu' or chip is None:
    return found
  room = CHIPS[chip].fast_memory
  return [x for x in found if space.memory(x, sizes) <= room]


def work_list(names: list[str], implementation: str):
  """Spaces, cases and what the kernels ask for in them."""
  for space in SPACES:
    if names and space.kernel not in names:
      continue
    for case in cases.accelerator():
      if case.kernel not in space.cases or space.names not in case.name:
        continue
      if implementation not in case.implementations:
        continue
      if (call := asked(case, space, implementation)) is not None:
        yield space, case, *call


def measure(
  space: Space,
  case: cases.Case,
  dtype: str,
  sizes: dict[str, int],
  implementation: str,
  repeats: int,
  threads: int = 1,
) -> dict[str, Any] | None:
  """Times the candidates of a case on the device that is here.

  Returns:
    A row for the chip's file, None if nothing compiled.
  """
  args = jax.jit(case.draw)(jax.random.key(0))

  def call(config):
    try:
      with tuning.override(space.kernel, config):
        fn = jax.jit(functools.partial(case.run, implementation))
        found = functools.partial(fn.lower(*args).compile(), *args)
      jax.block_until_ready(found())
    except Exception as e:  # What does not compile or run is no candidate.
      print(f'  {json.dumps(config)}: {" ".join(str(e).split())[:160]}')
      return None
    return found

  fits = fitting(space, implementation, sizes, tuning.chip())
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    calls = list(pool.map(call, fits))
  configs = {json.dumps(x): x for x in fits}
  times = bench.seconds(
    {k: x for k, x in zip(configs, calls, strict=True) if x is not None},
    repeats,
  )
  if not times:
    return None
  for name, spent in sorted(times.items(), key=lambda x: x[1]):
    print(f'  {name}: {1e3 * spent:.3f} ms')
  best = min(times, key=times.__getitem__)
  return _row(space, case, dtype, sizes, implementation) | {
    'config': configs[best],
    'how': 'measured',
    'ms': round(1e3 * times[best], 4),
    'worst_ms': round(1e3 * max(times.values()), 4),
  }


def _row(space, case, dtype, sizes, implementation) -> dict[str, Any]:
  return {
    'kernel': space.kernel,
    'case': f'{case.kernel}, {case.name}',
    'implementation': implementation,
    'dtype': dtype,
    'sizes': sizes,
  }


def rank(chip: str, names: list[str]) -> list[dict[str, Any]]:
  """Static counts of all TPU candidates, best first within a case.

  Runs in a process of its own with the dump switched on.
  """
  dump = pathlib.Path(os.environ['JAXTOK_TUNE_DUMP'])
  rows = []
  with tuning.for_chip(chip):
    for space, case, dtype, sizes in work_list(names, 'tpu'):
      found = []
      for config in fitting(space, 'tpu', sizes, chip):
        row = _row(space, case, dtype, sizes, 'tpu')
        row |= {'config': config, 'how': 'static'}
        with tuning.override(space.kernel, config):
          row |= _static(chip, case, dump)
        if 'bundles' in row:
          total = row['bundles'] + row['spills']
          row['per_token'] = round(total / space.step(config), 2)
        found.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
      rows += sorted(found, key=lambda x: x.get('per_token', float('inf')))
  return rows


def _static(chip: str, case: cases.Case, dump: pathlib.Path) -> dict[str, Any]:
  """Compiles a case for a chip; bundles and spills of its Pallas kernels."""
  from jax.experimental import topologies

  found = topologies.get_topology_desc(
    platform='tpu', topology_name=aot.TOPOLOGIES[chip]
  )
  sharding = jax.sharding.SingleDeviceSharding(found.devices[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    case.shapes(),
  )
  before = set(dump.iterdir())
  fn = jax.jit(functools.partial(case.run, 'tpu'))
  try:
    fn.trace(*shapes).lower(lowering_platforms=('tpu',)).compile()
  except Exception as e:  # What does not compile is no candidate.
    return {'error': ' '.join(str(e).split())[:200]}
  kernel = {
    'tree_attention': 'selected_decode',
    'gather_decode': 'selected_decode',
    'block_decode': 'selected_decode',
    'paged_decode': 'selected_decode',
  }.get(case.kernel, case.kernel)
  totals = {'bundles': 0, 'spills': 0}
  for path in sorted(set(dump.iterdir()) - before):
    if kernel in path.name and path.name.endswith(
      'final_hlo-static-per-bundle-utilization.txt'
    ):
      counts = aot.utilization(path.read_text())
      totals = {k: v + counts[k] for k, v in totals.items()}
  return totals if totals['bundles'] else {}


def _run_static(chip: str, names: list[str]) -> list[dict[str, Any]]:
  """A process per chip: libtpu keeps global state and reads flags once."""
  with tempfile.TemporaryDirectory() as folder:
    env = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_WORKER_HOSTNAMES': 'localhost',
      'JAXTOK_TUNE_DUMP': folder,
      'LIBTPU_INIT_ARGS': (
        f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true'
      ),
    }
    command = [sys.executable, '-m', 'jaxtok_kernels.tune', f'--worker={chip}']
    command.append(f'--kernels={",".join(names)}')
    done = subprocess.run(command, env=env, capture_output=True, check=False)
  lines = done.stdout.decode().strip().splitlines()
  if done.returncode or not lines:
    tail = done.stderr.decode(errors='replace')[-2000:]
    raise RuntimeError(f'ranking for {chip} failed:\n{tail}')
  return json.loads(lines[-1])


def main(argv: list[str] | None = None) -> int:
  """Measures or ranks; returns 1 if nothing could be done."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok_kernels.tune',
    description='Find tile sizes for the device that is here.',
  )
  parser.add_argument('--kernels', default='', help='names, comma separated')
  parser.add_argument('--repeats', default=20, type=int, help='timed runs')
  parser.add_argument('--only', default='', help='part of the case name')
  parser.add_argument('--threads', default=1, type=int, help='that compile')
  parser.add_argument('--write', action='store_true', help='ship the result')
  parser.add_argument(
    '--static', action='store_true', help='by compiling for TPUs, untimed'
  )
  parser.add_argument('--chips', default='v5e', help='for --static')
  parser.add_argument(
    '--out', default=None, type=pathlib.Path, help='file for the numbers'
  )
  parser.add_argument('--worker', default='', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  names = [x for x in args.kernels.split(',') if x]
  if unknown := set(names) - {x.kernel for x in SPACES}:
    print(
      f'No tile sizes to tune for {", ".join(sorted(unknown))}; there are: '
      f'{", ".join(x.kernel for x in SPACES)}.'
    )
    return 2
  if args.worker:
    print(json.dumps(rank(args.worker, names)))
    return 0
  if args.static:
    return _main_static(args, names)
  return _main_measured(args, names)


def _main_static(args, names: list[str]) -> int:
  rows = []
  for chip in args.chips.split(','):
    if reason := aot.skipped(chip):
      print(f'{chip}: skipped, {reason}')
      continue
    found = [x | {'chip': chip} for x in _run_static(chip, names)]
    for row in found:
      number = row.get('per_token', row.get('error', 'no dump'))
      print(f'{chip} {row["case"]} {row["config"]}: {number}')
    rows += found
  if args.out:
    body = {'jax': jax.__version__, 'rows': rows}
    args.out.write_text(json.dumps(body, indent=1) + '\n')
  return int(not rows)


def _main_measured(args, names: list[str]) -> int:
  chip = tuning.chip()
  if chip is None:
    print('No TPU or GPU of the list here. --static ranks TPU tiles without.')
    return 1
  on_tpu = jax.default_backend() == 'tpu'
  rows = []
  for implementation in ('tpu',) if on_tpu else ('triton', 'mosaic_gpu'):
    for space, case, dtype, sizes in work_list(names, implementation):
      if args.only not in case.name:
        continue
      head = f'{space.kernel}, {implementation}, {case.kernel}, {case.name}'
      print(f'{head}:', flush=True)
      row = measure(
        space, case, dtype, sizes, implementation, args.repeats, args.threads
      )
      rows += [] if row is None else [row]
      if args.out:  # A run that is cut off leaves what it measured.
        body = {'chip': chip, 'jax': jax.__version__, 'rows': rows}
        args.out.write_text(json.dumps(body, indent=1) + '\n')
  if args.write:
    save(chip, rows)
  return int(not rows)


def save(chip: str, rows: list[dict[str, Any]]) -> None:
  """Writes a chip's file; rows of other calls stay."""
  key = lambda x: (
    x['kernel'],
    x['implementation'],
    x['dtype'],
    sorted(x['sizes'].items()),
  )
  # Of several cases with the same sizes the slowest counts.
  best = {}
  for row in sorted(rows, key=lambda x: x.get('ms', 0)):
    best[json.dumps(key(row))] = row
  old = {json.dumps(key(x)): x for x in tuning.load(chip)}
  body = {
    'chip': chip,
    'jax': jax.__version__,
    'rows': [x for _, x in sorted((old | best).items())],
  }
  tuning.FOLDER.mkdir(exist_ok=True)
  path = tuning.FOLDER / f'{chip}.json'
  path.write_text(json.dumps(body, indent=1) + '\n')
  tuning.load.cache_clear()


if __name__ == '__main__':
  sys.exit(main())

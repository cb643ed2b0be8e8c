# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel for TPUs and GPUs that are not there.

  python -m jaxtok_kernels.aot [--chips=v5e,v6e] [--kernels=flash_attention]
      [--baseline=FOLDER] [--write] [--jobs=2] [--quick]

Needs `pip install libtpu` (TPU) or jax's CUDA wheel (sm_90); what is not
installed is skipped and said. Prints, per case: seconds to compile, VLIW
bundles, fill of the matrix unit, spill stores. These are static counts, without
stalls and copies: a guard against regressions, not a measure of speed. Compares
with the baseline and fails if bundles, spills or memory grow, or the fill
falls, by more than 5 %, or cases are missing; `--write` replaces the baseline.
`--quick` takes one case of each kernel and implementation.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

TOPOLOGIES = {
  'v4': 'v4:2x2x1',
  'v5e': 'v5e:2x2',
  'v5p': 'v5p:2x2x1',
  'v6e': 'v6e:2x2',
  'tpu7x': 'tpu7x:2x2x1',
}
_GROWTH = 1.05
# What may not grow by more than that, and what a small number may grow by.
_LIMITED = {'bundles': 0, 'spills': 10, 'temp_mib': 0.1, 'vmem_mib': 0.1}
_BASELINE = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'kernels'
_DUMPED = 'final_hlo-static-per-bundle-utilization'
_H200 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 4800000000000
  l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
  platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 patch: 0 }
  device_description_str: "NVIDIA H200" """


def skipped(chip: str) -> str | None:
  """Why a chip cannot be compiled for here, or None."""
  if chip in TOPOLOGIES:
    if importlib.util.find_spec('libtpu') is None:
      return 'libtpu is not installed (pip install libtpu)'
    return None
  if chip != 'sm_90':
    return f'unknown chip; use one of {", ".join((*TOPOLOGIES, "sm_90"))}'
  try:
    import jax_plugins
  except ImportError:
    jax_plugins = None
  found = jax_plugins and any(
    list(pathlib.Path(path).glob('xla_cuda*')) for path in jax_plugins.__path__
  )
  return None if found else 'no CUDA wheel of jax (pip install "jax[cuda13]")'


def main(argv: list[str] | None = None) -> int:
  """Compiles and compares; returns 1 on failures or regressions."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok_kernels.aot',
    description='Compile every kernel for devices that are not there.',
  )
  parser.add_argument('--chips', default='', help='default: all that can be')
  parser.add_argument('--kernels', default='', help='names, comma separated')
  parser.add_argument(
    '--baseline',
    default=_BASELINE,
    type=pathlib.Path,
    help='folder of aot_<chip>.json; default: docs/kernels of the repository',
  )
  parser.add_argument(
    '--write', action='store_true', help='replace the baseline by what is found'
  )
  parser.add_argument('--jobs', default=1, type=int, help='chips at once')
  parser.add_argument(
    '--quick',
    action='store_true',
    help='one case of each kernel and implementation',
  )
  parser.add_argument('--worker', default='', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  names = [x for x in args.kernels.split(',') if x]
  if args.worker:
    print(json.dumps(_compile_all(args.worker, names, quick=args.quick)))
    return 0
  failed, chips = False, []
  for chip in (args.chips or ','.join((*TOPOLOGIES, 'sm_90'))).split(','):
    if reason := skipped(chip):
      print(f'{chip}: skipped, {reason}')
      # Who names a chip wants it compiled for.
      failed = failed or bool(args.chips)
    else:
      chips.append(chip)
  work = functools.partial(_run_worker, names=names, quick=args.quick)
  pool = concurrent.futures.ThreadPoolExecutor(args.jobs)
  for chip, rows in zip(chips, pool.map(work, chips), strict=True):
    _print_table(chip, rows)
    path = args.baseline / f'aot_{chip}.json'
    problems = [x['error'] for x in rows if 'error' in x]
    if not rows:
      problems.append(f'no case matches --kernels={args.kernels}.')
    if path.exists():
      is_whole = not names and not args.quick
      old = json.loads(path.read_text())['rows']
      problems += regressions(old, rows, is_whole=is_whole and not args.write)
    else:
      print(f'  there is no {path}: nothing to compare with')
    for problem in problems:
      print(f'  FAIL {problem}')
    failed = failed or bool(problems)
    if args.write:
      _write(path, chip, rows, partial=bool(names) or args.quick)
  return int(failed)


def _run_worker(
  chip: str, names: list[str], *, quick: bool
) -> list[dict[str, Any]]:
  """A process per chip: libtpu keeps global state and reads flags once."""
  with tempfile.TemporaryDirectory() as folder:
    env = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_WORKER_HOSTNAMES': 'localhost',
      'JAXTOK_AOT_DUMP': folder,
      # So that several chips may be compiled for at once.
      'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
      'LIBTPU_INIT_ARGS': (
        f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true '
        # All passes would be 100 MB per kernel.
        f'--xla_jf_dump_llo_pass_label_regex={_DUMPED}'
      ),
    }
    command = [sys.executable, '-m', 'jaxtok_kernels.aot', f'--worker={chip}']
    if names:
      command.append(f'--kernels={",".join(names)}')
    if quick:
      command.append('--quick')
    done = subprocess.run(command, env=env, capture_output=True, check=False)
  lines = done.stdout.decode().strip().splitlines()
  if done.returncode or not lines:
    tail = done.stderr.decode(errors='replace')[-2000:]
    raise RuntimeError(f'compiling for {chip} failed:\n{tail}')
  return json.loads(lines[-1])


def _compile_all(
  chip: str, names: list[str], *, quick: bool
) -> list[dict[str, Any]]:
  from jaxtok_kernels import cases

  on_tpu = chip in TOPOLOGIES
  wanted = ('tpu',) if on_tpu else ('triton', 'mosaic_gpu')
  rows, seen = [], set()
  for case in cases.accelerator():
    if names and case.kernel not in names:
      continue
    for implementation in case.implementations:
      kind = case.kernel, implementation, 'grad' in case.name
      if implementation in wanted and not (quick and kind in seen):
        seen.add(kind)
        row = _compile(chip, case, implementation)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
  return rows


def _compile(chip: str, case, implementation: str) -> dict[str, Any]:
  import jax
  from jaxtok_kernels import _compat

  row = {
    'kernel': case.kernel,
    'case': case.name,
    'implementation': implementation,
  }
  sharding = _sharding(chip)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    case.shapes(),
  )
  platform = 'tpu' if chip in TOPOLOGIES else 'cuda'
  fn = jax.jit(functools.partial(case.run, implementation))
  dump = pathlib.Path(os.environ.get('JAXTOK_AOT_DUMP', '.'))
  before, nothing = set(dump.iterdir()), contextlib.nullcontext()
  start = time.perf_counter()
  try:
    with _compat.absent_gpu() if platform == 'cuda' else nothing:
      lowered = fn.trace(*shapes).lower(lowering_platforms=(platform,))
    compiled = lowered.compile()
  except Exception as e:  # The compiler raises many types; all are results.
    text = ' '.join(str(e).split())[:300]
    return row | {'error': f'{case.kernel}, {case.name} on {chip}: {text}'}
  row['seconds'] = round(time.perf_counter() - start, 1)
  stats = compiled.memory_analysis()
  row['temp_mib'] = round(stats.temp_size_in_bytes / 2**20, 2)
  row |= _vmem(compiled)
  return row | _schedule(set(dump.iterdir()) - before, lowered.as_text())


def _vmem(compiled) -> dict[str, float]:
  """Fast memory of the largest Pallas call, from the compiled program."""
  import jax

  try:
    text = compiled.as_text()
  except jax.errors.JaxRuntimeError:
    # jaxlib 0.10.1 cannot read some programs of libtpu 0.0.52.
    return {}
  sizes = [
    int(size)
    for line in text.splitlines()
    if 'tpu_custom_call' in line
    for size in re.findall(
      r'"used_scoped_memory_configs":\[\{"memory_space":"1",[^}]*?'
      r'"size":"(\d+)"',
      line,
    )
  ]
  return {'vmem_mib': round(max(sizes) / 2**20, 2)} if sizes else {}


def _sharding(chip: str):
  import jax
  from jax.experimental import topologies

  if chip in TOPOLOGIES:
    found = topologies.get_topology_desc(
      platform='tpu', topology_name=TOPOLOGIES[chip]
    )
  else:
    found = topologies.get_topology_desc(
      'h200', 'cuda', target_config=_H200, topology='1x1x1'
    )
  return jax.sharding.SingleDeviceSharding(found.devices[0])


def _schedule(files: set[pathlib.Path], program: str) -> dict[str, Any]:
  """Static counts of the Pallas kernels among a compilation's dump files.

  Args:
    files: What the compilation dumped, one file per fusion and kernel.
    program: Text of the lowered program, which names its kernels.
  """
  names = '|'.join(sorted(set(re.findall(r'kernel_name = "(\w+)"', program))))
  if not names:
    return {}
  kernels = re.compile(
    rf'(?<![a-z])({names})(?![a-z]).*'
    r'final_hlo-static-per-bundle-utilization\.txt$'
  )
  totals = {'bundles': 0, 'mxu_fill': 0.0, 'spills': 0}
  texts = [x.read_text() for x in files if kernels.search(x.name)]
  if not texts:
    return {}
  for text in texts:
    for key, value in utilization(text).items():
      totals[key] = (
        max(totals[key], value) if key == 'mxu_fill' else (totals[key] + value)
      )
  return totals


def utilization(text: str) -> dict[str, Any]:
  """Counts from a dump of per-bundle utilisation.

  The first row of numbers is the capacity of each unit per bundle, then comes
  one row per bundle; the first column is the matrix unit, the ninth are spills.

  Args:
    text: The file's content.

  Returns:
    Bundles, slots of the matrix unit used between its first and last bundle
    over their capacity, spill stores.
  """
  numbers = [
    [int(x) for x in line.split()]
    for line in text.splitlines()
    if re.fullmatch(r'[\d\s]+', line) and line.strip()
  ]
  if len(numbers) < 2:
    return {'bundles': 0, 'mxu_fill': 0.0, 'spills': 0}
  capacity, rows = numbers[0], numbers[1:]
  mxu = [row[0] for row in rows]
  used = [i for i, x in enumerate(mxu) if x]
  span = used[-1] - used[0] + 1 if used else 1
  return {
    'bundles': len(rows),
    'mxu_fill': round(sum(mxu) / (capacity[0] * span), 3),
    'spills': sum(row[8] for row in rows if len(row) > 8),
  }


def regressions(
  old: list[dict[str, Any]],
  new: list[dict[str, Any]],
  *,
  is_whole: bool = False,
) -> list[str]:
  """What is worse than the baseline, one line each.

  Args:
    old: Rows of the baseline.
    new: Rows of now.
    is_whole: Whether both should have the same cases.

  Returns:
    Counts and memory that grew, and fill of the matrix unit that fell, by more
    than 5 %; cases that only one side has.
  """
  key = lambda x: (x['kernel'], x['case'], x['implementation'])
  before = {key(x): x for x in old}
  found = []
  for row in new:
    base = before.get(key(row), {})
    name_of = f'{row["kernel"]}, {row["case"]}, {row["implementation"]}'
    if is_whole and not base:
      found.append(f'{name_of}: not in the baseline. Add it with --write.')
    both = [x for x in (*_LIMITED, 'mxu_fill') if x in row and x in base]
    for name in both:
      was, now = base[name], row[name]
      if name == 'mxu_fill':
        is_worse, verb = now * _GROWTH < was, 'fell'
      else:
        is_worse, verb = now > _GROWTH * was + _LIMITED[name], 'grew'
      if is_worse:
        found.append(f'{name_of}: {name} {verb} from {was} to {now}.')
  if is_whole:
    gone = sorted(set(before) - {key(x) for x in new})
    found += [
      f'{", ".join(x)}: in the baseline, but not compiled.' for x in gone
    ]
  return found


def _print_table(chip: str, rows: list[dict[str, Any]]) -> None:
  print(f'{chip}:')
  for row in rows:
    name = f'{row["kernel"]}, {row["case"]}, {row["implementation"]}'
    if 'error' in row:
      print(f'  {name}: failed')
      continue
    parts = [f'{row["seconds"]} s', f'{row["temp_mib"]} MiB temporary']
    if 'vmem_mib' in row:
      parts.append(f'{row["vmem_mib"]} MiB of VMEM')
    if 'bundles' in row:
      parts.append(
        f'{row["bundles"]} bundles, MXU fill {row["mxu_fill"]}, '
        f'{row["spills"]} spills'
      )
    print(f'  {name}: {", ".join(parts)}')


def _write(path: pathlib.Path, chip: str, rows, *, partial: bool) -> None:
  """Writes the baseline; with `partial`, keeps rows of other cases."""
  import jax

  key = lambda x: (x['kernel'], x['case'], x['implementation'])
  if partial and path.exists():
    done = {key(x) for x in rows}
    kept = json.loads(path.read_text())['rows']
    rows = [x for x in kept if key(x) not in done] + rows
  rows = sorted(rows, key=key)
  path.parent.mkdir(parents=True, exist_ok=True)
  body = {'chip': chip, 'jax': jax.__version__, 'rows': rows}
  path.write_text(json.dumps(body, indent=1) + '\n')


if __name__ == '__main__':
  sys.exit(main())

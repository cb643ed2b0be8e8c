# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times the kernels on the device that is there.

  python -m jaxtok_kernels.bench [--kernels=flash_attention] [--out=bench.json]

On a GPU or TPU: per case milliseconds, TFLOP/s or GB/s, the fraction of the
roofline, and ratios to `jax.nn.dot_product_attention` (cuDNN on GPUs) and to
the XLA form. On a CPU: the XLA forms against `jax.nn.dot_product_attention`,
and the temporary memory of both. `error` is the largest difference to the XLA
form, relative to its largest value: a kernel that is wrong on this device shows
it next to its time.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtok_kernels import cases
from jaxtok_kernels.hardware import CHIPS, roofline_seconds

_PATIENCE = 10.0  # Seconds.
_FLUSH = 128 * 2**20  # Bytes; more than the L2 cache of any GPU listed.
_QUEUED, _MOST_QUEUED = 0.02, 50  # Seconds and calls of one timed run.


def device_name() -> str:
  """Key of `hardware.CHIPS` for the default device, or its kind."""
  kind = jax.devices()[0].device_kind.lower()
  if jax.default_backend() == 'cpu':
    return 'cpu'
  for name in CHIPS:
    if name in kind.replace(' lite', 'e').replace('tpu ', ''):
      return name
  return kind


def seconds(
  fns: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
  """Median time of each function, run in turn so that noise hits all alike.

  On an accelerator a run queues several calls, each after a kernel that
  flushes the cache, so that the time to launch one call is hidden; the time of
  the flushing kernel alone is subtracted.

  Args:
    fns: Compiled functions with their operands.
    repeats: Timed runs of each; fewer, but at least 3, once they took 10
      seconds.
  """
  for fn in fns.values():
    jax.block_until_ready(fn())
  if jax.default_backend() == 'cpu':
    return _medians(
      {k: functools.partial(_clock, v) for k, v in fns.items()}, repeats
    )
  flush = _flush()
  runs = {}
  for name, fn in fns.items():
    number = int(min(max(_QUEUED / max(_clock(fn), 1e-6), 1), _MOST_QUEUED))
    runs[name] = functools.partial(_queued, fn, flush, number)
  return _medians(runs, repeats)


def _medians(runs: dict[str, Callable[[], float]], repeats: int):
  times, begin = {name: [] for name in runs}, time.perf_counter()
  for i in range(repeats):
    if i >= 3 and time.perf_counter() - begin > _PATIENCE:
      break
    for name, run in runs.items():
      times[name].append(run())
  return {name: float(np.median(x)) for name, x in times.items()}


def _clock(*fns: Callable[[], Any]) -> float:
  """Seconds until the results of all calls, queued in turn, are there."""
  start = time.perf_counter()
  jax.block_until_ready([fn() for fn in fns])
  return time.perf_counter() - start


def _queued(fn, flush, number: int) -> float:
  both = _clock(*(x for _ in range(number) for x in (flush, fn)))
  return max(both - _clock(*[flush] * number), 1e-9) / number


def _flush() -> Callable[[], Any]:
  """Reads and writes more than the cache holds; returns one number."""
  cold = jnp.zeros(_FLUSH // 4)
  fn = jax.jit(lambda x: (x + 1).max()).lower(cold).compile()
  jax.block_until_ready(fn(cold))
  return functools.partial(fn, cold)


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A case whose programs are compiled.

  Attributes:
    case: What will be timed.
    rows: A row per program, with the reason if it did not compile.
    draws: Compiled `case.draw`, and `case.rival_draw` if there is one.
    programs: Implementation to compiled program.
    rivals: Which of them take the rival's operands.
  """

  case: cases.Case
  rows: list[dict[str, Any]]
  draws: tuple[Any, Any]
  programs: dict[str, Any]
  rivals: frozenset[str]


def prepare(case: cases.Case, own: tuple[str, ...] = ()) -> Prepared:
  """Compiles a case and its rivals; failures are rows too.

  Args:
    case: What will be timed.
    own: Implementations of ours to take; all by default.
  """
  backend = jax.default_backend()
  wanted = {'cpu': ('xla',), 'tpu': ('tpu', 'xla')}.get(
    backend, ('triton', 'mosaic_gpu', 'xla')
  )
  served = {*case.implementations, 'xla'} & set(own or wanted)
  fns = {
    name: functools.partial(case.run, name) for name in wanted if name in served
  }
  key, shapes = jax.random.key(0), case.shapes()
  draws = jax.jit(case.draw).lower(key).compile(), None
  rivals = {} if case.rival is None else _rivals(case, backend)
  rival_shapes = shapes
  if rivals and case.rival_draw is not None:
    draws = draws[0], jax.jit(case.rival_draw).lower(*shapes).compile()
    rival_shapes = jax.eval_shape(case.rival_draw, *shapes)
  programs, rows = {}, []
  for name, fn in (fns | rivals).items():
    row = {'kernel': case.kernel, 'case': case.name, 'implementation': name}
    rows.append(row)
    try:
      given = rival_shapes if name in rivals else shapes
      programs[name] = jax.jit(fn).lower(*given).compile()
    except Exception as e:  # Unsupported: a result to report.
      row['failed'] = ' '.join(str(e).split())[:300]
  return Prepared(case, rows, draws, programs, frozenset(rivals))


def measure(prepared: Prepared, repeats: int) -> list[dict[str, Any]]:
  """Times the programs of a case; failures are rows too."""
  draw, rival_draw = prepared.draws
  args, calls = draw(jax.random.key(0)), {}
  rival_args, why = args, ''
  try:
    if rival_draw is not None:
      rival_args = jax.block_until_ready(rival_draw(*args))
  except Exception as e:  # Out of memory.
    why = ' '.join(str(e).split())[:300]
  for row in prepared.rows:
    name = row['implementation']
    if name not in prepared.programs:
      continue
    is_rival = name in prepared.rivals
    if is_rival and why:
      row['failed'] = why
      continue
    given = rival_args if is_rival else args
    call = functools.partial(prepared.programs[name], *given)
    try:
      jax.block_until_ready(call())
      calls[name] = call
    except Exception as e:  # Out of memory: a result to report.
      row['failed'] = ' '.join(str(e).split())[:300]
  times = seconds(calls, repeats)
  for row in prepared.rows:
    if row['implementation'] in times:
      _fill(row, prepared.case, prepared.programs, times)
  _add_errors(prepared.rows, calls)
  return prepared.rows


def _rivals(case: cases.Case, backend: str) -> dict[str, Callable[..., Any]]:
  names = {'gpu': ['cudnn', 'xla']}.get(backend, ['xla'])
  found = {f'jax_{x}': functools.partial(case.rival, x) for x in names}
  has_tokamax = importlib.util.find_spec('tokamax') is not None
  if has_tokamax and backend != 'cpu' and case.kernel == 'flash_attention':
    found['tokamax'] = functools.partial(case.rival, 'tokamax')
  return found


def _add_errors(rows, calls) -> None:
  """Largest relative difference of each result to that of the XLA form."""
  if 'xla' not in calls:
    return
  want = jax.tree.leaves(calls['xla']())
  for row in rows:
    fn = calls.get(row['implementation'])
    if fn is None or row['implementation'] == 'xla':
      continue
    got = jax.tree.leaves(fn())
    # A rival may return fewer arrays (no log-sum-exp).
    pairs = zip(got, want, strict=False)
    row['error'] = float(f'{max(_difference(x, y) for x, y in pairs):.2g}')


def _difference(x: jax.Array, y: jax.Array) -> float:
  if not jnp.issubdtype(y.dtype, jnp.floating):
    # Selections may come in any order.
    return float((jnp.sort(x) != jnp.sort(y)).any())
  x, y = (jnp.asarray(z, jnp.float32) for z in (x, y))
  size = jnp.max(jnp.where(jnp.isfinite(y), jnp.abs(y), 0))
  same = (x == y) | ~jnp.isfinite(y)
  worst = jnp.max(jnp.where(same, 0, jnp.abs(x - y)))
  return float(worst / jnp.maximum(size, 1e-30))


def _fill(row, case, compiled, times) -> None:
  """Adds time, memory, rates and ratios to a row."""
  name = row['implementation']
  spent = times[name]
  row['ms'] = round(1e3 * spent, 3)
  stats = compiled[name].memory_analysis()
  if stats is not None:
    row['temp_mib'] = round(stats.temp_size_in_bytes / 2**20, 2)
  row['tflops'] = float(f'{case.work.flops / spent / 1e12:.3g}')
  row['gbps'] = float(f'{case.work.num_bytes / spent / 1e9:.3g}')
  chip = device_name()
  if chip in CHIPS:
    least = roofline_seconds(chip, case.work)
    row['roofline'] = round(least / spent, 3)
  for other, time_other in times.items():
    if other != name:
      row[f'speedup_over_{other}'] = round(time_other / spent, 2)


def main(argv: list[str] | None = None) -> int:
  """Runs the benchmarks; returns 1 if a kernel failed."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok_kernels.bench',
    description='Time the kernels on the device that is here.',
  )
  parser.add_argument('--kernels', default='', help='names, comma separated')
  parser.add_argument('--only', default='', help='part of the case name')
  parser.add_argument(
    '--implementations', default='', help='ours, comma separated'
  )
  parser.add_argument('--repeats', default=20, type=int, help='timed runs')
  parser.add_argument('--threads', default=1, type=int, help='that compile')
  parser.add_argument(
    '--out', default=None, type=pathlib.Path, help='file for the numbers'
  )
  args = parser.parse_args(argv)
  names = [x for x in args.kernels.split(',') if x]
  own = tuple(x for x in args.implementations.split(',') if x)
  found = cases.cpu() if jax.default_backend() == 'cpu' else cases.accelerator()
  if unknown := set(names) - {x.kernel for x in found}:
    print(f'No benchmark for {", ".join(sorted(unknown))} on this device.')
    return 2
  found = [
    x
    for x in found
    if x.kernel in (names or [x.kernel]) and args.only in x.name
  ]
  ceilings = {} if jax.default_backend() == 'cpu' else _ceilings()
  print(', '.join(f'{k} {v}' for k, v in ceilings.items()), flush=True)
  pool = concurrent.futures.ThreadPoolExecutor(args.threads)
  prepared = pool.map(lambda case: prepare(case, own), found)
  if args.threads > 1:
    prepared = list(prepared)  # Compiling beside them would disturb timings.
  rows = []
  for ready in prepared:
    for row in measure(ready, args.repeats):
      rows.append(row)
      print(_line(row), flush=True)
    _write(args.out, ceilings, rows)
  ours = ('triton', 'mosaic_gpu', 'tpu', 'xla')
  failed = [x for x in rows if 'failed' in x and x['implementation'] in ours]
  return int(bool(failed))


def _line(row: dict[str, Any]) -> str:
  head = f'{row["kernel"]}, {row["case"]}, {row["implementation"]}'
  rest = {
    k: v
    for k, v in row.items()
    if k not in ('kernel', 'case', 'implementation')
  }
  return f'{head}: {", ".join(f"{k} {v}" for k, v in rest.items())}'


def _write(path: pathlib.Path | None, ceilings, rows) -> None:
  """After each case: a run that is cut off leaves what it measured."""
  if path is None:
    return
  body = {'device': device_name(), 'jax': jax.__version__}
  body |= {'kind': jax.devices()[0].device_kind, **ceilings, 'rows': rows}
  path.write_text(json.dumps(body, indent=1) + '\n')


def _ceilings() -> dict[str, float]:
  """What this device reaches: a copy, and a large matrix product on random."""
  x = jax.random.normal(jax.random.key(0), (2**30,), jnp.bfloat16)
  a = jax.random.normal(jax.random.key(1), (8192, 8192), jnp.bfloat16)
  copy = jax.jit(lambda x: x + 1).lower(x).compile()
  product = jax.jit(jnp.matmul).lower(a, a).compile()
  fns = {
    'copy': functools.partial(copy, x),
    'product': functools.partial(product, a, a),
  }
  spent = seconds(fns, 10)
  return {
    'copy_gbps': round(2 * x.nbytes / spent['copy'] / 1e9),
    'matmul_tflops': round(2 * 8192**3 / spent['product'] / 1e12),
  }


if __name__ == '__main__':
  sys.exit(main())

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

  Args:
    fns: Compiled functions with their operands.
    repeats: Timed runs of each; fewer, but at least 3, once they took 10
      seconds.
  """
  flush = jax.jit(lambda x: x + 1)
  cold = jnp.zeros(_FLUSH // 4 if jax.default_backend() != 'cpu' else 1)
  times = {name: [] for name in fns}
  for fn in fns.values():
    jax.block_until_ready(fn())
  begin = time.perf_counter()
  for i in range(repeats):
    if i >= 3 and time.perf_counter() - begin > _PATIENCE:
      break
    for name, fn in fns.items():
      cold = jax.block_until_ready(flush(cold))
      start = time.perf_counter()
      jax.block_until_ready(fn())
      times[name].append(time.perf_counter() - start)
  return {name: float(np.median(x)) for name, x in times.items()}


def measure(case: cases.Case, repeats: int) -> list[dict[str, Any]]:
  """Compiles and times a case and its rivals; failures are rows too."""
  backend = jax.default_backend()
  wanted = {'cpu': ('xla',), 'tpu': ('tpu', 'xla')}.get(
    backend, ('triton', 'mosaic_gpu', 'xla')
  )
  served = {*case.implementations, 'xla'}
  fns = {
    name: functools.partial(case.run, name) for name in wanted if name in served
  }
  args = jax.jit(case.draw)(jax.random.key(0))
  rivals = {} if case.rival is None else _rivals(case, backend)
  compiled, calls, rows = {}, {}, []
  for name, fn in (fns | rivals).items():
    row = {'kernel': case.kernel, 'case': case.name, 'implementation': name}
    rows.append(row)
    try:
      given = args
      if name in rivals and case.rival_draw is not None:
        given = jax.jit(case.rival_draw)(*args)
      compiled[name] = jax.jit(fn).lower(*given).compile()
      call = functools.partial(compiled[name], *given)
      jax.block_until_ready(call())
      calls[name] = call
    except Exception as e:  # Out of memory, unsupported: a result to report.
      row['failed'] = ' '.join(str(e).split())[:300]
  times = seconds(calls, repeats)
  for row in rows:
    if row['implementation'] in times:
      _fill(row, case, compiled, times)
  _add_errors(rows, calls)
  return rows


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
  parser.add_argument('--repeats', default=20, type=int)
  parser.add_argument('--out', default=None, type=pathlib.Path)
  args = parser.parse_args(argv)
  names = [x for x in args.kernels.split(',') if x]
  found = cases.cpu() if jax.default_backend() == 'cpu' else cases.accelerator()
  if unknown := set(names) - {x.kernel for x in found}:
    print(f'No benchmark for {", ".join(sorted(unknown))} on this device.')
    return 2
  rows = []
  for case in found:
    if names and case.kernel not in names:
      continue
    for row in measure(case, args.repeats):
      rows.append(row)
      rest = {
        k: v
        for k, v in row.items()
        if k not in ('kernel', 'case', 'implementation')
      }
      numbers = ', '.join(f'{k} {v}' for k, v in rest.items())
      print(
        f'{row["kernel"]}, {row["case"]}, {row["implementation"]}: {numbers}',
        flush=True,
      )
  if args.out:
    body = {'device': device_name(), 'jax': jax.__version__, 'rows': rows}
    args.out.write_text(json.dumps(body, indent=1) + '\n')
  own = ('triton', 'mosaic_gpu', 'tpu', 'xla')
  failed = [x for x in rows if 'failed' in x and x['implementation'] in own]
  return int(bool(failed))


if __name__ == '__main__':
  sys.exit(main())

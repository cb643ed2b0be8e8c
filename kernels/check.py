# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares every compiled kernel with its reference on the device at hand.

  python -m jaxtok_kernels.check [--kernels=flash_attention] [--only=causal]
      [--implementations=triton] [--out=check.json] [--interpret]

The first thing to run on a new machine, before `bench`: a kernel may compile,
pass in interpret mode and still be wrong on a device. Values and gradients are
compared with `implementation='reference'` in float32 on the same device; a
second run must be bit-equal. Exits with 1 if anything differs. `--interpret`
does the same on a CPU with interpreted kernels.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtok_kernels import cases, dispatch, masks
from jaxtok_kernels.flash_attention import flash_attention
from jaxtok_kernels.state import AttentionState

_OWN = {'tpu': ('tpu', 'xla'), 'gpu': ('triton', 'mosaic_gpu', 'xla')}
# Relative Frobenius norm of the difference. Float32 rounds sums of about 100
# terms to 1e-6; bfloat16 rounds probabilities and results to 2 ** -9 each.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2, 'float16': 4e-3}


@dataclasses.dataclass(frozen=True)
class Check:
  """One comparison.

  Attributes:
    kernel: Name of the public function.
    name: What is special about it.
    run: Takes the implementation and the operands.
    draw: Makes the operands from a PRNG key.
    dtype: Of the operands; sets the tolerance.
  """

  kernel: str
  name: str
  run: Callable[..., Any]
  draw: Callable[[jax.Array], tuple[Any, ...]]
  dtype: str


def _normal(key, dtype, *shapes) -> list[jax.Array]:
  keys = jax.random.split(key, len(shapes))
  return [
    jax.random.normal(k, x, jnp.float32).astype(dtype)
    for k, x in zip(keys, shapes, strict=True)
  ]


def _segments(b: int, t: int) -> jax.Array:
  """Two documents and padding."""
  row = jnp.arange(t)
  ids = jnp.where(row < t // 3, 1, jnp.where(row < t - t // 5, 2, 0))
  return jnp.broadcast_to(ids, (b, t))


def _permuted(b: int, t: int, s: int) -> masks.MaskSpec:
  del b, t
  pos = jnp.asarray(np.random.default_rng(0).permutation(s))[None]
  return dataclasses.replace(masks.causal(s // 2), kv_pos=pos)


def _blocks(b: int, t: int, s: int) -> masks.MaskSpec:
  """Every second 128 x 128 block of a causal mask, per batch element."""
  num_q, num_kv = -(-t // 128), -(-s // 128)
  listed = np.indices((b, 1, num_q, num_kv)).sum(0) % 2 == 0
  return masks.blocks(
    masks.BlockLists(
      ids=jnp.asarray(np.argsort(~listed, -1, kind='stable'), jnp.int32),
      count=jnp.asarray(listed.sum(-1), jnp.int32),
      full=jnp.zeros(listed.shape, bool),
      block_q=128,
      block_kv=128,
    ),
    masks.causal(s - t),
  )


_MASKS = {
  'full': lambda b, t, s: masks.full(),
  'causal': lambda b, t, s: masks.causal(s - t),
  'window': lambda b, t, s: masks.window(60, offset=s - t),
  'sinks': lambda b, t, s: masks.sinks(4, 60, offset=s - t),
  'prefix': lambda b, t, s: masks.prefix(jnp.arange(b) * 70 + 5),
  'packed': lambda b, t, s: masks.packed(_segments(b, t)),
  'permuted keys': _permuted,
  'block lists': _blocks,
}


def _flash(
  kind: str,
  sizes: tuple[int, int, int, int, int, int],
  dtype: str = 'bfloat16',
  *,
  softcap: float | None = None,
  extras: bool = False,
  nan_from: int | None = None,
) -> Check:
  """A call with gradients, of out and of lse.

  Args:
    kind: Key of `_MASKS`.
    sizes: b, t, s, n, k, h.
    dtype: Of the operands.
    softcap: Bound on scores.
    extras: Whether to pass a sink and an incoming state, empty in places.
    nan_from: Keys from here on are NaN and hidden.
  """
  b, t, s, n, k, h = sizes

  def draw(key):
    q, keys, values = _normal(key, dtype, (b, t, n, h), *[(b, s, k, h)] * 2)
    out, lse, sink = _normal(key, 'float32', (b, t, n, h), (b, t, n), (n,))
    if nan_from is not None:
      keys, values = (x.at[:, nan_from:].set(jnp.nan) for x in (keys, values))
    if not extras:
      return (q, keys, values), {}
    out, lse = out.at[:, ::3].set(0), lse.at[:, ::3].set(-jnp.inf)
    return (q, keys, values), dict(sink=sink, state_in=AttentionState(out, lse))

  def loss(args, more, implementation):
    mask = _MASKS[kind](b, t, s)
    if nan_from is not None:
      mask = masks.lengths(jnp.full(b, nan_from), t)
    state = flash_attention(
      *args,
      mask=mask,
      softcap=softcap,
      return_state=True,
      implementation=implementation,
      **more,
    )
    lse = jnp.where(jnp.isfinite(state.lse), state.lse, 0)
    return jnp.sin(state.out).sum() + jnp.sin(lse).sum(), state

  def run(implementation, args, more):
    fn = functools.partial(loss, implementation=implementation)
    grads, state = jax.grad(fn, argnums=(0, 1), has_aux=True)(args, more)
    return state, grads

  name = f'{kind} b={b} t={t} s={s} heads={n}/{k} width={h} {dtype}'
  name += f' softcap={softcap}' if softcap else ''
  name += ' sink state_in' if extras else ''
  name += ' NaN in hidden keys' if nan_from is not None else ''
  return Check('flash_attention', name, run, draw, dtype)


def flash() -> list[Check]:
  """The stress set of flash attention."""
  kinds = [
    _flash(kind, (2, 256 if 'block' in kind else 192, 256, 4, 2, 64))
    for kind in _MASKS
    if kind not in ('prefix', 'packed')
  ]
  square = [
    _flash(kind, (2, 200, 200, 4, 2, 128)) for kind in ('prefix', 'packed')
  ]
  widths = [
    _flash('causal', (1, 130, 130, n, k, h))
    for n, k, h in (
      (1, 1, 16),
      (7, 1, 64),
      (8, 1, 80),
      (2, 2, 128),
      (4, 1, 192),
      (2, 1, 256),
    )
  ]
  odd = [
    _flash('causal', (2, 1, 300, 4, 1, 64)),
    _flash('full', (1, 333, 77, 2, 1, 64)),
    _flash('causal', (2, 150, 150, 4, 2, 64), 'float32'),
    _flash('packed', (2, 150, 150, 4, 2, 128), 'float32'),
    _flash('causal', (2, 150, 290, 4, 2, 64), softcap=5.0, extras=True),
    _flash('sinks', (2, 150, 290, 4, 2, 64), 'float32', extras=True),
    _flash('full', (2, 150, 290, 4, 2, 64), nan_from=100),
    _flash('full', (2, 150, 290, 4, 2, 128), nan_from=0),
  ]
  return [*kinds, *square, *widths, *odd]


def others() -> list[Check]:
  """Small cases of the other kernels, values only."""

  def check(case):
    leaves = jax.tree.leaves(case.shapes())
    floats = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    dtype = min(floats, key=str).name
    return Check(case.kernel, case.name, case.run, case.draw, dtype)

  return [check(case) for case in cases.small()]


def compare(check: Check, implementation: str) -> dict[str, Any]:
  """Runs a check; the row says 'ok', 'refused' with a reason, or 'wrong'."""
  row = dict(
    kernel=check.kernel, case=check.name, implementation=implementation
  )
  start = time.perf_counter()
  args = check.draw(jax.random.key(0))
  fn = jax.jit(functools.partial(check.run, implementation))
  # GPUs and TPUs multiply float32 in fewer bits unless told otherwise; the
  # kernels ask for themselves.
  in_full = implementation == 'xla' and check.dtype == 'float32'
  precision = jax.default_matmul_precision('highest' if in_full else None)
  try:
    with precision:
      runs = [jax.device_get(fn(*args)) for _ in range(2)]
  except NotImplementedError as e:
    return row | {'result': 'refused', 'reason': str(e)}
  except Exception as e:  # The device's compiler raises many types.
    text = ' '.join(str(e).split())[:400]
    return row | {'result': 'wrong', 'failed': f'{type(e).__name__}: {text}'}
  want = jax.device_get(_reference(check, args))
  worst = max(
    _difference(x, y)
    for x, y in zip(
      jax.tree.leaves(runs[0]), jax.tree.leaves(want), strict=True
    )
  )
  same = all(
    np.array_equal(x, y, equal_nan=True)
    for x, y in zip(*(jax.tree.leaves(x) for x in runs), strict=True)
  )
  right = worst <= TOLERANCE[check.dtype] and same
  return row | {
    'result': 'ok' if right else 'wrong',
    'error': float(f'{worst:.2g}'),
    'bit_equal': same,
    'seconds': round(time.perf_counter() - start, 1),
  }


def _reference(check: Check, args) -> Any:
  """In float32; gradients with respect to the given operands."""

  def widen(x):
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(jnp.float32) if is_float else x

  with (
    dispatch.interpret_mode(False),
    jax.default_matmul_precision('highest'),
  ):
    fn = jax.jit(functools.partial(check.run, 'reference'))
    return fn(*jax.tree.map(widen, args))


def _difference(x: np.ndarray, y: np.ndarray) -> float:
  """Relative Frobenius norm; infinite where infinities or integers differ."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return 0.0 if np.array_equal(x, y) else float('inf')
  x, y = (np.asarray(z, np.float64) for z in (x, y))
  finite = np.isfinite(y)
  if x.shape != y.shape or not np.array_equal(
    x[~finite], y[~finite], equal_nan=True
  ):
    return float('inf')
  error = np.linalg.norm(x[finite] - y[finite])
  size = np.linalg.norm(y[finite])
  # What should be all zero is compared as it is.
  return float(error / size) if size > 1e-6 else float(error)


def main(argv: list[str] | None = None) -> int:
  """Runs the checks; returns 1 if any result is wrong."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxtok_kernels.check',
    description='Compare every compiled kernel with its reference.',
  )
  parser.add_argument('--kernels', default='', help='names, comma separated')
  parser.add_argument('--only', default='', help='part of the case name')
  parser.add_argument(
    '--implementations', default='', help='ours, comma separated'
  )
  parser.add_argument(
    '--out', default=None, type=pathlib.Path, help='file for the numbers'
  )
  parser.add_argument(
    '--interpret', action='store_true', help='Pallas without the device'
  )
  parser.add_argument('--jobs', default=1, type=int, help='processes')
  parser.add_argument('--part', default='0/1', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.jobs > 1:
    return _in_parts(sys.argv[1:] if argv is None else argv, args)
  own = _OWN.get(jax.default_backend(), ('xla',))
  if args.interpret:
    own = ('tpu', 'triton')
  if args.implementations:
    own = tuple(args.implementations.split(','))
  kernels = [x for x in args.kernels.split(',') if x]
  mode = (
    dispatch.interpret_mode() if args.interpret else contextlib.nullcontext()
  )
  rows, checks = [], [*flash(), *others()]
  kernels = kernels or [x.kernel for x in checks]
  part, parts = map(int, args.part.split('/'))
  checks = [x for x in checks if x.kernel in kernels and args.only in x.name][
    part::parts
  ]
  with mode:
    for check in checks:
      for implementation in own:
        rows.append(compare(check, implementation))
        print(_line(rows[-1]), flush=True)
        _save(rows, args.out)
  return _report(rows, args.out)


def _in_parts(argv: list[str], args) -> int:
  """Deals the checks to processes: most of the time is spent compiling."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    outs = [pathlib.Path(folder) / f'{i}.json' for i in range(args.jobs)]
    command = [sys.executable, '-m', 'jaxtok_kernels.check', *argv, '--jobs=1']
    processes = [
      subprocess.Popen(
        [*command, f'--part={i}/{args.jobs}', f'--out={out}'],
        env=os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},
      )
      for i, out in enumerate(outs)
    ]
    for process, out in zip(processes, outs, strict=True):
      process.wait()
      if out.exists():
        rows += json.loads(out.read_text())['rows']
      if process.returncode not in (0, 1):
        row = dict(kernel='check', case=out.stem, implementation='')
        died = f'a process ended with {process.returncode}'
        rows.append(row | {'result': 'wrong', 'failed': died})
  return _report(rows, args.out)


def _report(rows: list[dict[str, Any]], out: pathlib.Path | None) -> int:
  count = lambda x: sum(row['result'] == x for row in rows)
  print(f'{count("ok")} ok, {count("refused")} refused, {count("wrong")} wrong')
  _save(rows, out)
  return int(count('wrong') > 0)


def _save(rows: list[dict[str, Any]], out: pathlib.Path | None) -> None:
  """After each check: a run that dies leaves what it found."""
  if out:
    device = jax.devices()[0].device_kind
    body = dict(device=device, jax=jax.__version__, rows=rows)
    out.write_text(json.dumps(body, indent=1) + '\n')


def _line(row: dict[str, Any]) -> str:
  head = f'{row["kernel"]}, {row["case"]}, {row["implementation"]}'
  rest = {
    k: v
    for k, v in row.items()
    if k not in ('kernel', 'case', 'implementation', 'result')
  }
  return f'{row["result"]:8}{head}: ' + ', '.join(
    f'{k} {v}' for k, v in rest.items()
  )


if __name__ == '__main__':
  sys.exit(main())

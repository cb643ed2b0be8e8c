# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times jaxtok against `transformers` in torch eager mode on this machine.

  pip install -e '.[parity]'
  python -m experiments.speed [--tasks=train,decode] [--rounds=7]

Same architecture (GPT-2), sizes, float32 and CPU cores. Each side runs in a
process of its own that may use `--threads` cores and no others (XLA heeds no
variable for its number of threads); both are prepared first (compilation and
warm-up are reported apart), then they take turns, so that each round has the
machine to itself. Prints tokens per second by the clock of both, and the median
of the ratios of neighbouring rounds with the lowest and highest.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from absl import app, flags

from experiments.speed.spec import Spec

FLAGS = flags.FLAGS

_MODULES = {
  'jaxtok': 'experiments.speed.jax_worker',
  'torch': 'experiments.speed.torch_worker',
}
_BATCH = {'train': 32, 'decode': 16}


@contextlib.contextmanager
def _cores(num: int) -> Iterator[None]:
  """Processes started inside may run on `num` of this one's cores only."""
  if not hasattr(os, 'sched_setaffinity'):
    if num != os.cpu_count():
      raise ValueError(
        f'threads={num}: this system cannot bind a process to cores. Use '
        f'threads={os.cpu_count()}, all that there are.'
      )
    yield
    return
  before = os.sched_getaffinity(0)
  if num > len(before):
    raise ValueError(
      f'threads={num}: this process may use {len(before)} cores. Use '
      f'threads={len(before)} or less.'
    )
  os.sched_setaffinity(0, sorted(before)[:num])
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


class Worker:
  """A process that answers one line per request."""

  def __init__(self, name: str, spec: Spec):
    """Starts the process and waits until it is prepared.

    Args:
      name: 'jaxtok' or 'torch'.
      spec: What to time, on how many cores.

    Raises:
      ValueError: If there are fewer cores, or the system cannot bind to them.
      RuntimeError: If the process stops.
    """
    env = os.environ | {
      'OMP_NUM_THREADS': str(spec.threads),
      'JAX_PLATFORMS': 'cpu',
      'TRANSFORMERS_VERBOSITY': 'error',
    }
    self._name = name
    with _cores(spec.threads):
      self._process = subprocess.Popen(
        [sys.executable, '-m', _MODULES[name]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
      )
    self.prepare_seconds = self._ask(json.dumps(dataclasses.asdict(spec)))[
      'prepare_seconds'
    ]

  @property
  def pid(self) -> int:
    """Of the process."""
    return self._process.pid

  def round(self) -> float:
    """Tokens per second of one round."""
    return self._ask('round')['tokens_per_second']

  def close(self) -> None:
    """Ends the process."""
    self._process.communicate()

  def _ask(self, line: str) -> dict[str, float]:
    stdin, stdout = self._process.stdin, self._process.stdout
    try:
      stdin.write(line + '\n')
      stdin.flush()
      answer = stdout.readline()
    except BrokenPipeError:
      answer = ''
    if not answer:
      self.close()
      raise RuntimeError(
        f'the {self._name} worker stopped; its error stands above. The torch '
        "side needs: pip install -e '.[parity]'"
      )
    return json.loads(answer)


def measure(spec: Spec, rounds: int) -> dict[str, Any]:
  """Rounds of both sides in turn; rates are tokens per second."""
  workers = {}
  with contextlib.ExitStack() as stack:
    for name in _MODULES:
      workers[name] = Worker(name, spec)
      stack.callback(workers[name].close)
    rates = {name: [] for name in workers}
    for i in range(rounds):
      for name in list(workers)[:: 1 if i % 2 else -1]:
        rates[name].append(workers[name].round())
  ratios = [a / b for a, b in zip(rates['jaxtok'], rates['torch'], strict=True)]
  return {
    'spec': dataclasses.asdict(spec),
    'tokens_per_second': {k: statistics.median(v) for k, v in rates.items()},
    'prepare_seconds': {k: w.prepare_seconds for k, w in workers.items()},
    'ratio': statistics.median(ratios),
    'ratio_range': [min(ratios), max(ratios)],
    'rounds': rounds,
  }


def _row(result: dict[str, Any]) -> str:
  rate, prepare = result['tokens_per_second'], result['prepare_seconds']
  low, high = result['ratio_range']
  return (
    f'{result["spec"]["task"]:<8}{rate["jaxtok"]:>12,.0f}{rate["torch"]:>12,.0f}'
    f'{result["ratio"]:>8.2f}x  ({low:.2f} to {high:.2f})'
    f'{prepare["jaxtok"]:>10.1f}{prepare["torch"]:>8.1f}'
  )


def main(_) -> None:
  """Times the tasks and prints the table."""
  results = []
  print(
    f'{"task":<8}{"jaxtok":>12}{"torch":>12}{"ratio":>9}  {"range":<14}'
    f'{"prepare s: jax":>16}{"torch":>6}'
  )
  print(f'{"":<8}{"tokens/s":>12}{"tokens/s":>12}')
  for task in FLAGS.tasks:
    spec = Spec(
      task=task,
      dim=FLAGS.dim,
      num_layers=FLAGS.num_layers,
      batch_size=FLAGS.batch_size or _BATCH.get(task, 1),
      threads=FLAGS.threads,
      steps=2 if task == 'train' else 1,
    )
    results.append(measure(spec, FLAGS.rounds))
    print(_row(results[-1]), flush=True)
  if FLAGS.out:
    pathlib.Path(FLAGS.out).write_text(json.dumps(results, indent=2) + '\n')
    print(f'written to {FLAGS.out}')


if __name__ == '__main__':
  flags.DEFINE_list('tasks', ['train', 'decode'], 'What to time.')
  flags.DEFINE_integer('rounds', 7, 'Rounds per side.', lower_bound=1)
  flags.DEFINE_integer('dim', 128, 'Model width.')
  flags.DEFINE_integer('num_layers', 4, 'Layers.')
  flags.DEFINE_integer('batch_size', 0, 'Rows; 0: 32 (train), 16 (decode).')
  flags.DEFINE_integer('threads', os.cpu_count() or 1, 'Cores per side.')
  flags.DEFINE_string('out', None, 'Write the results to this JSON file.')
  app.run(main)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and started again ends as if nothing had happened.

Claim (ours; no paper): after `kill -9` at any moment, the same command goes on
from the last checkpoint and writes the same metrics and the same parameters,
bit for bit, as a run that was never interrupted. (CPU; on accelerators some
reductions are not deterministic.)

Check. One small run trains without interruption. A second one, the same
command in another folder, is killed twice: each time a random number of steps
further on, and a random fraction of a second later, so that the kill may hit
a step, an eval, or the writing of a checkpoint. A third start finishes it. All
rows of metrics.jsonl but the keys that are times, and all parameters, are
compared.

The model is small because only its numbers' identity matters: data order, PRNG
keys, optimizer state, counters, partly filled metric windows and checkpoints
are those of any run.
"""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from experiments.ledger import claim
from jaxtok import runs
from jaxtok.runs import metrics
from jaxtok.train import checkpoint, tally

TITLE = 'Resume exactness'
PAPER = ''
CLAIM = (
  'A run killed with `kill -9` at random steps and started again gives '
  'bit-equal metrics and parameters.'
)
THRESHOLD = {
  'rows_that_differ': 'every <= 0',
  'arrays_that_differ': 'every <= 0',
  'kills': 'every >= 2',
}
SEEDS = (0, 1, 2)

_STEPS = 90
_KILLS = 2
_MAX_STEPS_TO_KILL = 30
_MAX_DELAY = 0.05  # Seconds.
_PATIENCE = 300.0  # Seconds to wait for a step.


def command(workdir: pathlib.Path, seed: int) -> list[str]:
  """Trains a small model: log, eval and checkpoint steps do not coincide."""
  return [
    *(sys.executable, '-m', 'experiments.byte_lm'),
    '--config=experiments/byte_lm/configs/transformer.py:tiny',
    f'--workdir={workdir}',
    f'--config.seed={seed}',
    f'--config.steps={_STEPS}',
    '--config.log_every=3',
    '--config.checkpoint_every=7',
    '--config.evals.val.every_steps=20',
    '--config.evals.val.max_bytes=20000',
    '--config.ema=0.9',
    '--config.num_microbatches=2',
  ]


def measure(workdir, *, seed: int) -> dict[str, float]:
  """Measures the claim; see the module."""
  whole, broken = (pathlib.Path(workdir) / x for x in ('whole', 'broken'))
  rng = random.Random(seed)
  _finish(command(whole, seed), whole)
  num_kills = 0
  for _ in range(_KILLS):
    step = _newest(broken) + rng.randrange(1, _MAX_STEPS_TO_KILL)
    delay = rng.uniform(0, _MAX_DELAY)
    num_kills += _kill_at(command(broken, seed), broken, step, delay)
  last = checkpoint_step(broken)
  _finish(command(broken, seed), broken)
  rows = [_rows(folder) for folder in (whole, broken)]
  arrays = [_arrays(folder) for folder in (whole, broken)]
  result = {
    'rows_that_differ': sum(a != b for a, b in zip(*rows, strict=False))
    + abs(len(rows[0]) - len(rows[1])),
    'arrays_that_differ': sum(
      arrays[0].get(name) != arrays[1].get(name)
      for name in arrays[0].keys() | arrays[1].keys()
    ),
    'kills': num_kills,
    'rows': len(rows[0]),
    'arrays': len(arrays[0]),
    'resumed_last_at_step': last,
  }
  for folder in (whole, broken):  # Large, and of no use any more.
    shutil.rmtree(folder / checkpoint.FOLDER)
  return result


def checkpoint_step(workdir: pathlib.Path) -> int:
  """The newest checkpoint; 0 if there is none."""
  folder = workdir / checkpoint.FOLDER
  steps = [int(p.name) for p in folder.glob('*') if p.name.isdigit()]
  return max(steps, default=0)


def _finish(args: list[str], workdir: pathlib.Path) -> None:
  done = subprocess.run(args, cwd=claim.ROOT, capture_output=True, text=True)
  if done.returncode:
    raise ValueError(
      f'{workdir} ended with exit code {done.returncode}: {done.stderr[-1000:]}'
    )


def _kill_at(
  args: list[str], workdir: pathlib.Path, step: int, delay: float
) -> int:
  """Starts a run and kills it after `step`; 1 if it was still running."""
  process = subprocess.Popen(
    args,
    cwd=claim.ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  try:
    limit = time.monotonic() + _PATIENCE
    while _newest(workdir) < step and process.poll() is None:
      if time.monotonic() > limit:
        raise ValueError(f'{workdir} did not reach step {step} in time.')
      time.sleep(0.005)
    time.sleep(delay)
    return int(process.poll() is None)
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()


def _newest(workdir: pathlib.Path) -> int:
  rows = metrics.read(workdir)
  return rows[-1]['step'] if rows else 0


def _rows(workdir: pathlib.Path) -> list[str]:
  """Rows of metrics.jsonl without times; floats as they were written."""
  return [
    json.dumps({k: v for k, v in row.items() if k not in tally.TIMING})
    for row in runs.load(workdir).metrics()
  ]


def _arrays(workdir: pathlib.Path) -> dict[str, Any]:
  """The bytes of each parameter by name."""
  params = checkpoint.restore_params(workdir)
  return {
    jax.tree_util.keystr(path): (x.shape, str(x.dtype), np.asarray(x).tobytes())
    for path, x in jax.tree.leaves_with_path(params)
  }

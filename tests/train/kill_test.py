# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Real processes that die: `kill -9` and SIGTERM from outside."""

import json
import os
import random
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxtok import config as config_lib
from jaxtok.runs import metrics
from jaxtok.train import checkpoint, optim, tally

PROGRAM = """
import json, sys
from jaxtok import config, train
from jaxtok.train import errors
try:
  train.run(config.from_dict(json.loads(sys.argv[1])), sys.argv[2])
except errors.Preempted as e:
  print(e)
  sys.exit(e.exit_code)
"""


@pytest.fixture(scope='module')
def start(make_config, tmp_path_factory):
  """Starts a process that trains for 30 steps and saves every third."""
  config = make_config(
    steps=30,
    log_every=2,
    checkpoint_every=3,
    optim=optim.Config(lr=1e-2, warmup_steps=5),
  )
  environ = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.mktemp('compiled')),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'TF_CPP_MIN_LOG_LEVEL': '3',  # XLA's remarks about cached CPU code.
  }
  text = json.dumps(config_lib.to_dict(config))

  def start(workdir):
    return subprocess.Popen(
      [sys.executable, '-c', PROGRAM, text, str(workdir)],
      env=environ,
      stdout=subprocess.PIPE,
      text=True,
    )

  return start


def finish(process):
  """Waits for the end; returns exit code and what was printed."""
  with process:
    output = process.stdout.read()
  return process.returncode, output


def signal_after(process, step, number):
  """Sends a signal once the process says that it has done `step` steps."""
  with process:
    for line in process.stdout:
      words = line.split()
      if words[0] == 'step' and int(words[1].split('/')[0]) >= step:
        process.send_signal(number)
        break
    process.stdout.read()
  return process.returncode


def rows(workdir):
  """Rows without what depends on the machine's mood."""
  return [
    {k: v for k, v in row.items() if k not in tally.TIMING}
    for row in metrics.read(workdir)
  ]


def test_kill_9_and_sigterm_at_random_steps_leave_no_trace(start, tmp_path):
  undisturbed, workdir = tmp_path / 'undisturbed', tmp_path / 'run'
  assert finish(start(undisturbed))[0] == 0
  first, second = random.randint(4, 10), random.randint(14, 22)
  print(f'SIGKILL after step {first} or later, SIGTERM after {second} or later')

  assert signal_after(start(workdir), first, signal.SIGKILL) == -signal.SIGKILL
  assert metrics.read(workdir)[-1]['step'] < 30

  assert signal_after(start(workdir), second, signal.SIGTERM) == 75
  saved = max(int(path.name) for path in (workdir / 'checkpoints').iterdir())
  assert second <= saved < 30

  code, output = finish(start(workdir))
  assert code == 0
  assert f'continues after step {saved} of 30' in output
  assert rows(workdir) == rows(undisturbed)
  jax.tree.map(
    np.testing.assert_array_equal,
    checkpoint.restore_params(workdir),
    checkpoint.restore_params(undisturbed),
  )

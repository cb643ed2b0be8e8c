# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Two real processes with two devices each, as one run."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxtok import config as config_lib
from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.runs import metrics
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import checkpoint, errors, optim, sharding

pytestmark = pytest.mark.multihost

# Gloo writes to C's stdout, from several threads at once, so its lines may be
# broken: what Python prints gets the pipe to itself.
PROGRAM = """
import json, os, sys
sys.stdout = open(os.dup(1), 'w', buffering=1)
os.dup2(2, 1)
import jax
jax.config.update('jax_num_cpu_devices', 2)
from jaxtok import config, train
from jaxtok.train import errors
try:
  train.run(config.from_dict(json.loads(sys.argv[1])), sys.argv[2])
except errors.RunError as e:
  print(e)
  sys.exit(e.exit_code)
"""


@pytest.fixture(scope='module')
def make_config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('corpus')
  for i in range(40):
    words = [
      'the',
      'old',
      'bank',
      'of',
      'a',
      'river',
      'is',
      'under',
      'one',
      'bridge',
    ]
    (folder / f'{i}.txt').write_text(' '.join(words[i % 7 :] * 9))

  def make(**changes):
    fields = dict(
      data=text.Config(source=text.Files(path=str(folder)), seq_len=16),
      tokenizer=byte_tokenizer.Config(),
      model=transformer.Config(dim=16, num_layers=1, num_heads=2),
      objective=next_token.Config(num_chunks=1),
      optim=optim.Config(
        lr=1e-2,
        warmup_steps=2,
        eps=1e-3,
        schedule=optim.Schedule.CONSTANT,
      ),
      mesh=sharding.Config(data=2, model=2),
      evals={'val': bpb.Config(every_steps=4, max_bytes=300)},
      steps=4,
      batch_size=8,
      log_every=2,
      checkpoint_every=100,
    )
    return train.Config(**(fields | changes))

  return make


@pytest.fixture
def start(tmp_path):
  """Starts a run of two processes."""
  processes = []

  def start(config, workdirs):
    with socket.socket() as s:
      s.bind(('127.0.0.1', 0))
      port = s.getsockname()[1]
    argument = json.dumps(config_lib.to_dict(config))
    for i, workdir in enumerate(workdirs):
      environ = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': str(i),
        'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
      }
      processes.append(
        subprocess.Popen(
          [sys.executable, '-c', PROGRAM, argument, str(workdir)],
          env=environ,
          stdout=subprocess.PIPE,
          text=True,
        )
      )
    return processes[-2:]

  yield start
  for process in processes:
    if process.poll() is None:
      process.kill()
    process.stdout.close()
    process.wait()


def finish(pair):
  """Exit codes, and what was printed."""
  outputs = [process.communicate(timeout=500)[0] for process in pair]
  return [process.returncode for process in pair], outputs


def test_a_run_of_two_processes_continues_on_one(make_config, start, tmp_path):
  alone, workdir = tmp_path / 'alone', tmp_path / 'run'
  codes, outputs = finish(start(make_config(), [workdir] * 2))
  assert codes == [0, 0]
  assert '4 x cpu, mesh data=2 model=2' in outputs[0]
  assert outputs[1] == ''  # Only process 0 speaks.
  one = sharding.Config(data=1, model=4)
  train.run(make_config(steps=8, mesh=one), workdir)
  train.run(make_config(steps=8, mesh=sharding.Config(data=1)), alone)
  got, want = metrics.read(workdir), metrics.read(alone)
  assert [row['step'] for row in got] == [2, 4, 4, 6, 8, 8]
  for a, b in zip(got, want, strict=True):
    for key in ('step', 'split', 'bytes', 'tokens', 'corpus'):
      assert a.get(key) == b.get(key)
    # Sums in another order; see tests/train/step_test.py.
    assert a['bpb'] == pytest.approx(b['bpb'], rel=1e-5)


def test_sigterm_to_one_process_stops_and_saves_both(
  make_config, start, tmp_path
):
  workdir = tmp_path / 'run'
  config = make_config(steps=10_000, evals={}, log_every=1)
  pair = start(config, [workdir] * 2)
  for line in pair[0].stdout:
    if line.startswith('step 3/'):
      pair[1].send_signal(signal.SIGTERM)
      break
  codes, outputs = finish(pair)
  assert codes == [errors.Preempted.exit_code] * 2
  assert 'SIGTERM: saved step' in outputs[0]
  (step,) = (int(path.name) for path in (workdir / 'checkpoints').iterdir())
  assert metrics.read(workdir)[-1]['step'] == step
  leaves = checkpoint.restore_params(workdir, step)['embed']['tokens']['table']
  assert np.isfinite(leaves).all()


def test_a_workdir_that_is_not_shared_is_told_at_once(
  make_config, start, tmp_path
):
  pair = start(make_config(), [tmp_path / 'a', tmp_path / 'b'])
  codes, outputs = finish(pair)
  assert codes == [errors.WorkdirError.exit_code] * 2
  for output in outputs:
    assert 'process 1 does not see what process 0 wrote' in output

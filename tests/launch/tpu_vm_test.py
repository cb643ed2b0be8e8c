# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The TPU VM script says the right commands, and quotes them rightly."""

import os
import pathlib
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / 'launch' / 'tpu_vm.sh'

# Plays the TPU VM: runs the command of `ssh` in the folder $VM.
FAKE_GCLOUD = """#!/bin/bash
for arg in "$@"; do
  case "$arg" in --command=*) cd "$VM" && exec bash -c "${arg#*=}" ;; esac
done
"""


def call(*args: str, env: dict[str, str] | None = None):
  return subprocess.run(
    ['bash', str(SCRIPT), *args],
    capture_output=True,
    text=True,
    env=os.environ | (env or {}),
    check=False,
  )


@pytest.mark.parametrize(
  'args, parts',
  [
    (
      ['create', '--type=v5litepod-16', '--spot'],
      ['tpu-vm create n --zone=z', 'v2-alpha-tpuv5-lite', '--spot'],
    ),
    (['create', '--type=v6e-8'], ['v2-alpha-tpuv6e']),
    (['install'], ['git -C', 'tpu-vm scp', '--worker=all', '.[tpu']),
    (['run', '--', 'python', '-m', 'x'], ['--worker=all', 'nohup']),
    (['logs'], ['--worker=0', 'run.log']),
    (['delete'], ['tpu-vm delete n', '--quiet']),
  ],
)
def test_print_only_shows_each_command(args, parts):
  head, *rest = args
  result = call(head, '--name=n', '--zone=z', '--print_only', *rest)
  assert result.returncode == 0, result.stderr
  for part in parts:
    assert part in result.stdout


@pytest.mark.parametrize(
  'args, message',
  [
    (['start'], "action 'start' does not exist"),
    (['create', '--name=n', '--zone=z', '--print_only'], '--type is missing'),
    (['run', '--name=n', '--zone=z', '--print_only'], 'no command'),
    (['logs', '--zone=z', '--print_only'], '--name is missing'),
    (['logs', '--nmae=n'], "flag '--nmae=n' does not exist"),
  ],
)
def test_mistakes_get_a_sentence_and_exit_code_2(args, message):
  result = call(*args)
  assert result.returncode == 2
  assert message in result.stderr


def test_run_starts_again_after_exit_code_75_and_keeps_quotes(tmp_path):
  (tmp_path / 'vm' / 'jaxtok').mkdir(parents=True)
  gcloud = tmp_path / 'bin' / 'gcloud'
  gcloud.parent.mkdir()
  gcloud.write_text(FAKE_GCLOUD)
  gcloud.chmod(0o755)
  job = tmp_path / 'job.sh'
  job.write_text(
    'echo "got [$1]"; test -e again || { touch again; exit 75; }; echo end\n'
  )
  env = {
    'PATH': f'{gcloud.parent}:{os.environ["PATH"]}',
    'VM': str(tmp_path / 'vm'),
  }
  command = ['--', 'bash', str(job), "two words & it's $HOME"]
  result = call('run', '--name=n', '--zone=z', *command, env=env)
  assert result.returncode == 0, result.stderr
  log = tmp_path / 'vm' / 'run.log'
  deadline = time.monotonic() + 20
  while 'end' not in (log.read_text() if log.exists() else ''):
    assert time.monotonic() < deadline, 'the command never ended'
    time.sleep(0.05)
  line = "got [two words & it's $HOME]"
  assert log.read_text().splitlines() == [line, line, 'end']

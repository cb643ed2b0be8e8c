# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The timer and a worker, on a model that compiles in seconds."""

import io
import json
import os

import pytest

from experiments.speed import __main__ as speed
from experiments.speed import spec as spec_lib

TINY = dict(dim=8, num_layers=1, num_heads=1, seq_len=8, batch_size=2)


@pytest.mark.slow
def test_a_worker_trains_on_the_cores_it_was_given():
  before = os.sched_getaffinity(0)
  worker = speed.Worker('jaxtok', spec_lib.Spec(**TINY, threads=1, steps=1))
  try:
    assert os.sched_getaffinity(0) == before
    # Every thread: those of XLA are made late, and inherit.
    threads = [int(t) for t in os.listdir(f'/proc/{worker.pid}/task')]
    assert len(threads) > 1
    cores = {frozenset(os.sched_getaffinity(t)) for t in threads}
    assert [len(c) for c in cores] == [1]
    assert worker.prepare_seconds > 0
    assert worker.round() > 0
  finally:
    worker.close()


def test_more_cores_than_there_are_are_refused():
  num = len(os.sched_getaffinity(0))
  with pytest.raises(ValueError, match=f'may use {num} cores'):
    speed.Worker('jaxtok', spec_lib.Spec(threads=num + 1))


def test_a_worker_that_stops_is_named(monkeypatch):
  monkeypatch.setitem(speed._MODULES, 'torch', 'experiments.speed.spec')
  with pytest.raises(RuntimeError, match='the torch worker stopped'):
    speed.Worker('torch', spec_lib.Spec(threads=1))


def test_a_round_is_all_steps_and_rates_count_their_tokens(monkeypatch, capsys):
  steps = []
  clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 24.0])
  monkeypatch.setattr(spec_lib.time, 'perf_counter', lambda: next(clock))
  spec = dict(TINY, task='decode', num_tokens=6, steps=3)
  lines = [json.dumps(spec), 'round', 'round']
  monkeypatch.setattr(spec_lib.sys, 'stdin', io.StringIO('\n'.join(lines)))

  def prepare(spec):
    assert spec == spec_lib.Spec(**TINY, task='decode', num_tokens=6, steps=3)
    return lambda: steps.append(1)

  spec_lib.serve(prepare)
  said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  tokens = 3 * 2 * 6  # Steps, rows, tokens of each.
  assert said == [
    {'prepare_seconds': 5.0},
    {'tokens_per_second': tokens / 2},
    {'tokens_per_second': tokens / 4},
  ]
  assert len(steps) == 6

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np

from jaxtok.objectives.base import Mean
from jaxtok.train import progress
from jaxtok.train.step import StepMetrics
from jaxtok.train.tally import TIMING, Tally


def metrics(total, weight, bad=-1):
  means = {'loss': Mean(np.float32(total), np.float32(weight))}
  count = np.int32(10)
  return StepMetrics(means=means, tokens=count, bytes=count * 2, bad=bad)


def test_rows_hold_weighted_means_and_running_counts():
  counters = Tally(flops_per_step=7.0)
  assert counters.add(metrics(3.0, 1.0), 0.5) == -1
  assert counters.add(metrics(1.0, 3.0, bad=4), 0.5) == 4
  row = counters.row()
  assert row == {
    'loss': 1.0,
    'bytes': 40,
    'tokens': 20,
    'flops': 14.0,
    'seconds': 1.0,
    'bytes_per_second': 40.0,
    'flops_per_second': 14.0,
  }
  counters.add(metrics(5.0, 1.0), 0.25)
  row = counters.row()
  assert (row['loss'], row['bytes'], row['bytes_per_second']) == (5, 60, 80)


def test_a_tally_continues_from_json_in_the_middle_of_a_row():
  straight, broken = Tally(flops_per_step=7.0), Tally(flops_per_step=7.0)
  values = np.random.default_rng(0).random((9, 2)).tolist()
  for i, value in enumerate(values):
    straight.add(metrics(*value), 0.1)
    broken.add(metrics(*value), 0.1)
    broken = Tally.from_json(json.loads(json.dumps(broken.to_json())), 7.0)
    if i == 3:
      assert straight.row() == broken.row()
  assert straight.row() == broken.row()


def test_flops_go_on_from_those_spent_when_steps_become_dearer():
  counters = Tally(flops_per_step=7.0)
  counters.add(metrics(1.0, 1.0), 0.5)
  counters.row()
  resumed = Tally.from_json(counters.to_json(), 28.0)
  resumed.add(metrics(1.0, 1.0), 0.5)
  row = resumed.row()
  assert (row['flops'], row['flops_per_second']) == (35.0, 56.0)


def test_lines_are_short_and_in_familiar_units():
  row = {
    'bpb': 2.3149, 'loss': 4.2091, 'tokens_per_byte': 0.3811,
    'bytes_per_second': 41_230.0, 'flops_per_second': 4.1e9,
  }  # fmt: skip
  assert progress.train_line(40, 100, row, 0.233) == (
    'step 40/100  bpb 2.315  loss 4.209 nats/tok  0.38 tok/byte  41.2 kB/s  '
    '4.1e+09 FLOP/s  eta 0:14'
  )
  assert set(TIMING) & set(row) == {'bytes_per_second', 'flops_per_second'}
  assert progress.duration(7384) == '2:03:04'
  table = progress.eval_table(
    8, {'val': {'bpb': 2.31449, 'bpb_se': 0.0123, 'rows': 9, 'corpus': 'ab'}}
  )
  assert table == 'eval 8  val        bpb 2.3145 +- 0.012  rows 9'

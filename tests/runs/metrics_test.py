# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import math
import random

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.runs import files, metrics


def writer(workdir, **kwargs):
  return metrics.Writer(workdir, **{'tensorboard': False, **kwargs})


def test_rows_come_back_with_the_same_bits(tmp_path):
  rng = random.Random(0)
  values = [
    rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300) for _ in range(99)
  ]
  with_scalars = {'np': np.float32(0.1), 'jax': jnp.float32(0.1), 'n': 3}
  w = writer(tmp_path)
  for i, value in enumerate(values):
    w.write(i, 'train', {'x': value})
  w.write(99, 'eval/val', with_scalars | {'corpus': 'abc', 'nan': math.nan})
  rows = metrics.read(tmp_path)  # Before close: each row is flushed.
  assert [row['x'] for row in rows[:-1]] == values
  last = rows[-1]
  assert last['np'] == last['jax'] == float(np.float32(0.1))
  assert (last['step'], last['split'], last['n']) == (99, 'eval/val', 3)
  assert math.isnan(last['nan'])
  w.close()


@pytest.mark.parametrize('cut', [1, 10, 25])
def test_a_torn_last_line_is_ignored_and_then_overwritten(tmp_path, cut):
  w = writer(tmp_path)
  w.write(1, 'train', {'x': 1.0})
  w.write(2, 'train', {'x': 2.0})
  w.close()
  path = tmp_path / metrics.FILENAME
  path.write_bytes(path.read_bytes()[:-cut])
  kept = 2 if cut == 1 else 1  # Only the newline is missing: still a row.
  assert len(metrics.read(tmp_path)) == kept
  w = writer(tmp_path)
  w.write(3, 'train', {'x': 3.0})
  steps = [row['step'] for row in metrics.read(tmp_path)]
  assert steps == [*[1, 2, 3][:kept], 3]
  w.close()


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
  text = '{"step": 1}\nnonsense\n{"step": 2}\n'
  (tmp_path / metrics.FILENAME).write_text(text)
  with pytest.raises(ValueError, match='line 2'):
    metrics.read(tmp_path)


def test_truncate_drops_later_rows_and_appends_after_it(tmp_path):
  w = writer(tmp_path)
  for step in (1, 2, 3, 4):
    w.write(step, 'train', {'x': 0.1})
    w.write(step, 'eval/val', {'x': 0.1})
  before = (tmp_path / metrics.FILENAME).read_text().splitlines()
  w.truncate(2)
  w.write(3, 'train', {'x': 0.2})
  w.close()
  after = (tmp_path / metrics.FILENAME).read_text().splitlines()
  assert after[:-1] == before[:4]
  assert json.loads(after[-1]) == {'step': 3, 'split': 'train', 'x': 0.2}


def test_a_repeated_measurement_replaces_its_row(tmp_path):
  with contextlib.closing(metrics.Writer(tmp_path)) as writer:
    first = {'bpb': 2.0, 'corpus': 'a', 'bytes': 9}
    writer.replace(4, 'eval/val', first)
    writer.replace(4, 'eval/val', first | {'bytes': 8})
    writer.replace(5, 'eval/val', first)
    writer.replace(4, 'eval/val', first | {'bpb': 1.0})
  found = [(r['step'], r['bytes'], r['bpb']) for r in metrics.read(tmp_path)]
  assert found == [(4, 8, 2.0), (5, 9, 2.0), (4, 9, 1.0)]


def test_object_stores_get_whole_files(tmp_path, monkeypatch):
  w = writer(tmp_path)
  w.write(1, 'train', {'x': 1.0})
  w.close()
  monkeypatch.setattr(files, 'is_local', lambda path: False)
  w = writer(tmp_path)
  w.write(2, 'train', {'x': 2.0})
  assert [row['step'] for row in metrics.read(tmp_path)] == [1, 2]
  w.close()
  w.write(3, 'train', {'x': 3.0})
  assert [row['step'] for row in metrics.read(tmp_path)] == [1, 2, 3]


def test_what_is_not_a_scalar_is_refused_by_name(tmp_path):
  w = writer(tmp_path)
  with pytest.raises(TypeError, match=r"'grads'.*ndarray"):
    w.write(1, 'train', {'grads': np.zeros(3)})
  with pytest.raises(ValueError, match="'step'"):
    w.write(1, 'train', {'step': 3})
  assert metrics.read(tmp_path) == []


def test_tensorboard_holds_the_same_scalars(tmp_path):
  pytest.importorskip('tensorboardX')
  from tensorboardX.proto import event_pb2

  w = metrics.Writer(tmp_path)
  w.write(7, 'train', {'bpb': 2.5, 'name': 'text is left out'})
  w.close()
  (path,) = (tmp_path / 'tb').glob('events*')
  data, found = path.read_bytes(), []
  while data:  # Records: length, 4 bytes of checksum, payload, 4 of checksum.
    size = int.from_bytes(data[:8], 'little')
    event = event_pb2.Event.FromString(data[12 : 12 + size])
    found += [(v.tag, v.simple_value, event.step) for v in event.summary.value]
    data = data[16 + size :]
  assert found == [('train/bpb', 2.5, 7)]

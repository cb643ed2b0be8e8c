# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import os

import jax
import numpy as np
import pytest

from jaxtok.train import distributed, errors, sharding


@pytest.mark.parametrize(
  'environ, count',
  [
    ({}, 1),
    ({'JAX_NUM_PROCESSES': '4', 'SLURM_STEP_NUM_TASKS': '9'}, 4),
    ({'SLURM_STEP_NUM_TASKS': '8'}, 8),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, 2),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, 1),
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c,d'}, 4),
  ],
)
def test_the_environment_tells_how_many_processes_there_are(environ, count):
  assert distributed.num_processes(environ) == count


def test_an_incomplete_environment_is_explained(monkeypatch):
  monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
  monkeypatch.setenv('JAX_PROCESS_ID', '0')
  with pytest.raises(
    errors.ConfigError, match='JAX_COORDINATOR_ADDRESS is not'
  ):
    distributed.initialize()


def test_a_coordinator_stands_for_the_environment(monkeypatch):
  for name in ('COORDINATOR_ADDRESS', 'NUM_PROCESSES', 'PROCESS_ID'):
    monkeypatch.setenv(f'JAX_{name}', '')  # To be restored.
  distributed.set_coordinator('10.0.0.2:1234,4,3')
  assert os.environ['JAX_COORDINATOR_ADDRESS'] == '10.0.0.2:1234'
  assert os.environ['JAX_PROCESS_ID'] == '3'
  assert distributed.num_processes() == 4


@pytest.mark.parametrize('value', ['', 'host:1', 'host,2,0', 'host:1,2,2'])
def test_a_coordinator_of_another_form_is_refused(value):
  with pytest.raises(errors.ConfigError, match='HOST:PORT,COUNT,INDEX'):
    distributed.set_coordinator(value)


def test_nothing_is_initialised_for_one_process(monkeypatch):
  monkeypatch.delenv('JAX_NUM_PROCESSES', raising=False)
  monkeypatch.setattr(
    jax.distributed, 'initialize', lambda **_: pytest.fail('called')
  )
  distributed.initialize()


@pytest.mark.parametrize('changes', [{}, {'data': 2, 'model': 4}, {'seq': 2}])
def test_one_process_reads_and_places_the_whole_batch(changes):
  mesh = sharding.Config(**changes).make()
  assert distributed.reader(mesh, 16) == (0, 1)
  batch = {
    'tokens_bt': np.arange(64, dtype=np.int32).reshape(16, 4),
    'rewards_b': np.arange(16, dtype=np.float32),
  }
  placed = distributed.put_batch(batch, mesh)
  for key, value in batch.items():
    np.testing.assert_array_equal(placed[key], value)
    rows = {s.data.shape[0] for s in placed[key].addressable_shards}
    assert rows == {16 // mesh.shape['data']}


def test_values_of_one_process_are_gathered_as_they_are():
  assert distributed.gather({'row': 2**60}) == [{'row': 2**60}]

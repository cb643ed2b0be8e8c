# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The seconds of a run are those that pass, not those that dispatch takes."""

import time
import types

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.objectives.base import Mean
from jaxtok.train import progress, record, setup, step, tally

SLEEP = 0.2


@jax.jit
def slow_metrics():
  """Metrics that the device takes `SLEEP` seconds to make."""

  def work():
    time.sleep(SLEEP)
    return np.float32(1.0)

  one = jax.pure_callback(work, jax.ShapeDtypeStruct((), jnp.float32))
  return step.StepMetrics(
    means={'loss': Mean(one, one)},
    tokens=jnp.int32(1),
    bytes=jnp.int32(1),
    bad=jnp.int32(-1),
  )


def test_waiting_for_the_device_counts_as_training_time(tmp_path):
  job = object.__new__(setup.Job)  # What a recorder reads, and no more.
  config = types.SimpleNamespace(log_every=10)
  vars(job).update(workdir=tmp_path, steps=4, config=config)
  counters = tally.Tally(flops_per_step=1.0)
  recorder = record.Recorder(job, counters, progress.Progress(enabled=False))
  slow_metrics()  # Compiled here.
  recorder.begin()
  for _ in range(3):
    recorder.push({}, slow_metrics())
  recorder.collect()
  recorder.close()
  assert counters.step == 3
  assert counters.seconds >= 3 * SLEEP

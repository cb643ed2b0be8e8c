# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The evals of a run: built once, run when they are due."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jaxtok.evals import base
from jaxtok.train import distributed
from jaxtok.train.setup import Job
from jaxtok.train.state import State


class Evals:
  """The evals of `config.evals` by name.

  Args:
    job: The run.
  """

  def __init__(self, job: Job):
    self._job = job
    fields = {}
    if hasattr(job.text, 'left_out'):
      fields['left_out'] = job.text.left_out
    context = base.Context(
      tokenizer=job.tokenizer,
      batches=self._batches,
      corpus_id=job.text.corpus_id,
      objective=job.objective,
      workdir=job.workdir,
      **fields,
    )
    self._configs = job.config.evals
    self._evals = {k: c.make(context) for k, c in self._configs.items()}

  def due(self, step: int) -> list[str]:
    """Names of the evals to run after `step`; all of them after the last."""
    if step == self._job.steps:
      return list(self._evals)
    every = {name: c.every_steps for name, c in self._configs.items()}
    return [name for name, n in every.items() if n > 0 and step % n == 0]

  def run(
    self,
    names: Iterable[str],
    state: State,
    stopped: Callable[[], bool] = lambda: False,
  ) -> dict[str, Any]:
    """Results by eval. Each eval draws the same random numbers every time.

    Args:
      names: Which evals.
      state: The training state.
      stopped: Asked before each eval; True leaves it and all others out.
    """
    model = self._job.layout.model(state)
    results = {}
    for name in names:
      if stopped():
        break
      key = jax.random.key(self._job.config.seed)
      rng = jax.random.fold_in(key, zlib.crc32(name.encode()))
      results[name] = self._evals[name](model, rng)
    return results

  def _batches(self, split: str, max_bytes: int = 0) -> Iterator[Any]:
    config, mesh = self._job.config, self._job.layout.mesh
    index, count = self._job.reader
    rows = config.batch_size // config.num_microbatches
    for batch in self._job.text.eval_batches(
      split,
      batch_size=rows // count,
      max_bytes=max_bytes,
      process_index=index,
      process_count=count,
    ):
      yield distributed.put_batch(batch, mesh)


def score(results: dict[str, dict[str, Any]]) -> float | None:
  """What the best checkpoint has the least of: the first bits per byte."""
  for values in results.values():
    for key, value in values.items():
      if key.startswith('bpb') and not key.endswith('_se'):
        return float(value)
  return None

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop.

An experiment that needs another loop writes its own from the same parts.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax

from jaxtok import config as config_lib
from jaxtok.runs import meta
from jaxtok.runs import run as run_lib
from jaxtok.train import (
  checkpoint,
  distributed,
  errors,
  evaluate,
  host_memory,
  lock,
  progress,
  record,
  report,
  restore,
  setup,
  stop,
  trace,
)
from jaxtok.train import step as step_lib
from jaxtok.train.config import Config


def run(
  config: Config,
  workdir: str | os.PathLike | None,
  *,
  init_from: str | None = None,
  allow_config_change: bool = False,
  eval_only: bool = False,
  dry_run: bool = False,
  profile: tuple[int, ...] = (),
  debug_nans: bool = False,
  debug: bool = False,
) -> run_lib.Run | None:
  """Trains a model, or goes on training it: the same call resumes.

  Args:
    config: Everything that determines the run.
    workdir: The run directory; continued if it has a checkpoint. May be None
      in a dry run.
    init_from: What this run starts from, unless it has a checkpoint of its
      own: the weights of a run ('RUN' or 'RUN@STEP'), or of a folder that
      `models.interop` loads. A model of another kind is taken if `model`
      says so (`new_parts` of `models.base`), e.g. a ByT5 by MrT5.
    allow_config_change: Continue although model, tokenizer, data or seed are
      not those that the run began with.
    eval_only: Restore, run all evals, and stop.
    dry_run: Print the plan, compile, estimate memory, and stop.
    profile: First and last step to trace into `<workdir>/profile`.
    debug_nans: Stop at the operation that makes the first NaN.
    debug: Run without jit, so that `print` and debuggers work in the model.

  Returns:
    The run directory; None after a dry run.

  Raises:
    RunError: One of `jaxtok.train.errors`, e.g. `Preempted`.
    ValueError: If the config is impossible.
  """
  config_lib.check(config)
  host_memory.keep_freed()
  distributed.initialize()
  out = progress.Progress(enabled=distributed.is_main())
  with contextlib.ExitStack() as stack:
    where = None if dry_run else workdir
    stack.enter_context(setup.modes(where, debug=debug, debug_nans=debug_nans))
    stopping = stack.enter_context(stop.Stop())
    if eval_only:
      restore.check_weights(workdir, init_from)
    job = setup.prepare(config, where, allow_config_change=allow_config_change)
    tracer = stack.enter_context(
      contextlib.closing(trace.Tracer(workdir, profile))
    )
    if init_from is not None:
      restore.locate(init_from)
    out.say(job.report())
    if dry_run:
      _compile(job, out)
      return None
    out.say(_changes(job))
    run_dir = stack.enter_context(_session(job, eval_only))
    stack.enter_context(jax.set_mesh(job.layout.mesh))
    checkpoints = stack.enter_context(
      contextlib.closing(
        checkpoint.Checkpoints(job.workdir, max_to_keep=config.max_to_keep)
      )
    )
    batches = stack.enter_context(contextlib.closing(job.batches()))
    evals = evaluate.Evals(job)
    start = restore.begin(job, checkpoints, batches, init_from)
    state = start.state
    out.say(report.block({'start': start.origin}))
    recorder = stack.enter_context(
      contextlib.closing(record.Recorder(job, start.tally, out))
    )
    if eval_only:
      recorder.evals(evals.run(config.evals, state))
      return run_dir
    recorder.begin()
    recorder.evals(evals.run(start.due, state))
    if start.tally.step == job.steps:
      out.say(_farewell(job))
      return run_dir
    step_fn = job.step_function() if debug else _compile(job, out)
    stopping.wait_for_steps()
    recorder.skip_time()
    for step in range(start.tally.step + 1, job.steps + 1):
      tracer.before(step)
      batch = next(batches)
      arrays = distributed.put_batch(batch, job.layout.mesh)
      state, metrics = step_fn(state, arrays)
      recorder.push(batch, metrics)
      due, score = evals.due(step), None
      stops = stopping.requested(step, checkpoints)
      saves = stops or step == job.steps or step % config.checkpoint_every == 0
      if not due and not saves:
        continue
      recorder.collect()
      if due and not stops:
        results = evals.run(due, state, lambda: bool(stopping.reason))
        recorder.evals(results)
        score = evaluate.score(results)
        due = [name for name in due if name not in results]
        stops = bool(due)  # They are left for later.
        saves = saves or stops
      if saves:
        recorder.flush()
        checkpoints.save(
          step,
          state,
          data=distributed.gather(batches.get_state()),
          meta=_meta(job, start.tally, due),
          score=score,
        )
      recorder.skip_time()
      if stops and (step < job.steps or due):
        checkpoints.wait()
        raise errors.Preempted(
          f'{stopping.reason}: saved step {step} of {job.steps} in '
          f'{job.workdir}. The same command continues from there.'
        )
    checkpoints.wait()
  out.say(_farewell(job))
  return run_dir


def _compile(job: setup.Job, out: progress.Progress) -> Any:
  """The compiled step; prints the memory it needs."""
  compiled = step_lib.compile_step(job.layout, job.step_function(), job.batch)
  memory = report.memory_line(compiled, job.layout.mesh.size)
  out.say(report.block({'memory': memory}))
  return compiled


def _changes(job: setup.Job) -> str:
  """The fields that differ from those with which the run was last trained."""
  if not setup.has_checkpoints(job.workdir):
    return ''
  fixed, others = run_lib.changes(run_lib.Run(job.workdir), job.config)
  changes = config_lib.format_diff(fixed | others).splitlines()
  return report.block({'changed': [line.strip() for line in changes]})


@contextlib.contextmanager
def _session(job: setup.Job, eval_only: bool) -> Iterator[run_lib.Run]:
  """The run directory, in which start and end of this process are recorded.

  An evaluation of a run that is there leaves config and sessions alone.
  """
  run_dir = run_lib.Run(job.workdir)
  if not distributed.is_main():
    yield run_dir
    return
  with lock.hold(job.workdir):
    if eval_only and setup.has_checkpoints(job.workdir):
      yield run_dir
    else:
      with _recorded(job) as run_dir:
        yield run_dir


@contextlib.contextmanager
def _recorded(job: setup.Job) -> Iterator[run_lib.Run]:
  run_dir = run_lib.start(job.workdir, job.config, allow_config_change=True)
  params = jax.tree.leaves(job.layout.shapes.params)
  run_dir.note(
    steps=job.steps,
    flops_per_step=job.flops_per_step,
    parameters=sum(x.size for x in params),
  )
  try:
    yield run_dir
  except BaseException as e:
    run_dir.finish(f'{type(e).__name__}: {e}'.splitlines()[0])
    raise
  run_dir.finish('finished')


def _meta(job: setup.Job, tally: Any, due: list[str]) -> dict[str, Any]:
  """What a checkpoint says about itself; `due` are evals not yet run."""
  return {
    'tally': tally.to_json(),
    'due': due,
    'config': config_lib.to_dict(job.config),
    'versions': meta.versions(),
    'tokenizer': job.tokenizer.fingerprint,
  }


def _farewell(job: setup.Job) -> str:
  return report.block(
    {
      'written': f'{job.workdir}: metrics.jsonl, checkpoints/',
      'compare': f'python -m jaxtok.runs.compare {job.workdir} OTHER_RUN',
    }
  )

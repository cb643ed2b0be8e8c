# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""From a config to everything a run needs, checked before anything is spent."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from jaxtok import config as config_lib
from jaxtok.runs import run as run_lib
from jaxtok.train import (
  checkpoint,
  distributed,
  errors,
  flops,
  report,
  sharding,
  space,
  state,
  step,
)
from jaxtok.train.config import Config


@dataclasses.dataclass(frozen=True)
class Job:
  """What `prepare` has built.

  Attributes:
    config: As given.
    workdir: The run directory; None in a dry run without one.
    tokenizer: Of the run.
    text: The data, see `jaxtok.data.text`.
    objective: See `jaxtok.objectives.base`.
    layout: Structure and shardings of the state.
    steps: Length of the run, also if it was given in FLOPs.
    flops_per_step: Analytic, for the whole batch.
    batch: Shapes of a batch over all devices.
    reader: Which part of each batch this process reads, and of how many.
  """

  config: Config
  workdir: epath.Path | None
  tokenizer: Any
  text: Any
  objective: Callable[..., Any]
  layout: state.Layout
  steps: int
  flops_per_step: float
  batch: dict[str, jax.ShapeDtypeStruct]
  reader: tuple[int, int]

  def step_function(self) -> step.Step:
    """The optimizer step, not compiled."""
    return step.make_step(
      self.layout,
      self.objective,
      seed=self.config.seed,
      num_microbatches=self.config.num_microbatches,
      ema=self.config.ema,
    )

  def batches(self) -> Any:
    """This process' rows of all batches, with `get_state`, `set_state`."""
    index, count = self.reader
    return self.text.train_iterator(
      batch_size=self.config.batch_size // count,
      seed=self.config.seed,
      process_index=index,
      process_count=count,
    )

  def report(self) -> str:
    """The block of facts that comes before training."""
    config = self.config
    batch = self.batch['tokens_bt'].shape
    tokens = batch[0] * batch[1]
    row_bytes = self.text.num_bytes('train') / len(self.text.rows('train'))
    return report.block(
      {
        'workdir': str(self.workdir or '(none: dry run)'),
        'config': report.config_lines(config),
        'devices': report.describe_mesh(self.layout),
        'parameters': report.parameter_line(self.layout.shapes),
        'compute': self._compute_line(),
        'batch': (
          f'{batch[0]} rows of {batch[1]} tokens = {tokens:,} tokens, about '
          f'{batch[0] * row_bytes:,.0f} bytes per step'
        ),
        'data': report.data_lines(config, self.text, self.steps),
      }
    )

  def _compute_line(self) -> str:
    total = self.flops_per_step * self.steps
    line = (
      f'{self.flops_per_step:.3g} FLOPs per step, {total:.3g} in '
      f'{self.steps} steps'
    )
    if self.config.train_flops > 0:
      limit = 'steps' if self.steps == self.config.steps else 'train_flops'
      line += f' (the limit is {limit}={getattr(self.config, limit):g})'
    return line


def prepare(
  config: Config,
  workdir: str | os.PathLike | None,
  *,
  allow_config_change: bool = False,
) -> Job:
  """Builds everything but the state.

  Args:
    config: The run's config.
    workdir: The run directory, or None to write nothing.
    allow_config_change: Continue a run although its config has changed.

  Raises:
    ValueError: If the config is impossible (many kinds; see the message).
    ConfigChangedError: If the workdir holds a run with another config.
    WorkdirError: If the workdir cannot be written or is too small.
  """
  path = None if workdir is None else epath.Path(workdir)
  # Before the workdir is made: text that cannot be read leaves nothing behind.
  for split in splits(config):
    next(iter(config.data.documents(split)), None)
  mesh = config.mesh.make()
  sharding.check_batch_size(
    config.batch_size, mesh.shape, config.num_microbatches
  )
  if path is not None:
    space.check(path, 0, 0)
    distributed.check_shared(path)
    check_unchanged(config, path, allow_config_change)
  tokenizer = make_tokenizer(config, path)
  model_config = resolve_model(config, tokenizer)
  text = config.data.make(tokenizer)
  batch = sharding.batch_shapes(first_row(text), config.batch_size, mesh)
  layout, steps, per_step = _plan(config, model_config, mesh, batch)
  if path is not None:
    if (newest := newest_checkpoint(path) or 0) > steps:
      raise errors.ConfigError(
        f'the run ends after {steps} steps, but workdir={path} has a '
        f'checkpoint of step {newest}. Raise steps, or use another workdir.'
      )
    size = state.num_bytes(layout.shapes)
    space.check(path, size, config.max_to_keep)
  return Job(
    config=config,
    workdir=path,
    tokenizer=tokenizer,
    text=text,
    objective=config.objective.make(),
    layout=layout,
    steps=steps,
    flops_per_step=per_step,
    batch=batch,
    reader=distributed.reader(mesh, config.batch_size),
  )


def splits(config: Config) -> list[str]:
  """The splits that a run reads: for training, and for its evals."""
  evaluated = [getattr(c, 'split', '') for c in config.evals.values()]
  return sorted({'train', *evaluated} - {''})


def _plan(
  config: Config, model_config: Any, mesh: Any, batch: Any
) -> tuple[state.Layout, int, float]:
  """Structure of the state, number of steps, FLOPs of each."""
  plan = lambda steps: state.plan(
    model_config.make,
    optimizer=config.optim,
    steps=steps,
    mesh=mesh,
    ema=config.ema > 0,
  )
  layout, steps = plan(config.steps), config.steps
  per_step = flops.per_step(
    layout.model(layout.shapes),
    flops.batch_shape(batch),
    remat=config.remat,
    objective=config.objective.make(),
  )
  if config.train_flops > 0:
    steps = min(steps, flops.steps_within(config.train_flops, per_step))
    layout = plan(steps)
  return layout, steps, per_step


def resolve_model(config: Config, tokenizer: Any) -> Any:
  """The model's config with the tokenizer's vocabulary and remat filled in.

  Raises:
    ConfigError: If the model has too few ids, reads them as something else
      than the tokenizer writes, or cannot do remat.
  """
  model, vocab_size, changes = config.model, tokenizer.vocab_size, {}
  if model.vocab_size == 0:
    changes['vocab_size'] = vocab_size
  elif model.vocab_size < vocab_size:
    raise errors.ConfigError(
      f'model.vocab_size={model.vocab_size} is less than the {vocab_size} ids '
      "of the tokenizer. Set it to 0 to take the tokenizer's."
    )
  if hasattr(model, 'check_tokenizer'):
    try:
      model.check_tokenizer(tokenizer)
    except ValueError as e:
      raise errors.ConfigError(str(e)) from e
  resolved = dataclasses.replace(model, **changes)
  if getattr(config.objective, 'mask_id', None) is not None:
    _check_mask(config.objective.mask_id, resolved, tokenizer)
  if config.remat:
    if not hasattr(model, 'remat'):
      raise errors.ConfigError(
        f'remat=True, but {config_lib.type_name(type(model))} has no field '
        'remat. Set remat=False.'
      )
    resolved = dataclasses.replace(resolved, remat=True)
  return resolved


def _check_mask(mask_id: int, model: Any, tokenizer: Any) -> None:
  """Raises ConfigError if a model cannot learn what a mask hides."""
  if not 0 <= mask_id < model.vocab_size:
    raise errors.ConfigError(
      f'objective.mask_id={mask_id} must be an id of the model, in [0, '
      f'{model.vocab_size}). For a mask that the tokenizer does not have set '
      f'objective.mask_id={tokenizer.vocab_size} and model.vocab_size='
      f'{tokenizer.vocab_size + 1}.'
    )
  if mask_id < tokenizer.vocab_size and tokenizer.token_bytes(mask_id):
    raise errors.ConfigError(
      f'objective.mask_id={mask_id} stands for '
      f'{tokenizer.token_bytes(mask_id)!r} in a text, so that text would read '
      'as masked. Set objective.mask_id to a special token, or to '
      f'{tokenizer.vocab_size} with model.vocab_size='
      f'{tokenizer.vocab_size + 1}.'
    )
  if getattr(model, 'is_causal', False):
    raise errors.ConfigError(
      'model.is_causal=True with an objective that masks tokens: what is to be '
      'restored depends on both sides. Set model.is_causal=False.'
    )


def make_tokenizer(config: Config, workdir: epath.Path | None) -> Any:
  """The tokenizer as saved in the workdir, else a new one, which is saved."""
  from jaxtok.tokenizers import base

  documents = lambda: config.data.documents('train')
  if workdir is None:
    return config.tokenizer.make(documents=documents)
  folder = workdir / 'tokenizer'
  if has_checkpoints(workdir) and folder.exists():
    return base.load(folder)
  if distributed.is_main():
    tokenizer = config.tokenizer.make(documents=documents)
    tokenizer.save(folder)
  distributed.barrier('tokenizer written')
  return tokenizer if distributed.is_main() else base.load(folder)


def first_row(text: Any) -> dict[str, Any]:
  """The first row of the training split, which shows the shapes of all.

  Raises:
    ConfigError: If there is no row.
  """
  rows = text.rows('train')
  if not len(rows):
    raise errors.ConfigError(
      'the training split gives no row: data has '
      f'{text.num_bytes("train")} bytes. Give it more text, or lower '
      'data.seq_len.'
    )
  return rows[0]


def newest_checkpoint(workdir: epath.Path) -> int | None:
  """The step of the newest checkpoint in a workdir; None if it has none."""
  folder = workdir / checkpoint.FOLDER
  names = [p.name for p in folder.iterdir()] if folder.exists() else []
  return max((int(name) for name in names if name.isdigit()), default=None)


def has_checkpoints(workdir: epath.Path) -> bool:
  """Whether a run can be continued from this workdir."""
  return newest_checkpoint(workdir) is not None


def check_unchanged(
  config: Config, workdir: epath.Path, allow_config_change: bool
) -> None:
  """Refuses to continue a run whose model, tokenizer or data has changed.

  Raises:
    ConfigChangedError: With the differences.
  """
  if not (workdir / 'config.json').exists() or not has_checkpoints(workdir):
    return
  fixed, _ = run_lib.changes(run_lib.Run(workdir), config)
  if not fixed:
    return
  found = (
    f'workdir={workdir} holds a run with another config:\n'
    f'{config_lib.format_diff(fixed)}\n'
  )
  if any(path.split('.')[0] == 'tokenizer' for path in fixed):
    raise errors.ConfigChangedError(
      f'{found}Another tokenizer gives the ids other meanings, so a run cannot '
      'continue with it. Use another workdir, or undo the change.'
    )
  if not allow_config_change:
    raise errors.ConfigChangedError(
      f'{found}Use another workdir, undo the change, or pass '
      '--allow_config_change to continue with the new config. To evaluate its '
      f'weights on other data: --eval_only --init_from={workdir} '
      '--workdir=ANOTHER.'
    )


@contextlib.contextmanager
def modes(
  workdir: str | os.PathLike | None, *, debug: bool, debug_nans: bool
) -> Iterator[None]:
  """Settings of JAX during a run: debugging, compile cache in the workdir.

  On CPU a cache is used only where `JAX_COMPILATION_CACHE_DIR` says so: XLA's
  CPU code fits one kind of machine, and a workdir may see another.
  """
  with contextlib.ExitStack() as stack:
    if debug:
      stack.enter_context(jax.disable_jit())
    if debug_nans:
      stack.enter_context(jax.debug_nans(True))
    has_cache = jax.config.jax_compilation_cache_dir is not None
    if workdir is not None and not has_cache and jax.default_backend() != 'cpu':
      folder = epath.Path(workdir) / 'compile_cache'
      compilation_cache.set_cache_dir(os.fspath(folder))
      stack.callback(compilation_cache.reset_cache)
      stack.callback(jax.config.update, 'jax_compilation_cache_dir', None)
    yield

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run directory.

  config.json      all fields of the config and the class of each
  meta.json        sessions: versions, command, git, device, times, exit reason
  metrics.jsonl    see `metrics`
  tokenizer/       what `tokenizers.base.load` reads
  checkpoints/  samples/  plots/  tb/  profile/

`start` makes or continues one, `load` opens one for reading.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxtok import config as config_lib
from jaxtok.runs import display, files, meta, metrics

# A run that continues may not change these fields: the parameters, what they
# are trained for, or the order of the data would no longer be those of the run.
FIXED = ('data', 'tokenizer', 'model', 'objective', 'seed')


class Run:
  """Reads and writes one run directory; nothing is loaded before it is used.

  Attributes:
    workdir: The directory.
  """

  def __init__(self, workdir: files.PathLike):
    self.workdir = epath.Path(workdir)

  @property
  def name(self) -> str:
    """The last part of the directory's path."""
    return self.workdir.name or os.fspath(self.workdir)

  @functools.cached_property
  def raw_config(self) -> dict[str, Any]:
    """config.json as it is stored; imports no class."""
    return files.read_json(self.workdir / 'config.json')

  @functools.cached_property
  def config(self) -> Any:
    """The run's config, an object of the class that made it.

    Raises:
      ValueError: If config.json is not that of a run.
    """
    config = config_lib.from_dict(self.raw_config)
    if isinstance(config, dict):
      raise ValueError(
        f'{self.workdir / "config.json"} was not written by a run of jaxtok: '
        'it names no class. Give the workdir of a run.'
      )
    return config

  @property
  def meta(self) -> dict[str, Any]:
    """meta.json as it is now; empty if there is none."""
    path = self.workdir / 'meta.json'
    return files.read_json(path) if path.exists() else {}

  @functools.cached_property
  def tokenizer(self) -> Any:
    """The tokenizer as saved with the run, else made from the config."""
    folder = self.workdir / 'tokenizer'
    if not folder.exists():
      return self.config.tokenizer.make()
    from jaxtok.tokenizers import base

    return base.load(folder)

  def _abstract_model(self) -> Any:
    """The model with shapes for parameters."""
    from flax import nnx

    config = self.config.model
    if config.vocab_size == 0:  # Filled in as by `train`.
      vocab_size = self.tokenizer.vocab_size
      config = dataclasses.replace(config, vocab_size=vocab_size)
    return nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))

  @functools.cached_property
  def num_parameters(self) -> int:
    """Trained numbers of the model."""
    if 'parameters' in self.meta:
      return self.meta['parameters']
    import jax
    from flax import nnx

    state = nnx.state(self._abstract_model(), nnx.Param)
    return sum(x.size for x in jax.tree.leaves(state))

  @functools.cached_property
  def model(self) -> Any:
    """The model with the parameters of the newest checkpoint."""
    import jax
    from flax import nnx

    from jaxtok.train import checkpoint

    model = self._abstract_model()
    params = checkpoint.restore_params(self.workdir)
    nnx.update(model, jax.tree.map(jax.numpy.asarray, params))
    return model

  def generate(
    self,
    prompt: bytes | str = b'',
    *,
    num_bytes: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
  ) -> display.Continuation:
    """Continues a text; the result is the new bytes.

    Args:
      prompt: How a document begins: any bytes, or a str for its UTF-8.
      num_bytes: Most bytes to generate; fewer if the document ends.
      temperature: 0 takes the most likely token.
      top_k: Keep this many tokens; 0 keeps all.
      top_p: Keep the fewest tokens with this much probability.
      min_p: Keep tokens with at least this share of the best one's.
      seed: Of the random choices.

    Raises:
      ValueError: If the model was trained to fill in masks, all at once.
    """
    import jax

    from jaxtok.decoding import sampling, text

    self.check_continues()
    prompt = prompt.encode() if isinstance(prompt, str) else prompt
    config = sampling.Config(
      temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    (continuation,) = text.complete(
      self.model,
      self.tokenizer,
      [prompt],
      num_bytes=num_bytes,
      rng=jax.random.key(seed),
      sampling=config,
    )
    return display.Continuation(prompt, continuation)

  def check_continues(self) -> None:
    """Raises a ValueError if the model was trained to fill something in."""
    if hasattr(self.config.objective, 'mask_id'):
      raise ValueError(
        f'{self.workdir} holds a masked diffusion model, which does not '
        'continue a text token by token. Use python -m '
        f'experiments.diffusion_lm.sample {self.workdir}.'
      )
    if getattr(self.config.model, 'is_encoder_decoder', False):
      raise ValueError(
        f'{self.workdir} holds an encoder-decoder, which does not continue a '
        'text. Fill blanks with jaxtok.decoding.fill_spans.fill(run.model, '
        'run.tokenizer, ...).'
      )

  def metrics(self, split: str | None = None) -> list[dict[str, Any]]:
    """Logged rows in order, e.g. of `split='train'` or `'eval/val'`."""
    rows = metrics.read(self.workdir)
    return [row for row in rows if split is None or row['split'] == split]

  def plot(self, x: str = 'step', y: str | None = None) -> Any:
    """The course of the run; see `plots.training`."""
    from jaxtok.runs import plots

    return plots.training(self, x, y)

  def samples(self, step: int | None = None) -> display.Text:
    """The text samples written at `step`, by default the newest.

    Raises:
      FileNotFoundError: If there are none; the message lists those there are.
    """
    folder = self.workdir / 'samples'
    found = sorted(folder.glob('step_*.txt')) if folder.exists() else []
    by_step = {int(path.stem.removeprefix('step_')): path for path in found}
    if step is None and by_step:
      step = max(by_step)
    if step not in by_step:
      have = ', '.join(map(str, by_step)) or 'none; add evals.samples'
      which = 'samples' if step is None else f'samples of step {step}'
      raise FileNotFoundError(
        f'{self.workdir} has no {which}. Steps with samples: {have}.'
      )
    return display.Text(by_step[step].read_text())

  def note(self, **values: Any) -> None:
    """Adds facts to meta.json, e.g. `note(parameters=820_000)`."""
    self._write_meta(self.meta | values)

  def finish(self, exit_reason: str) -> None:
    """Records when and why this process stopped, and draws plots/bpb.*."""
    from jaxtok.runs import plots

    stored = self.meta
    stored['sessions'][-1] |= {'stopped': meta.now(), 'exit': exit_reason}
    self._write_meta(stored)
    plots.save_training(self)

  def _write_meta(self, value: dict[str, Any]) -> None:
    files.write_json(self.workdir / 'meta.json', value)

  def _begin_session(self) -> None:
    stored = self.meta
    sessions = stored.get('sessions', [])
    if sessions and sessions[-1]['stopped'] is None:
      sessions[-1]['exit'] = 'killed (no exit was recorded)'
    self._write_meta(stored | {'sessions': [*sessions, meta.session()]})

  def _repr_html_(self) -> str:
    """One line in a notebook: how far it is, and how good."""
    from jaxtok.runs import summary

    return display.Text(summary.summarize([self]))._repr_html_()

  def __repr__(self) -> str:
    return f'Run({os.fspath(self.workdir)!r})'


def load(workdir: files.PathLike) -> Run:
  """Opens a run directory.

  Raises:
    FileNotFoundError: If it is not one; the message names the runs beside it.
  """
  run = Run(workdir)
  if (run.workdir / 'config.json').exists():
    return run
  parent = run.workdir.parent
  beside = sorted(path.parent.name for path in parent.glob('*/config.json'))
  raise FileNotFoundError(
    f'{os.fspath(workdir)} is not a run directory: it has no config.json. '
    f'Runs in {os.fspath(parent)}: {", ".join(beside) or "none"}.'
  )


def changes(
  run: Run, config: Any, fixed: Sequence[str] = FIXED
) -> tuple[dict[str, tuple[Any, Any]], dict[str, tuple[Any, Any]]]:
  """How `config` differs from the one stored in the run.

  Returns:
    Changes in `fixed` top-level fields, and all other changes, both as
    `config.diff` gives them.
  """
  all_changes = config_lib.diff(run.raw_config, config)
  is_fixed = lambda path: path.split('.')[0] in fixed
  return (
    {k: v for k, v in all_changes.items() if is_fixed(k)},
    {k: v for k, v in all_changes.items() if not is_fixed(k)},
  )


def start(
  workdir: files.PathLike,
  config: Any,
  *,
  fixed: Sequence[str] = FIXED,
  allow_config_change: bool = False,
) -> Run:
  """Makes a run directory, or continues one, and begins a session.

  Call it in process 0 only, after the devices are initialised.

  Args:
    workdir: The directory; made if missing.
    config: The config of this session; replaces the stored one.
    fixed: Top-level fields that may not change when a run continues.
    allow_config_change: Continue although they did.

  Raises:
    ValueError: If a fixed field changed; the message shows the difference.
    OSError: If the directory cannot be written.
  """
  run = Run(workdir)
  _check_writable(run.workdir)
  if (run.workdir / 'config.json').exists():
    bad, _ = changes(run, config, fixed)
    if bad and not allow_config_change:
      raise ValueError(
        f'{os.fspath(workdir)} holds a run with another config:\n'
        f'{config_lib.format_diff(bad)}\n'
        'Use another workdir, undo the change, or pass --allow_config_change '
        'to continue with the new config.'
      )
  elif (run.workdir / metrics.FILENAME).exists():
    raise ValueError(
      f'{os.fspath(workdir)} has a {metrics.FILENAME} but no config.json, so '
      'it cannot be continued. Use another workdir, or delete it.'
    )
  run = Run(workdir)  # Without what the first one has read.
  files.write_json(run.workdir / 'config.json', config_lib.to_dict(config))
  run._begin_session()
  return run


def _check_writable(workdir: epath.Path) -> None:
  probe = workdir / '.writable'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe.write_text('')
    probe.unlink()
  except OSError as e:
    raise OSError(
      f'workdir={os.fspath(workdir)} cannot be written: {e}. Choose a folder '
      'that you may write to, on a disk with free space.'
    ) from e

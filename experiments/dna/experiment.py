# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-trains an encoder, then fine-tunes it on each task, or on some.

  <workdir>/pretrain/            a run directory, see `jaxtok.runs`
  <workdir>/tasks/NAME.json      scores by start and seed
  <workdir>/table.md

What is there is not computed again, so the same command continues.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from flax import nnx

from experiments import staged
from experiments.dna import finetune as finetune_lib
from experiments.dna import naive_bayes
from jaxtok import train
from jaxtok.config import configclass
from jaxtok.runs import files, table

FLOOR = 'naive Bayes'
STARTS = ('pretrained', 'random')


@configclass
class Config:
  """An experiment."""

  pretrain: train.Config
  finetune: finetune_lib.Config = dataclasses.field(
    default_factory=finetune_lib.Config
  )
  tasks: dict[str, finetune_lib.Task] = dataclasses.field(default_factory=dict)
  seeds: tuple[int, ...] = (0,)  # Of fine-tuning.
  starts: tuple[str, ...] = STARTS  # 'random' shows what pre-training gives.
  only: tuple[str, ...] = ()  # Tasks of this call; () means all.

  def __post_init__(self):
    if unknown := set(self.starts) - set(STARTS):
      raise ValueError(f'starts={unknown} must be among {STARTS}.')
    if unknown := set(self.only) - set(self.tasks):
      raise ValueError(
        f'only={sorted(unknown)} must be among the tasks: '
        f'{", ".join(self.tasks)}.'
      )


@dataclasses.dataclass
class Experiment(staged.Staged):
  """See `staged.Staged`."""

  config: Config

  def __post_init__(self):
    super().__post_init__()
    self.keep_config('only')

  @functools.cached_property
  def encoder(self) -> finetune_lib.Encoder:
    """The pre-trained encoder; trains it if need be."""
    run = train.run(self.config.pretrain, self.workdir / 'pretrain')
    params = nnx.to_pure_dict(nnx.state(run.model, nnx.Param))
    return finetune_lib.Encoder(run.model.config, run.tokenizer, params)

  def task(self, name: str) -> dict[str, Any]:
    """Scores of a task: `floor`, and a list by seed for each start."""
    c, path = self.config, self.workdir / 'tasks' / f'{name}.json'
    found = files.read_json(path) if path.exists() else {}
    if 'floor' not in found:
      found['floor'] = naive_bayes.score(c.tasks[name])
    for start in c.starts:
      done = found.setdefault(start, [])
      for seed in c.seeds[len(done) :]:
        encoder = self.encoder
        if start == 'random':
          encoder = dataclasses.replace(encoder, params=None)
        task, label = c.tasks[name], f'{name} from {start} weights, seed {seed}'
        done.append(
          finetune_lib.finetune(
            encoder,
            task,
            c.finetune,
            seed=seed,
            log=lambda text, label=label: self.log(f'{label}, {text}'),
          )
        )
        files.write_json(path, found)
        self.log(f'{label}: {task.metric} {done[-1][task.metric]:.3f}')
    return found

  def _is_done(self, name: str) -> bool:
    """Whether a task of another call has all its scores."""
    path = self.workdir / 'tasks' / f'{name}.json'
    if not path.exists():
      return False
    found, num = files.read_json(path), len(self.config.seeds)
    return all(len(found.get(x, [])) >= num for x in self.config.starts)

  def run(self) -> str:
    """Everything; writes table.md and returns it as plain text."""
    header = ['task', 'metric', FLOOR, *self.config.starts, 'cut']
    rows = []
    for name, task in self.config.tasks.items():
      if name not in (self.config.only or self.config.tasks) and not (
        self._is_done(name)
      ):
        continue
      found = self.task(name)
      cells = [_shown([found['floor'][task.metric]])]
      for start in self.config.starts:
        cells.append(_shown([one[task.metric] for one in found[start]]))
      cut = found[self.config.starts[0]][0]['cut']
      rows.append([name, task.metric, *cells, f'{cut:.1%}'])
    text = table.markdown(header, rows)
    files.write_atomic(self.workdir / 'table.md', text)
    return table.plain(header, rows)


def _shown(values: list[float]) -> str:
  mean = f'{np.mean(values):.3f}'
  if len(values) < 2:
    return mean
  return f'{mean} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}'

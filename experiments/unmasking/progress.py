# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How far a stage of training policies has come, as a file.

A stage that is stopped goes on from there: with the policy, the optimizer and
the update of then, and the best policies and the validations so far. Random
numbers and prompts are functions of the update.
"""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from flax import nnx

from experiments.unmasking import denoiser as denoiser_lib
from jaxtok.diffusion import policy, rl

Numbers = dict[str, float]
Found = tuple[policy.UnmaskingPolicy, Numbers]


@dataclasses.dataclass
class Progress:
  """What a stage has found so far.

  Attributes:
    bests: Speed pressure to the policy of the best validation, and its numbers.
    history: The numbers of each validation at the stage's own pressure.
  """

  bests: dict[float, Found]
  history: list[Numbers]

  def save(self, path: pathlib.Path, trainer: rl.Trainer, made_by: Any) -> None:
    """Writes it and what the trainer goes on from, as one file, atomically."""
    tree = {
      'trainer': trainer.state,
      'bests': {a: nnx.split(model)[1] for a, (model, _) in self.bests.items()},
    }
    groups = {f'best {a!r}': found for a, (_, found) in self.bests.items()}
    groups |= {f'validation {i}': x for i, x in enumerate(self.history)}
    numbers = {
      f'{group}/{name}': value
      for group, some in groups.items()
      for name, value in some.items()
    }
    denoiser_lib.save_tree(
      path, tree, made_by=made_by, update=trainer.step, **numbers
    )

  @classmethod
  def load(
    cls,
    path: pathlib.Path,
    trainer: rl.Trainer,
    made_by: Any,
    pressures: Iterable[float],
  ) -> 'Progress':
    """What `save` wrote; the trainer, which may be new, goes on from there.

    Args:
      path: Of the file.
      trainer: Of the same stage.
      made_by: What decides the stage.
      pressures: Of `bests`.

    Raises:
      ValueError: If another `made_by` wrote it, or it is damaged.
    """
    pressures = list(pressures)
    params = trainer.state['params']
    like = {'trainer': trainer.state, 'bests': dict.fromkeys(pressures, params)}
    tree, flat = denoiser_lib.load_tree(path, like, made_by=made_by)
    trainer.restore(tree['trainer'], int(flat.pop('update')))
    groups: dict[str, Numbers] = {}
    for key, value in flat.items():
      group, _, name = key.partition('/')
      value = int(value) if name == 'step' else value
      groups.setdefault(group, {})[name] = value
    bests = {
      a: (nnx.merge(trainer.graphdef, tree['bests'][a]), groups[f'best {a!r}'])
      for a in pressures
    }
    history = []
    while (name := f'validation {len(history)}') in groups:
      history.append(groups[name])
    return cls(bests, history)

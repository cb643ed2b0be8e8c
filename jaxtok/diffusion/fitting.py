# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which ways to use a masked diffusion model fit how it was trained.

Most objectives give a plain denoiser: it fills in masks and is told nothing
else. Used like one, a model that is told the time (`is_timed`), a BD3-LM, which
needs its block mask, or a GenMD4, whose logits need its rates, gives wrong
distributions without an error.
"""

from typing import Any

from jaxtok.diffusion import bd3lm, genmd4, sedd

PLAIN = ('ancestral', 'remask', 'first_hitting')


def samplers_of(objective: Any) -> tuple[str, ...]:
  """Samplers of `experiments.diffusion_lm.sample` that fit, by name.

  Args:
    objective: Config that the model was trained with.

  Raises:
    ValueError: If it has no mask token.
  """
  if not hasattr(objective, 'mask_id'):
    raise ValueError(
      f'{type(objective).__module__} has no mask token. Use a run of '
      'experiments.diffusion_lm.'
    )
  special = {bd3lm.Config: ('block',), genmd4.Config: ('rates',)}
  found = special.get(type(objective), PLAIN)
  if getattr(objective, 'is_timed', False):
    found = ('timed',)
  if isinstance(objective, sedd.Config):
    found = (*found, 'analytic')
  return found


def check_plain(objective: Any) -> None:
  """Raises ValueError if a model trained so is no plain denoiser."""
  if PLAIN[0] not in samplers_of(objective):
    raise ValueError(
      f'a model trained with {type(objective).__module__} does not fill in '
      'masks without being told a time, a block or rates. Use a run of mdlm, '
      'md4, any_order, sedd or llada that is not told the time.'
    )


def check_model(model: Any) -> None:
  """Raises ValueError if a model shows that it is no plain denoiser.

  A BD3-LM without `time_range` looks like any transformer, and so may one that
  is told the time: of runs, ask `check_plain` too.
  """
  marks = {'rates': 'genmd4', 'time_range': 'bd3lm'}
  for mark, name in marks.items():
    if hasattr(model, mark):
      raise ValueError(
        f'model={type(model).__name__} has {mark!r}: it was trained with '
        f'{name} and is no plain denoiser. Use a run of mdlm, md4, any_order, '
        'sedd or llada that is not told the time.'
      )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""M2: one language model, whatever its tokens.

A config's argument is a size, then settings of its own, such as
`neural.py:tiny,b=64,v=8`. Sizes are those of Lester et al. 2024,
arXiv:2404.03626 (25m, 113m, 403m, 2b: parameters without embeddings), with the
paper's rows, batch and number of steps, and two that fit a CPU: tiny (minutes)
and small (a night). All methods of a size have the same model, and see the same
number of tokens.

Differs from the paper: AdamW in place of Adafactor, one table of relative
positions for all layers in place of one per layer. Models of tiny and small
have rotary positions and are told the place of a token in its window.
"""

from collections.abc import Mapping
from typing import Any

from experiments import sizes
from jaxtok import train
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.train import optim

# Width, heads, layers.
_SHAPES = {
  'tiny': (128, 4, 2),
  'small': (256, 4, 6),
  '25m': (512, 8, 6),
  '113m': (768, 12, 12),
  '403m': (1024, 16, 24),
  '2b': (2048, 32, 24),
}
# Row length, rows per step, steps, bytes that are evaluated.
_OURS = {
  'tiny': (64, 16, 1200, 100_000),
  'small': (256, 32, 20_000, 0),
}
_PAPER = (512, 256, 200_000, 0)
_TRAIN_BYTES = {'tiny': 6_000_000}  # No method reads much more in its steps.

M1 = {'order': 3, 'num_rows': 1 << 15}  # Counted on the training split.


def parse(argument: str, **defaults: int | str) -> tuple[str, dict[str, Any]]:
  """Splits 'tiny,b=64' into the size and settings.

  Args:
    argument: What follows the colon of `--config=FILE:`.
    **defaults: The settings there are; each keeps the type of its default.

  Raises:
    ValueError: If a setting does not exist or has no valid value.
  """
  size, *pairs = argument.split(',')
  found = dict(defaults)
  for pair in pairs:
    name, _, value = pair.partition('=')
    if name not in defaults:
      raise ValueError(
        f'setting {pair!r} does not exist. Use NAME=VALUE with one of: '
        f'{", ".join(defaults) or "none, this config has no settings"}.'
      )
    try:
      found[name] = type(defaults[name])(value)
    except ValueError:
      raise ValueError(f'setting {pair!r} must be a whole number.') from None
  return size, found


def is_counted(m1: str) -> bool:
  """What the setting m1 says: 'counted' or 'shipped'."""
  if m1 not in ('counted', 'shipped'):
    raise ValueError(f'm1={m1} must be counted or shipped.')
  return m1 == 'counted'


def config(size: str, tokenizer: Any, tokens_per_window: int = 1):
  """A run of the given size with any tokenizer.

  Args:
    size: See the module.
    tokenizer: Its config.
    tokens_per_window: Of the tokenizer.
  """
  dim, heads, layers = sizes.pick(size, **_SHAPES)
  seq_len, batch_size, steps, max_bytes = _OURS.get(size, _PAPER)
  every = max(steps // 4, 1)
  return train.Config(
    data=text.Config(
      source=text.Stdlib(max_bytes=_TRAIN_BYTES.get(size, 0)), seq_len=seq_len
    ),
    tokenizer=tokenizer,
    model=transformer.Config(
      dim=dim,
      num_heads=heads,
      num_layers=layers,
      **_recipe(size, tokens_per_window),
    ),
    objective=next_token.Config(
      places=tokens_per_window, z_loss=0.0 if size in _OURS else 1e-4
    ),
    optim=_OPTIM[size] if size in _OPTIM else _OPTIM['25m'],
    evals={'val': bpb.Config(every_steps=every, max_bytes=max_bytes)},
    steps=steps,
    batch_size=batch_size,
    log_every=max(every // 6, 1),
    checkpoint_every=every,
  )


def set_steps(config: train.Config, steps: int) -> None:
  """Makes a run as long as that, with as many evals as before."""
  share = steps / config.steps
  scale = lambda count: max(1, int(count * share))
  config.steps = steps
  config.optim.warmup_steps = scale(config.optim.warmup_steps)
  config.log_every = scale(config.log_every)
  config.checkpoint_every = scale(config.checkpoint_every)
  for each in config.evals.values():
    each.every_steps = scale(each.every_steps)


def _recipe(size: str, tokens_per_window: int) -> Mapping[str, Any]:
  if size in _OURS:
    phases = tokens_per_window if tokens_per_window > 1 else 0
    return {'activation': 'relu', 'phases': phases}
  return {'activation': 'relu', 'position': 't5', 'dtype': 'bfloat16'}


_OPTIM = {
  'tiny': optim.Config(lr=3e-3, warmup_steps=60),
  'small': optim.Config(lr=1e-3, warmup_steps=500),
  '25m': optim.Config(lr=1e-3, warmup_steps=10_000),
}

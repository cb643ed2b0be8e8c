# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it works.

Lines for what was measured; below them one moving line on a terminal or in a
notebook. Log files get only the lines.
"""

import sys
from collections.abc import Mapping
from typing import Any

import tqdm

_UNITS = ((1e12, 'TB'), (1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'))


def quantity(num_bytes: float | int) -> str:
  """Bytes in decimal units, e.g. '41 kB'."""
  for size, unit in _UNITS:
    if num_bytes >= size:
      return f'{num_bytes / size:.3g} {unit}'
  return f'{num_bytes:.3g} B'


def duration(seconds: float | int) -> str:
  """E.g. '0:14' or '2:03:20'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02}:{seconds:02}'
  return f'{minutes}:{seconds:02}'


def train_line(
  step: int, steps: int, row: Mapping[str, Any], seconds_per_step: float
) -> str:
  """One logged row as a line of text."""
  parts = [f'step {step}/{steps}']
  parts += [f'{k} {v:.4g}' for k, v in row.items() if k.startswith('bpb')]
  parts.append(f'loss {row["loss"]:.4g} nats/tok')
  if 'tokens_per_byte' in row:
    parts.append(f'{row["tokens_per_byte"]:.2f} tok/byte')
  parts += [
    f'{quantity(row["bytes_per_second"])}/s',
    f'{row["flops_per_second"]:.2g} FLOP/s',
    f'eta {duration((steps - step) * seconds_per_step)}',
  ]
  return '  '.join(parts)


def eval_table(step: int, results: Mapping[str, Mapping[str, Any]]) -> str:
  """Results of evals, one line each; standard errors follow their value."""
  lines = []
  for name, values in results.items():
    shown = []
    for key, value in values.items():
      if key.endswith('_se') or not isinstance(value, (int, float)):
        continue
      error = values.get(f'{key}_se')
      shown.append(f'{key} {value:.5g}' + (f' +- {error:.2g}' if error else ''))
    lines.append(f'eval {step}  {name:<10} ' + '  '.join(shown))
  return '\n'.join(lines)


def in_notebook() -> bool:
  """Whether a person looks at this through Jupyter or Colab."""
  return 'ipykernel' in sys.modules


class Progress:
  """Prints lines, and a bar below them where somebody is watching.

  Args:
    enabled: False prints nothing (all processes but the first).
  """

  def __init__(self, *, enabled: bool = True):
    self._enabled = enabled
    self._bar = None

  def start(self, step: int, steps: int) -> None:
    """Shows the bar, if there is to be one."""
    if self._enabled and (sys.stdout.isatty() or in_notebook()):
      self._bar = tqdm.tqdm(
        initial=step,
        total=steps,
        unit='step',
        file=sys.stdout,
        dynamic_ncols=True,
        leave=False,
      )

  def say(self, text: str) -> None:
    """Prints lines above the bar; nothing if there are none."""
    if not self._enabled or not text:
      return
    if self._bar is not None:
      self._bar.write(text, file=sys.stdout)
    else:
      print(text, flush=True)

  def advance(self) -> None:
    """Moves the bar by one step."""
    if self._bar is not None:
      self._bar.update()

  def close(self) -> None:
    """Removes the bar."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of runs. Needs matplotlib: `pip install 'jaxtok[plots]'`.

Figures are made without pyplot, so that no window system and no global state
is involved; the same data gives the same svg, byte for byte.
"""

import contextlib
import importlib.util
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxtok.runs import curves, files
from jaxtok.runs import run as run_lib

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLORS = (
  *('#0072b2', '#d55e00', '#009e73', '#cc79a7'),
  *('#e69f00', '#56b4e9', '#000000'),
)
_STYLE = {
  'axes.axisbelow': True,
  'axes.grid': True,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.constrained_layout.use': True,
  'figure.dpi': 150,
  'figure.figsize': (6.4, 4.0),
  'font.size': 10,
  'grid.alpha': 0.5,
  'grid.color': '#d8d8d8',
  'legend.frameon': False,
  'lines.linewidth': 1.8,
  'lines.markersize': 4,
  'svg.fonttype': 'none',  # Text stays text.
  'svg.hashsalt': 'jaxtok',
}


class Picture:
  """A figure that a notebook shows and `save` writes."""

  def __init__(self, figure: Any):
    self.figure = figure

  def render(self, kind: str) -> bytes:
    """The picture as 'svg' or 'png'."""
    with style():
      buffer = io.BytesIO()
      metadata = {'Date': None} if kind == 'svg' else None
      self.figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()

  def save(self, stem: files.PathLike) -> list[pathlib.Path]:
    """Writes `stem`.svg and `stem`.png; returns their paths."""
    paths = [pathlib.Path(f'{stem}.{kind}') for kind in ('svg', 'png')]
    for path in paths:
      files.write_atomic(path, self.render(path.suffix[1:]))
    return paths

  def _repr_png_(self) -> bytes:
    return self.render('png')


@contextlib.contextmanager
def style() -> Iterator[None]:
  """How all pictures look; make axes and draw inside."""
  try:
    import matplotlib as mpl
  except ImportError as e:
    raise ImportError(
      "pictures need matplotlib: pip install 'jaxtok[plots]'."
    ) from e
  with mpl.rc_context():
    mpl.rcdefaults()
    mpl.rcParams.update(_STYLE)
    # Where there are more lines than colours, the others are dotted.
    mpl.rcParams['axes.prop_cycle'] = mpl.cycler(
      linestyle=['-', ':']
    ) * mpl.cycler(color=_COLORS)
    yield


def panels(num: int, height: float = 3.2) -> list[Any]:
  """Axes side by side, inside `style`; `axes[0].figure` for a `Picture`."""
  from matplotlib import figure

  page = figure.Figure(figsize=(min(4.4 * num, 13.2), height))
  return list(page.subplots(1, num, squeeze=False)[0])


def _axes(x: str, y_label: str) -> Any:
  from matplotlib import figure

  axes = figure.Figure().subplots()
  axes.set_xlabel(curves.X_LABELS[x])
  axes.set_ylabel(y_label)
  return axes


def label_of(y: str) -> str:
  """Axis label of a metric, e.g. 'bits per byte (eval/val)'."""
  split, _, key = y.rpartition('/')
  words = {'bpb': 'bits per byte', 'nats': 'nats per token'}
  return f'{words.get(key, key.replace("_", " "))} ({split})'


def training(
  run: run_lib.Run, x: str = 'step', y: str | None = None
) -> Picture:
  """The course of one run.

  Args:
    run: The run.
    x: A key of `curves.X_LABELS`.
    y: Split and metric, e.g. 'eval/val/bpb'; None draws bits per byte of
      training and of all evals.
  """
  wanted = [y] if y is not None else _bits(run)
  if not wanted:
    raise ValueError(
      f'{run.workdir} has logged no bits per byte. Give y; it has: '
      f'{", ".join(curves.names(run)) or "nothing yet"}.'
    )
  found = {name: curves.load(run, x, name) for name in wanted}
  with style():
    axes = _axes(x, label_of(wanted[0]) if y else 'bits per byte')
    for name, curve in found.items():
      is_train = name.startswith('train/')
      look = {'linewidth': 0.9, 'alpha': 0.6} if is_train else {'marker': 'o'}
      axes.plot(curve.x, curve.y, label=curve.metric, **look)
    axes.set_title(run.name, loc='left')
    if len(wanted) > 1:
      axes.legend()
    return Picture(axes.figure)


def save_training(run: run_lib.Run) -> list[pathlib.Path]:
  """Writes plots/bpb.svg and .png of a run; returns their paths.

  Without matplotlib, in an object store, or if no bits per byte were logged,
  there is nothing to write.
  """
  has_matplotlib = importlib.util.find_spec('matplotlib') is not None
  if not has_matplotlib or not files.is_local(run.workdir) or not _bits(run):
    return []
  return training(run).save(run.workdir / 'plots' / 'bpb')


def _bits(run: run_lib.Run) -> list[str]:
  """Names of the run's bits per byte; training first, below the evals."""
  is_bits = lambda name: name.rpartition('/')[2] in ('bpb', 'bpb_bound')
  return sorted(filter(is_bits, curves.names(run)), reverse=True)


def comparison(
  x: str,
  y: str,
  lines: Sequence[tuple[str, bool, np.ndarray, np.ndarray, np.ndarray]],
) -> Picture:
  """Several methods against each other, x logarithmic.

  Args:
    x: A key of `curves.X_LABELS`.
    y: The metric.
    lines: For each method its name, whether its values are bounds, x [n],
      y [n] and the standard error over seeds [n] (nan: one seed).
  """
  with style():
    axes = _axes(x, label_of(y))
    axes.set_xscale('log')
    for name, is_bound, xs, ys, errors in lines:
      look = '--' if is_bound else '-'
      label = f'{name} (bound)' if is_bound else name
      (line,) = axes.plot(xs, ys, look, marker='o', label=label)
      low, high = ys - errors, ys + errors
      axes.fill_between(
        xs, low, high, color=line.get_color(), alpha=0.2, linewidth=0
      )
    axes.legend()
    return Picture(axes.figure)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl: one JSON object per line, appended and flushed row by row.

  {"step": 40, "split": "train", "bpb": 2.31, "flops": 3.1e11, ...}
  {"step": 40, "split": "eval/val", "bpb": 2.35, "corpus": "5f0c...", ...}

A process that dies while it writes leaves at most one torn last line, which
readers ignore and a resumed run cuts off. Floats are written so that reading
them gives the same bits.
"""

import importlib.util
import json
import numbers
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from jaxtok.runs import files

FILENAME = 'metrics.jsonl'


def _plain(key: str, value: Any) -> Any:
  """Python numbers, strings and None from what a caller may pass."""
  if hasattr(value, 'item') and getattr(value, 'ndim', 0) == 0:
    value = value.item()  # NumPy and JAX scalars.
  if value is None or isinstance(value, (str, bool, int, float)):
    return value
  if isinstance(value, numbers.Real):
    return float(value)
  raise TypeError(
    f'metric {key!r} is {type(value).__name__}; it must be a number, a string '
    'or None. Reduce arrays to a scalar first.'
  )


def parse(text: str, name: str = FILENAME) -> Iterator[dict[str, Any]]:
  """Yields the rows of a metrics file, without a torn last line.

  Raises:
    ValueError: If a line other than the last is not a JSON object.
  """
  lines = text.split('\n')
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      yield json.loads(line)
    except json.JSONDecodeError as e:
      if number == len(lines):  # No newline after it: torn by a crash.
        return
      raise ValueError(f'{name}, line {number}, is not JSON: {e}.') from e


def read(workdir: files.PathLike) -> list[dict[str, Any]]:
  """Rows of a run's metrics.jsonl in order; empty if there is no file."""
  path = epath.Path(workdir) / FILENAME
  if not path.exists():
    return []
  return list(parse(path.read_text(), os.fspath(path)))


class Writer:
  """Appends rows to metrics.jsonl and mirrors numbers to TensorBoard.

  Only one process may write to a workdir. TensorBoard needs tensorboardX
  (`pip install 'jaxtok[plots]'`) and a local workdir; without them
  only metrics.jsonl is written and `tensorboard` is False.
  """

  def __init__(self, workdir: files.PathLike, tensorboard: bool = True):
    self._workdir = epath.Path(workdir)
    self._path = self._workdir / FILENAME
    self._workdir.mkdir(parents=True, exist_ok=True)
    self._file = None
    self._remote_rows: list[str] | None = None
    self._board = None
    self._purge_step: int | None = None
    self.tensorboard = tensorboard and _has_tensorboard(workdir)
    self._cut_torn_line()

  def write(self, step: int, split: str, values: dict[str, Any]) -> None:
    """Appends one row.

    Args:
      step: Optimizer steps done.
      split: 'train' or 'eval/<name>'.
      values: Scalars and strings by name.

    Raises:
      TypeError: If a value is not a scalar.
      ValueError: If a value is called 'step' or 'split'.
    """
    if clash := {'step', 'split'} & set(values):
      raise ValueError(f'metrics may not be called {sorted(clash)}.')
    row = {'step': int(step), 'split': split}
    row |= {key: _plain(key, value) for key, value in values.items()}
    self._append(json.dumps(row) + '\n')
    if self.tensorboard:
      self._write_board(row)

  def replace(self, step: int, split: str, values: dict[str, Any]) -> None:
    """Like `write`, but removes an older row of the same measurement.

    That is one with the same step and split and, if they are recorded, the
    same `corpus` and `bytes`.
    """
    key = lambda row: (row.get('corpus'), row.get('bytes'))
    is_old = lambda row: (
      (row['step'], row['split']) == (step, split) and key(row) == key(values)
    )
    rows = read(self._workdir)
    if any(map(is_old, rows)):
      self._close_files()
      self._rewrite([row for row in rows if not is_old(row)])
    self.write(step, split, values)

  def truncate(self, step: int) -> None:
    """Drops all rows after `step`, as a run does that resumes there."""
    self._close_files()
    self._rewrite([r for r in read(self._workdir) if r['step'] <= step])
    self._purge_step = step + 1

  def flush(self) -> None:
    """Hands everything to the file system."""
    if self._remote_rows is not None:
      files.write_atomic(self._path, ''.join(self._remote_rows))
    if self._file is not None:
      self._file.flush()
      os.fsync(self._file.fileno())
    if self._board is not None:
      self._board.flush()

  def close(self) -> None:
    """Flushes and closes; a later `write` opens the files again."""
    self.flush()
    self._close_files()

  def _append(self, line: str) -> None:
    if not files.is_local(self._path):  # Object stores cannot append.
      if self._remote_rows is None:
        old = self._path.read_text() if self._path.exists() else ''
        self._remote_rows = old.splitlines(keepends=True)
      self._remote_rows.append(line)
      files.write_atomic(self._path, ''.join(self._remote_rows))
      return
    if self._file is None:
      self._file = open(self._path, 'a')  # noqa: SIM115
    self._file.write(line)
    self._file.flush()

  def _rewrite(self, rows: list[dict[str, Any]]) -> None:
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    files.write_atomic(self._path, text)

  def _cut_torn_line(self) -> None:
    if self._path.exists() and not self._path.read_text().endswith('\n'):
      self._rewrite(read(self._workdir))

  def _write_board(self, row: dict[str, Any]) -> None:
    if self._board is None:
      import tensorboardX  # Slow to import, and optional.

      self._board = tensorboardX.SummaryWriter(
        os.fspath(self._workdir / 'tb'), purge_step=self._purge_step
      )
    for key, value in row.items():
      if isinstance(value, (int, float)) and key != 'step':
        self._board.add_scalar(f'{row["split"]}/{key}', value, row['step'])

  def _close_files(self) -> None:
    for handle in (self._file, self._board):
      if handle is not None:
        handle.close()
    self._file = self._board = self._remote_rows = None


def _has_tensorboard(workdir: files.PathLike) -> bool:
  return files.is_local(workdir) and bool(
    importlib.util.find_spec('tensorboardX')
  )

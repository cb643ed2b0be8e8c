# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sudoku of 4 x 4 or 9 x 9 cells with a unique solution.

The prompt is the grid with 0 for blanks, the answer the whole grid, row by row.
Tokens: 0..size cells, then the mask.

Solved grids come from backtracking in a random order, which is not uniform: of
the 288 grids of 4 x 4, 96 have probability 1/192 and 192 have 1/384.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from jaxtok.config import configclass
from jaxtok.tasks import base


@configclass
class Sudoku:
  """The task. Fewer clues than a unique solution needs are never given."""

  box: int = 2  # Side of a box; a grid has box ** 2 rows.
  min_clues: int = 4
  max_clues: int = 8

  def __post_init__(self):
    low, high, cells = self.min_clues, self.max_clues, self.size**2
    base.require(
      'Sudoku',
      box=(self.box, self.box in (2, 3), '2 or 3'),
      min_clues=(low, 0 <= low <= high, 'in [0, max_clues]'),
      max_clues=(high, high <= cells, f'<= {cells}'),
    )

  @property
  def size(self) -> int:
    return self.box**2

  @property
  def prompt_len(self) -> int:
    return self.size**2

  @property
  def answer_len(self) -> int:
    return self.size**2

  @property
  def mask_id(self) -> int:
    return self.size + 1

  @property
  def vocab_size(self) -> int:
    return self.size + 2

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: a random solved grid, then cells blanked at random."""
    blank = np.zeros((self.size, self.size), np.int32)
    solved = solutions(blank, self.box, limit=1, rng=rng)[0]
    wanted = int(rng.integers(self.min_clues, self.max_clues + 1))
    clues, left = solved.reshape(-1).tolist(), self.size**2
    for cell in rng.permutation(self.size**2).tolist():
      if left <= wanted:
        break
      value, clues[cell] = clues[cell], 0
      if is_unique(clues, self.box):
        left -= 1
      else:
        clues[cell] = value
    return np.array([*clues, *solved.flat], np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`: rows, columns, boxes, and the clues are kept."""
    n, k = self.size, self.box
    clues, answer = np.split(np.asarray(tokens_bt), 2, axis=1)
    kept = ((clues == answer) | (clues == 0)).all(-1)
    grid = answer.reshape(-1, n, n)
    boxes = grid.reshape(-1, k, k, k, k).swapaxes(2, 3).reshape(-1, n, n)
    units = np.concatenate([grid, grid.swapaxes(1, 2), boxes], axis=1)
    every = np.arange(1, n + 1)
    return kept & (np.sort(units, axis=-1) == every).all((1, 2))


def is_unique(cells: list[int], box: int) -> bool:
  """Whether there is exactly one way to fill the blanks, in row order."""
  if box > 2:
    size = box**2
    return len(solutions(np.reshape(cells, (size, size)), box, limit=2)) == 1
  fitting = -1
  for value, grids in zip(cells, _small_grids(), strict=True):
    fitting &= grids[value]
  return fitting != 0 and fitting & (fitting - 1) == 0  # One bit is left.


@functools.cache
def _small_grids() -> list[list[int]]:
  """Bit sets of the 288 grids of 4 x 4, by cell and by value there.

  Value 0, a blank, fits them all. Searched for once, so that the draws of a
  batch cost little beside a training step on it.
  """
  grids = solutions(np.zeros((4, 4), np.int32), 2, limit=1000)
  values = np.stack(grids).reshape(len(grids), 16).T.tolist()
  having = lambda cell, value: sum(
    1 << i for i, found in enumerate(values[cell]) if value in (0, found)
  )
  return [[having(cell, value) for value in range(5)] for cell in range(16)]


def solutions(
  grid: np.ndarray,
  box: int,
  limit: int,
  rng: np.random.Generator | None = None,
) -> list[np.ndarray]:
  """Up to `limit` ways to fill the blanks, by backtracking.

  The blank with the fewest candidates goes first; `rng` shuffles candidates.
  """
  cells, used = grid.reshape(-1).tolist(), [0] * (3 * box**2)
  for value, units in zip(cells, _units(box), strict=True):
    for unit in units:
      if value and used[unit] >> value & 1:
        return []  # Twice in a row, column or box.
      used[unit] |= 1 << value
  found = itertools.islice(_fill(cells, used, box, rng), limit)
  return [np.array(each, grid.dtype).reshape(grid.shape) for each in found]


def _fill(
  cells: list[int],
  used: list[int],
  box: int,
  rng: np.random.Generator | None,
) -> Iterator[list[int]]:
  """Ways to fill the blanks of `cells`; `used` has the values of each unit."""
  cell, values = _tightest(cells, used, box)
  if cell < 0:
    yield list(cells)
    return
  if rng is not None and len(values) > 1:
    values = rng.permutation(values).tolist()
  for value in values:
    cells[cell] = value
    for unit in _units(box)[cell]:
      used[unit] ^= 1 << value
    yield from _fill(cells, used, box, rng)
    cells[cell] = 0
    for unit in _units(box)[cell]:
      used[unit] ^= 1 << value


def _tightest(
  cells: list[int], used: list[int], box: int
) -> tuple[int, list[int]]:
  """The first blank with the fewest candidates, and them; -1 without blanks."""
  every = 2 ** (box**2 + 1) - 2
  best, best_free, fewest = -1, 0, box**2 + 1
  for cell, (row, column, square) in enumerate(_units(box)):
    if cells[cell]:
      continue
    free = every & ~(used[row] | used[column] | used[square])
    if free.bit_count() < fewest:
      best, best_free, fewest = cell, free, free.bit_count()
    if fewest <= 1:  # One without any comes up further down.
      break
  return best, [v for v in range(1, box**2 + 1) if best_free >> v & 1]


@functools.cache
def _units(box: int) -> list[tuple[int, int, int]]:
  """Of each cell: its row, its column and its box, numbered through."""
  size = box**2
  places = [divmod(cell, size) for cell in range(size**2)]
  square = lambda row, column: row - row % box + column // box
  return [(r, size + c, 2 * size + square(r, c)) for r, c in places]

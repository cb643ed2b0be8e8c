# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sudoku of 4 x 4 or 9 x 9 cells with a unique solution.

The prompt is the grid with 0 for blanks, the answer the whole grid, row by row.
Tokens: 0..size cells, then the mask.
"""

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
    clues, left = solved.copy(), self.size**2
    for cell in rng.permutation(self.size**2):
      if left <= wanted:
        break
      tried = clues.copy()
      tried.flat[cell] = 0
      if len(solutions(tried, self.box, limit=2)) == 1:
        clues, left = tried, left - 1
    return np.concatenate([clues.reshape(-1), solved.reshape(-1)])

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


def solutions(
  grid: np.ndarray,
  box: int,
  limit: int,
  rng: np.random.Generator | None = None,
) -> list[np.ndarray]:
  """Up to `limit` ways to fill the blanks, by backtracking.

  The blank with the fewest candidates goes first; `rng` shuffles candidates.
  """
  size, found = box**2, []
  grid = grid.copy()
  every = set(range(1, size + 1))

  def candidates(row: int, column: int) -> list[int]:
    top, left = row - row % box, column - column % box
    seen = {*grid[row], *grid[:, column]}
    seen |= {*grid[top : top + box, left : left + box].flat}
    return sorted(every - seen)

  def fill() -> None:
    blanks = np.argwhere(grid == 0).tolist()
    if not blanks:
      found.append(grid.copy())
      return
    options = [(candidates(*cell), cell) for cell in blanks]
    values, (row, column) = min(options, key=lambda option: len(option[0]))
    if rng is not None:
      values = rng.permutation(values).tolist()
    for value in values:
      grid[row, column] = value
      fill()
      grid[row, column] = 0
      if len(found) >= limit:
        return

  fill()
  return found

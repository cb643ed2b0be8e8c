# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sudoku, brackets, countdown and Markov chains by enumeration."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.tasks import base, brackets, countdown, markov_chain, sudoku

TASKS = (
  brackets.Brackets(),
  countdown.Countdown(),
  markov_chain.MarkovChain(),
  sudoku.Sudoku(),
)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: type(task).__name__)
def test_records_are_right_and_contain_no_mask(task):
  rows = base.batch(task, 0, 0, 40)
  assert isinstance(task, base.Task)
  assert rows.shape == (40, task.prompt_len + task.answer_len)
  assert rows.dtype == np.int32
  assert rows.min() >= 0
  assert rows.max() < task.mask_id == task.vocab_size - 1
  assert task.is_correct(rows).all()
  masked = rows.copy()
  masked[:, -1] = task.mask_id
  assert not task.is_correct(masked).any()
  np.testing.assert_array_equal(base.record(task, 0, 7), rows[7])


def test_there_are_288_small_sudokus():
  blank = np.zeros((4, 4), np.int32)
  grids = np.array(sudoku.solutions(blank, 2, limit=1000)).reshape(-1, 16)
  assert len(np.unique(grids, axis=0)) == len(grids) == 288
  task = sudoku.Sudoku()
  rows = np.concatenate([0 * grids, grids], axis=1)
  assert task.is_correct(rows).all()
  for cell in range(16):
    wrong = rows.copy()
    wrong[:, 16 + cell] = wrong[:, 16 + cell] % 4 + 1
    assert not task.is_correct(wrong).any()


def test_clues_leave_one_solution_and_must_be_kept():
  task = sudoku.Sudoku()
  rows = base.batch(task, 1, 0, 30)
  blank = np.zeros((4, 4), np.int32)
  grids = np.array(sudoku.solutions(blank, 2, limit=300)).reshape(-1, 16)
  for row in rows:
    fits = ((grids == row[:16]) | (row[:16] == 0)).all(1)
    np.testing.assert_array_equal(grids[fits], row[None, 16:])
    tried = np.concatenate([np.tile(row[:16], (288, 1)), grids], axis=1)
    np.testing.assert_array_equal(task.is_correct(tried), fits)
  clues = (rows[:, :16] > 0).sum(1)
  assert 4 <= clues.min() < clues.max() <= 8


def plain_solutions(grid, box, limit, rng=None):
  """Backtracking over sets of candidates, found anew at each step."""
  size, found = box**2, []
  grid = grid.copy()

  def candidates(row, column):
    top, left = row - row % box, column - column % box
    seen = {*grid[row], *grid[:, column]}
    seen |= {*grid[top : top + box, left : left + box].flat}
    return sorted(set(range(1, size + 1)) - seen)

  def fill():
    blanks = np.argwhere(grid == 0).tolist()
    if not blanks:
      found.append(grid.copy())
      return
    options = [(candidates(*cell), cell) for cell in blanks]
    values, (row, column) = min(options, key=lambda option: len(option[0]))
    for value in rng.permutation(values).tolist() if rng else values:
      grid[row, column] = value
      fill()
      grid[row, column] = 0
      if len(found) >= limit:
        return

  fill()
  return found


@pytest.mark.parametrize(
  'task, num',
  [
    (sudoku.Sudoku(), 40),
    (sudoku.Sudoku(min_clues=0, max_clues=16), 20),
    (sudoku.Sudoku(box=3, min_clues=45, max_clues=50), 2),
  ],
)
def test_sudokus_are_those_of_a_plain_search(task, num):
  size = task.size
  for i in range(num):
    rng = np.random.default_rng((3, i))
    blank = np.zeros((size, size), np.int32)
    [solved] = plain_solutions(blank, task.box, 1, rng)
    wanted = rng.integers(task.min_clues, task.max_clues + 1)
    clues = solved.copy()
    for cell in rng.permutation(size**2):
      if (clues > 0).sum() <= wanted:
        break
      clues.flat[cell] = 0
      if len(plain_solutions(clues, task.box, 2)) > 1:
        clues.flat[cell] = solved.flat[cell]
    want = np.concatenate([clues.reshape(-1), solved.reshape(-1)])
    np.testing.assert_array_equal(base.record(task, 3, i), want)


def test_unique_is_what_fits_one_of_all_grids():
  rng, blank = np.random.default_rng(0), np.zeros((4, 4), np.int32)
  grids = np.array(plain_solutions(blank, 2, 1000)).reshape(-1, 16)
  nums = []
  for trial in range(300):
    clues = np.where(rng.random(16) < 0.4, grids[trial % 288], 0)
    if trial % 3 == 0:  # May contradict the others.
      clues[rng.integers(16)] = rng.integers(1, 5)
    nums.append(((grids == clues) | (clues == 0)).all(1).sum())
    assert sudoku.is_unique(clues.tolist(), 2) == (nums[-1] == 1)
    found = sudoku.solutions(clues.reshape(4, 4), 2, limit=1000)
    assert len(found) == nums[-1]
  assert {0, 1, 2} <= set(nums)


def test_the_laws_of_grids_and_of_the_number_of_clues():
  task, n = sudoku.Sudoku(), 3000
  rows = base.batch(task, 2, 0, n)
  grids, counts = np.unique(rows[:, 16:], axis=0, return_counts=True)
  assert len(grids) == 288
  # The 96 upper halves are equally likely, and so are the 2 or 4 lower halves
  # of each.
  _, half, num = np.unique(
    grids[:, :8], axis=0, return_inverse=True, return_counts=True
  )
  assert sorted(num) == [2] * 48 + [4] * 48
  want = n / 96 / num[half.reshape(-1)]
  # 287 degrees of freedom, 0.999 quantile of chi-square 366.8.
  assert ((counts - want) ** 2 / want).sum() < 366.8
  # A puzzle of which no clue can be left out has at most six, so that seven
  # and eight are as often as they are wanted: each a fifth of the time.
  clues = (rows[:, :16] > 0).sum(1)
  for number in (7, 8):  # Five standard deviations.
    assert abs((clues == number).mean() - 0.2) < 5 * (0.16 / n) ** 0.5
  assert (clues == 6).mean() > 0.2 - 5 * (0.16 / n) ** 0.5


def test_a_large_sudoku_is_solved():
  task = sudoku.Sudoku(box=3, min_clues=40, max_clues=45)
  assert task.is_correct(base.batch(task, 0, 0, 2)).all()


def test_balanced_words_are_those_of_the_grammar():
  task = brackets.Brackets(kinds=2, length=6, hole_share=1.0)

  def words(pairs):
    if not pairs:
      yield ()
    for inner in range(pairs):
      for kind in range(2):
        for a in words(inner):
          for b in words(pairs - 1 - inner):
            yield (kind, *a, kind + 2, *b)

  every = set(words(3))
  assert len(every) == 5 * 2**3  # Catalan number times kinds.
  tried = np.array(list(itertools.product(range(4), repeat=6)))
  holes = np.full_like(tried, task.hole)
  good = task.is_correct(np.concatenate([holes, tried], axis=1))
  assert set(map(tuple, tried[good].tolist())) == every
  n = 4000
  drawn = base.batch(task, 0, 0, n)[:, 6:]
  found, counts = np.unique(drawn, axis=0, return_counts=True)
  assert len(found) == 40
  # Uniform: 39 degrees of freedom, 0.999 quantile of chi-square 72.1.
  assert ((counts - n / 40) ** 2 / (n / 40)).sum() < 72.1


def test_given_brackets_must_be_kept():
  task = brackets.Brackets(kinds=2, length=2)
  rows = np.array([[0, 4, 0, 2], [1, 4, 0, 2], [4, 4, 0, 3]])
  assert task.is_correct(rows).tolist() == [True, False, False]


@pytest.mark.parametrize(
  'answer, is_right',
  [
    ('3*4=12,12-5=7', True),
    ('4*3=12,12-5=7', True),
    ('3*4=12', False),  # 5 is not used.
    ('3*4=12,12-5=8', False),
    ('3+4=7', False),
    ('3*4=12,12-5=7,', False),
    ('3*4=12,3*4=12', False),
    ('5-3=2,2+4=6', False),  # True, but not the target.
    ('', False),
  ],
)
def test_countdown_answers(answer, is_right):
  task = countdown.Countdown()
  row = [
    *countdown._encode('3,4,5,=7', task.prompt_len),
    *countdown._encode(answer, task.answer_len),
  ]
  assert task.is_correct(np.array([row])).tolist() == [is_right]


def test_the_exact_denoiser_of_a_chain_equals_enumeration():
  task = markov_chain.MarkovChain(num_symbols=3, length=5, num_forbidden=0)
  rows = np.array(list(itertools.product(range(3), repeat=5)))
  p = task.transitions
  np.testing.assert_allclose(task.stationary @ p, task.stationary, atol=1e-12)
  weight = task.stationary[rows[:, 0]] * p[rows[:, :-1], rows[:, 1:]].prod(1)
  rng = np.random.default_rng(0)
  for _ in range(12):
    seen = np.where(rng.random(5) < 0.6, task.mask_id, rng.integers(0, 3, 5))
    fits = ((rows == seen) | (seen == task.mask_id)).all(1)
    hot = np.eye(4)[rows]
    want = np.einsum('r,rtv->tv', weight * fits, hot) / (weight * fits).sum()
    got = np.exp(np.asarray(task.exact_denoiser(jnp.asarray(seen[None])))[0])
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
  'make, words',
  [
    (lambda: sudoku.Sudoku(box=4), 'box=4 must be 2 or 3'),
    (lambda: brackets.Brackets(length=3), 'length=3 must be even'),
    (lambda: countdown.Countdown(min_numbers=1), 'min_numbers=1 must be in'),
    (lambda: markov_chain.MarkovChain(length=1), 'length=1 must be >= 2'),
  ],
)
def test_bad_settings_are_refused(make, words):
  with pytest.raises(ValueError, match=words):
    make()

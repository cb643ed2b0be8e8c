# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The dice task by enumeration of all chains."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.tasks import base
from jaxtok.tasks import dice_countdown as dice

TASK = dice.DiceCountdown(min_total=3, max_total=8, max_pairs=3)


def chains(total: int):
  """All answers to a total with the probability of drawing them."""

  def go(left, pairs):
    if not left:
      yield [], 1.0
    elif pairs:
      most = min(dice.FACES, left)
      for roll in range(1, most + 1):
        for rest, p in go(left - roll, pairs - 1):
          yield [TASK.max_total + roll, left - roll, *rest], p / most

  found = list(go(total, TASK.max_pairs))
  rows = [
    [total, *c, *[TASK.eos] * (TASK.answer_len - len(c))] for c, _ in found
  ]
  p = np.array([p for _, p in found])
  return np.array(rows), p / p.sum()


def test_answers_follow_the_law_of_chains_that_are_short_enough():
  task = dice.DiceCountdown(min_total=5, max_total=5, max_pairs=3)
  want_rows = {}
  for row, p in zip(*chains(5), strict=True):
    # The same chain with the other numbering of tokens.
    named = tuple(
      int(x) if x <= 5 else int(x) - TASK.max_total + 5 for x in row[1:]
    )
    want_rows[named] = p
  n = 4000
  rows = base.batch(task, 0, 0, n)[:, 1:]
  found, counts = np.unique(rows, axis=0, return_counts=True)
  want = n * np.array([want_rows[tuple(row)] for row in found.tolist()])
  assert len(found) == len(want_rows) == 11
  # 10 degrees of freedom: the 0.999 quantile of chi-square is 29.6.
  assert ((counts - want) ** 2 / want).sum() < 29.6


def test_exactly_the_legal_chains_are_right():
  legal = {tuple(row) for n in (3, 4) for row in chains(n)[0].tolist()}
  answers = itertools.product(range(TASK.vocab_size), repeat=2)
  ends = {row[3:] for row in legal}
  tried = np.array(
    [(n, *a, *end) for n in (3, 4) for a in answers for end in ends]
    + [
      (4, *a, *end)
      for a in itertools.product(range(16), repeat=2)
      for end in ends
    ]
  )
  got = {tuple(r) for r in tried[TASK.is_correct(tried)].tolist()}
  assert got == legal & {tuple(r) for r in tried.tolist()}
  assert legal <= got


def test_the_exact_denoiser_equals_enumeration():
  rng = np.random.default_rng(0)
  for total in (3, 6, 8):
    rows, p = chains(total)
    for _ in range(8):
      seen = rows[rng.choice(len(rows), p=p)].copy()
      hidden = rng.random(TASK.answer_len) < rng.random()
      seen[1:][hidden] = TASK.mask_id
      fits = ((rows == seen) | (seen == TASK.mask_id)).all(1)
      hot = np.eye(TASK.vocab_size)[rows]
      want = np.einsum('r,rtv->tv', p * fits, hot) / (p * fits).sum()
      got = np.exp(np.asarray(TASK.exact_denoiser(jnp.asarray(seen[None]))[0]))
      # Contradictions weigh 1e-6 each instead of nothing.
      np.testing.assert_allclose(got[1:], want[1:], atol=1e-4)


def test_what_can_still_become_right_is_what_enumeration_finds():
  rng = np.random.default_rng(2)
  rows = np.concatenate([chains(total)[0] for total in (3, 5, 8)])
  seen = rows[rng.integers(0, len(rows), 500)]
  # Some tokens of another chain: mostly contradictions.
  other = rows[rng.integers(0, len(rows), 500)]
  kind = rng.integers(0, 3, seen.shape)
  kind[:, 0] = 0
  seen = np.select([kind == 0, kind == 1], [seen, TASK.mask_id], other)
  fits = (seen[:, None] == rows) | (seen[:, None] == TASK.mask_id)
  want = fits.all(-1).any(-1)
  assert 0.2 < want.mean() < 0.8
  np.testing.assert_array_equal(TASK.can_complete(seen), want)


def test_contradictions_still_have_a_distribution():
  row = np.array(
    [[5, TASK.max_total + 6, 5, 15, 15, TASK.mask_id, TASK.mask_id]]
  )
  got = np.exp(np.asarray(TASK.exact_denoiser(jnp.asarray(row))))
  np.testing.assert_allclose(got.sum(-1), 1, atol=1e-4)


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match='max_pairs=3 must be >= max_total / 6'):
    dice.DiceCountdown(max_pairs=3)
  with pytest.raises(ValueError, match='min_total=30 must be in'):
    dice.DiceCountdown(min_total=30)

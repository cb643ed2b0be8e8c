# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How many tokens each call reveals, against loops and exact chances."""

import collections
import itertools
import math

import jax
import numpy as np
import pytest
from scipy import stats

from jaxtok.diffusion import budgets, samplers, schedules

LINEAR, COSINE = schedules.Linear(), schedules.Cosine()


def parts(schedule, steps):
  """(alpha_s - alpha_t) / (1 - alpha_t) of each step, and 1 for the last."""
  alpha = np.array(
    [float(schedule.alpha(1 - j / steps)) for j in range(steps + 1)]
  )
  return np.append(((alpha[1:] - alpha[:-1]) / (1 - alpha[:-1]))[:-1], 1.0)


def plan(kind, schedule, tokens, steps, blocks, rows=1):
  rngs_b = samplers.row_rngs(jax.random.key(0), rows)
  return np.asarray(budgets.plan(kind, schedule, tokens, steps, blocks, rngs_b))


@pytest.mark.parametrize(
  ('schedule', 'tokens', 'steps'),
  [(LINEAR, 9, 4), (LINEAR, 32, 32), (COSINE, 9, 4), (COSINE, 7, 31)],
)
def test_rounded_counts_are_the_written_loop(schedule, tokens, steps):
  left, want = tokens, []
  for part in parts(schedule, steps):
    want.append(round(left * part))
    left -= want[-1]
  assert left == 0
  block = [x for x in want if x]
  (got,) = plan('rounded', schedule, tokens, steps, 3)
  assert got[: 3 * len(block)].tolist() == 3 * block
  assert got.shape == (3 * steps,)
  assert (got[3 * len(block) :] == 0).all()


@pytest.mark.parametrize('schedule', [LINEAR, COSINE])
def test_binomial_counts_have_the_law_of_the_steps(schedule):
  """Each step draws how many of those left it reveals, each with its part."""
  tokens, steps, rows = 3, 3, 20_000
  part, chance = parts(schedule, steps), collections.Counter()
  for counts in itertools.product(range(tokens + 1), repeat=steps):
    if sum(counts) == tokens:
      left, p = tokens, 1.0
      for j, k in enumerate(counts):
        p *= math.comb(left, k) * part[j] ** k * (1 - part[j]) ** (left - k)
        left -= k
      chance[tuple(x for x in counts if x)] += p
  got = collections.Counter(
    tuple(x for x in row.tolist() if x)
    for row in plan('binomial', schedule, tokens, steps, 1, rows)
  )
  assert sum(chance.values()) == pytest.approx(1)
  assert set(got) <= set(chance)
  keys = sorted(chance)
  want = rows * np.array([chance[key] for key in keys])
  assert stats.chisquare([got[key] for key in keys], want).pvalue > 1e-3


def test_binomial_blocks_are_whole_and_rows_their_own():
  tokens, steps, blocks = 6, 4, 3
  got = plan('binomial', COSINE, tokens, steps, blocks, rows=50)
  assert len(np.unique(got, axis=0)) > 40
  for row in got:
    calls = np.count_nonzero(row)
    assert (row[:calls] > 0).all()
    ends = np.cumsum(row[:calls])
    assert {tokens, 2 * tokens, 3 * tokens} <= set(ends.tolist())
    assert ends[-1] == blocks * tokens
  alone = plan('binomial', COSINE, tokens, steps, blocks, rows=2)
  np.testing.assert_array_equal(alone, got[:2])

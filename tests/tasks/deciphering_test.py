# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The exact optimum against Bayes' rule over whole texts, and the two tasks."""

import itertools

import numpy as np
import pytest

from jaxtok.tasks import base, deciphering, lookup, markov_chain, reordering

CHAIN = markov_chain.MarkovChain(
  num_symbols=3, length=5, concentration=0.5, num_forbidden=0
)
TASK = deciphering.Deciphering(chain=CHAIN)


def law(text) -> float:
  """Probability of a text whose naming is unknown, by its definition."""
  total = 0.0
  for naming in itertools.permutations(range(3)):
    plain = [naming[x] for x in text]
    p = CHAIN.stationary[plain[0]]
    for a, b in itertools.pairwise(plain):
      p *= CHAIN.transitions[a, b]
    total += p / 6
  return total


def test_the_optimum_is_the_conditional_law_of_all_texts():
  texts = np.array(list(itertools.product(range(3), repeat=4)))
  optimum = TASK.optimum(texts)
  assert abs(sum(law(text) for text in texts) - 1) < 1e-12
  for text, logprob_tv in zip(texts, optimum.logprob_btv, strict=True):
    for t in range(3):
      for v in range(3):
        want = law([*text[: t + 1], v]) / law(text[: t + 1])
        assert abs(np.exp(logprob_tv[t, v]) - want) < 1e-12


def test_plain_symbols_are_known_as_well_as_bayes_knows_them():
  text = np.array([[0, 1, 1, 2]])
  optimum = TASK.optimum(text)
  np.testing.assert_allclose(
    optimum.plain_btv[0, 0], CHAIN.stationary, atol=1e-12
  )
  joint = np.zeros(3)
  for naming in itertools.permutations(range(3)):
    plain = [naming[x] for x in text[0]]
    p = CHAIN.stationary[plain[0]]
    joint[plain[-1]] += p * CHAIN.transitions[plain[:-1], plain[1:]].prod()
  np.testing.assert_allclose(
    optimum.plain_btv[0, -1], joint / joint.sum(), atol=1e-12
  )


def test_renaming_a_text_renames_the_optimum():
  text = base.batch(TASK, 0, 0, 20)
  names = np.array([2, 0, 1])
  a, b = TASK.optimum(text), TASK.optimum(names[text])
  np.testing.assert_allclose(
    b.logprob_btv[..., names], a.logprob_btv, atol=1e-12
  )
  np.testing.assert_allclose(b.plain_btv, a.plain_btv, atol=1e-12)


def test_the_optimum_falls_from_uniform_to_the_entropy_of_the_chain():
  task = deciphering.Deciphering()
  rows = base.batch(task, 0, 0, 100)
  assert task.is_correct(rows).all()
  logprob = task.optimum(rows).logprob_btv[:, :-1]
  nats = -np.take_along_axis(logprob, rows[:, 1:, None], 2)[..., 0]
  assert task.entropy_rate < nats[:, 32:].mean() < nats[:, :3].mean()
  assert nats[:, :3].mean() < task.uniform
  # Known by then; 3,100 symbols with a deviation of about 0.9.
  assert abs(nats[:, 32:].mean() - task.entropy_rate) < 0.06


def test_answers_of_lookup_are_the_values_of_their_keys():
  task = lookup.Lookup(num_symbols=64, num_pairs=4, low=10, high=40)
  rows = base.batch(task, 0, 0, 100)
  assert task.is_correct(rows).all()
  assert rows.shape[1] == task.prompt_len + task.answer_len
  for row in rows:
    pairs = {row[i]: row[i + 1] for i in range(0, 12, 3)}
    assert pairs[row[12]] == row[-1]
    assert len({*pairs, *pairs.values()}) == 8
    assert all(10 <= x < 40 for x in {*pairs, *pairs.values()})
  rows[:, -1] += 1
  wrong = task.is_correct(rows)
  # The next symbol may be the key's partner by chance only if it is a value.
  assert not wrong.any()


def test_answers_of_reordering_follow_the_examples():
  task = reordering.Reordering(num_symbols=64, num_examples=2)
  rows = base.batch(task, 0, 0, 100)
  assert task.is_correct(rows).all()
  assert rows.shape[1] == task.prompt_len + task.answer_len
  for row in rows:
    order = [list(row[:3]).index(x) for x in row[4:7]]
    assert list(row[8:11][order]) == list(row[12:15])
    assert list(row[16:19][order]) == list(row[20:23])
  rows[:, -2:] = rows[:, :-3:-1]
  assert not task.is_correct(rows).any()


@pytest.mark.parametrize(
  'make, message',
  [
    (
      lambda: deciphering.Deciphering(
        chain=markov_chain.MarkovChain(num_symbols=9)
      ),
      'num_symbols=9 must be <= 8',
    ),
    (lambda: lookup.Lookup(num_pairs=0), 'num_pairs=0 must be >= 1'),
    (lambda: lookup.Lookup(high=10), r'high=10 must be in \[low'),
    (lambda: reordering.Reordering(size=1), 'size=1 must be >= 2'),
    (lambda: markov_chain.MarkovChain(floor=0.0), 'floor=0.0 must be > 0'),
  ],
)
def test_impossible_tasks_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()

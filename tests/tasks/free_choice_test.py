# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The task of free digits by enumeration of its triples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.diffusion import samplers, selectors
from jaxtok.tasks import base, free_choice

TASK = free_choice.FreeChoice(num_groups=2)
MASK = TASK.mask_id


def triples(salt: int) -> np.ndarray:
  rule = lambda a, b: 11 if (a + b + salt) % 5 else 10
  return np.array([(a, b, rule(a, b)) for a in range(10) for b in range(10)])


def test_records_are_right_and_each_changed_verdict_is_wrong():
  rows = base.batch(TASK, 0, 0, 200)
  assert TASK.is_correct(rows).all()
  wrong = rows.copy()
  wrong[:, -1] = 21 - wrong[:, -1]
  assert not TASK.is_correct(wrong).any()
  wrong[:, -1] = MASK
  assert not TASK.is_correct(wrong).any()


def test_the_exact_denoiser_equals_enumeration():
  rng = np.random.default_rng(1)
  for row in base.batch(TASK, 1, 0, 20):
    seen = row.copy()
    seen[2:][rng.random(6) < 0.6] = MASK
    got = np.exp(np.asarray(TASK.exact_denoiser(jnp.asarray(seen[None]))[0]))
    for group in range(2):
      all_rows = triples(row[group])
      part = seen[2 + 3 * group : 5 + 3 * group]
      fits = ((all_rows == part) | (part == MASK)).all(1)
      want = np.eye(TASK.vocab_size)[all_rows[fits]].mean(0)
      np.testing.assert_allclose(
        got[2 + 3 * group : 5 + 3 * group], want, atol=1e-6
      )


def test_what_can_still_become_right_is_what_enumeration_finds():
  rng = np.random.default_rng(2)
  rows = base.batch(TASK, 1, 0, 300)
  rows[:, 2:][rng.random((300, 6)) < 0.3] = MASK
  is_yes = rng.random(300) < 0.5
  rows[:, 4] = np.where(rows[:, 4] == MASK, MASK, 10 + is_yes)
  want = [
    all(
      ((triples(row[g]) == part) | (part == MASK)).all(1).any()
      for g, part in enumerate(row[2:].reshape(2, 3))
    )
    for row in rows
  ]
  assert 0.2 < np.mean(want) < 0.9
  np.testing.assert_array_equal(TASK.can_complete(rows), want)


def test_no_token_in_a_wrong_place_can_become_right():
  task = free_choice.FreeChoice(num_groups=1)
  answers = np.array(list(itertools.product(range(13), repeat=3)))
  for salt in range(5):
    full = np.insert(answers, 0, salt, axis=1)
    right = answers[task.is_correct(full)]
    assert len(right) == 100
    # All rows, each token masked or anything, against all right answers.
    fits = (answers[:, None] == right) | (answers[:, None] == MASK)
    want = fits.all(-1).any(-1)
    np.testing.assert_array_equal(task.can_complete(full), want)
    # 11 x 11 x 3 rows of digits, verdicts and masks, less wrong verdicts.
    assert want.sum() == 11 * 11 * 3 - 100


def test_digits_first_then_verdicts_is_right_in_two_calls():
  class DigitsFirst:
    def __call__(self, view):
      is_digit = jnp.arange(view.allowed_bt.shape[1]) % 3 < 2
      digits = view.allowed_bt & is_digit
      has_digit = digits.any(-1, keepdims=True)
      return jnp.where(has_digit, digits, view.allowed_bt)

  rows = base.batch(TASK, 2, 0, 64)

  def decode(selector):
    masked = np.broadcast_to(base.answer_positions(TASK), rows.shape)
    out = jax.jit(
      lambda: samplers.decode(
        TASK.exact_denoiser,
        samplers.start(jnp.asarray(rows), jnp.asarray(masked), MASK),
        selector,
        samplers.row_rngs(jax.random.key(0), len(rows)),
        prompt_len=TASK.prompt_len,
        mask_id=MASK,
      )
    )()
    return TASK.is_correct(np.asarray(out.tokens_bt)), out.num_calls_b

  right, calls = decode(DigitsFirst())
  assert right.all()
  assert (np.asarray(calls) == 2).all()
  # All at once: right exactly where no salt is 0, as greedy digits are 0, 0.
  right, calls = decode(selectors.Threshold(0.05))
  np.testing.assert_array_equal(right, (rows[:, :2] != 0).all(-1))
  assert (np.asarray(calls) == 1).all()

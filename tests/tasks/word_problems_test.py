# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word problems: every written step is true and leads to the answer."""

import re

import numpy as np
import pytest

from jaxtok.tasks import word_problems

CONFIG = word_problems.WordProblems(max_steps=4, largest=30)
STEP = re.compile(r'(\d+)([+*-])(\d+)=<<(\d+)([+*-])(\d+)=(\d+)>>(\d+)')


def draw(index):
  question, answer = CONFIG.draw(np.random.default_rng(index))
  return question.decode(), answer.decode()


@pytest.mark.parametrize('index', range(200))
def test_steps_are_true_and_use_the_numbers_of_the_question(index):
  question, answer = draw(index)
  *lines, last = answer.splitlines()
  assert 1 <= len(lines) <= 4
  now = numbers = None
  for line in lines:
    a, sign, b, *again, c, d = STEP.fullmatch(line).groups()
    assert again == [a, sign, b]
    assert c == d
    a, b, c = int(a), int(b), int(c)
    assert c == {'+': a + b, '-': a - b, '*': a * b}[sign]
    assert 1 <= c <= 30
    assert now in (None, a)
    numbers = [a, b] if numbers is None else [*numbers, b]
    now = c
  assert [int(x) for x in re.findall(r'\d+', question)] == numbers
  assert last == f'#### {now}'


def test_no_record_is_longer_than_the_bounds():
  most = CONFIG.longest
  for index in range(300):
    sizes = tuple(len(text.encode()) for text in draw(index))
    assert sizes[0] <= most[0]
    assert sizes[1] <= most[1]


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match='min_steps=3 and max_steps=2'):
    word_problems.WordProblems(min_steps=3, max_steps=2)
  with pytest.raises(ValueError, match='largest=3 must be >= 4'):
    word_problems.WordProblems(largest=3)

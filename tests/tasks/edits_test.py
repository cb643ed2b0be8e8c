# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Strings to be rewritten, against loops over their letters."""

import numpy as np
import pytest

from jaxtok.tasks import edits

VOWELS = 'aeiouAEIOU'
CONSONANTS = set('abcdefghijklmnopqrstuvwxyz') - set(VOWELS)


def by_hand(kind, text):
  """The answer, letter by letter."""
  out, i = '', 0
  while i < len(text):
    if kind == 'merge' and text[i : i + 3] == 'ABC':
      out, i = out + 'D', i + 3
      continue
    is_vowel = text[i] in VOWELS
    before = text[i - 1] if i else ''
    is_gone = is_vowel and (kind == 'vowels' or before in CONSONANTS)
    if kind == 'merge' or not is_gone:
      out += text[i]
    i += 1
  return out


@pytest.mark.parametrize('kind', edits.KINDS)
def test_answers_follow_the_rule(kind):
  task = edits.Edits(kind=kind, length=40)
  changed = 0
  for i in range(200):
    source, answer = task.draw(np.random.default_rng(i))
    assert len(source) == 39
    assert source.startswith(b'#')
    assert answer.decode() == by_hand(kind, source.decode())
    dropped = task.is_dropped(source)
    assert dropped.sum() == len(source) - len(answer)
    if kind != 'merge':
      kept = np.frombuffer(source, np.uint8)[~dropped].tobytes()
      assert kept == answer
    changed += source != answer
  assert changed > 150


def test_a_vowel_behind_a_deleted_one_follows_the_string_as_it_was():
  task = edits.Edits(kind='contextual')
  assert task.answer(b'#baeBiZobx') == b'#beBiZobx'
  assert edits.Edits(kind='merge').answer(b'#ABCABCAB') == b'#DDAB'


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'kind': 'swap'}, "kind='swap' must be one of vowels"),
    ({'length': 2}, 'length=2 must be >= 3'),
    ({'merge_share': 2.0}, r'merge_share=2\.0 must be in'),
  ],
)
def test_impossible_tasks_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    edits.Edits(**fields)

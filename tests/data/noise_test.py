# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from jaxtok.data import noise, text

WORDS = b'The 12 quick Foxes, jump-over it! ' * 300


@pytest.mark.parametrize(
  'kind, want',
  [
    ('delete', b'T 1 q F, j-o i! '),
    ('case', b'tHE 12 QUICK fOXES, JUMP-OVER IT! '),
    ('spaces', b'The12quickFoxes,jump-overit!'),
    ('swap', b'hTe 21 uqcik oFexs, ujpm-vore ti! '),
    ('caps', b'THE 12 QUICK FOXES, JUMP-OVER IT! '),
  ],
)
def test_noise_at_rate_one_touches_all_that_it_may(kind, want):
  assert noise.add_noise(WORDS, kind, 1.0) == want * 300


def test_typos_are_letters_in_the_place_of_letters():
  got = noise.add_noise(WORDS, 'typo', 0.3)
  assert len(got) == len(WORDS)
  changed = [(a, b) for a, b in zip(WORDS, got, strict=True) if a != b]
  assert all(chr(a).isalpha() and chr(b).islower() for a, b in changed)


@pytest.mark.parametrize('kind', noise.KINDS)
def test_noise_has_its_rate_and_is_the_same_every_time(kind):
  got = noise.add_noise(WORDS, kind, 0.1)
  assert got == noise.add_noise(WORDS, kind, 0.1) != WORDS
  assert noise.add_noise(WORDS, kind, 0.0) == WORDS
  if kind == 'case':
    letters = [
      (a, b) for a, b in zip(WORDS, got, strict=True) if chr(a).isalpha()
    ]
    share = sum(a != b for a, b in letters) / len(letters)
    assert abs(share - 0.1) < 0.02  # 6,300 letters: five standard errors.


def test_swaps_keep_the_letters_of_each_word():
  got = noise.add_noise(WORDS, 'swap', 0.3)
  words = list(zip(WORDS.split(), got.split(), strict=True))
  assert all(sorted(a) == sorted(b) for a, b in words)
  assert sum(a != b for a, b in words) > 0.3 * len(words)


def test_a_share_of_the_words_is_in_capitals():
  got = noise.add_noise(WORDS, 'caps', 0.3)
  find = lambda data: re.findall(rb'\w+', data)
  pairs = list(zip(find(WORDS), find(got), strict=True))
  assert all(b in (a, a.upper()) for a, b in pairs)
  is_loud = [a != b for a, b in pairs if a != a.upper()]
  share = sum(is_loud) / len(is_loud)
  assert abs(share - 0.3) < 0.06  # 1,800 words: five standard errors.


def test_a_noisy_source_changes_the_key_and_the_documents():
  clean = text.Stdlib(max_bytes=20_000)
  dirty = noise.Noisy(source=clean, kind='spaces')
  a, b = clean.make('validation'), dirty.make('validation')
  assert a.key != b.key
  assert len(a) == len(b)
  assert b[0]['data'] == noise.add_noise(a[0]['data'], 'spaces', 0.1)


def test_impossible_noise_is_refused():
  with pytest.raises(ValueError, match="kind='loud' must be one of delete"):
    noise.Noisy(source=text.Stdlib(), kind='loud')
  with pytest.raises(ValueError, match=r'rate=2.0 must be in \[0, 1\]'):
    noise.Noisy(source=text.Stdlib(), rate=2.0)

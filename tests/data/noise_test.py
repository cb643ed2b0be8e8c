# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import pytest

from jaxtok.data import noise, text

WORDS = b'The 12 quick Foxes, jump-over it! ' * 300


@pytest.mark.parametrize(
  'kind, want',
  [
    ('delete', b'T 1 q F, j-o i! '),
    ('case', b'tHE 12 QUICK fOXES, JUMP-OVER IT! '),
    ('spaces', b'The12quickFoxes,jump-overit!'),
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

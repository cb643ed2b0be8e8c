# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxtok.data import cipher, text
from jaxtok.tokenizers import bytes as byte_tokenizer

PLAIN = b'The quick Brown fox jumps over the lazy Dog, 12 times! \xc3\xa9 ' * 40


def key_of(plain: bytes, ciphered: bytes) -> dict[int, int]:
  """The key, if there is one."""
  found = {}
  for a, b in zip(plain, ciphered, strict=True):
    assert found.setdefault(a, b) == b
  return found


def test_letters_are_exchanged_one_to_one_in_both_cases_alike():
  found = key_of(PLAIN, cipher.encipher(PLAIN))
  assert len(set(found.values())) == len(found)
  for a, b in found.items():
    character = chr(a)
    if not (character.isascii() and character.isalpha()):
      assert a == b
    elif character.isupper() and a + 32 in found:
      assert found[a + 32] == b + 32
  assert any(a != b for a, b in found.items())


def test_a_switch_changes_the_key_where_it_says():
  got = cipher.encipher(PLAIN, switch=0.25)
  edge = len(PLAIN) // 4
  first, second = (
    key_of(PLAIN[:edge], got[:edge]),
    key_of(PLAIN[edge:], got[edge:]),
  )
  assert first != second
  assert got[:edge] == cipher.encipher(PLAIN)[:edge]


def test_all_keys_are_equally_likely():
  """Where the first letter goes: 2,600 draws, chi-square of 25 degrees."""
  rng = np.random.default_rng(0)
  counts = np.bincount(
    [cipher.key(rng)[ord('a')] - ord('a') for _ in range(2600)], minlength=26
  )
  assert ((counts - 100) ** 2 / 100).sum() < 52.6  # False alarms: 0.1 %.


def test_a_ciphered_source_changes_the_key_and_the_documents():
  clean = text.Stdlib(max_bytes=20_000)
  a, b = (
    source.make('validation')
    for source in (clean, cipher.Ciphered(source=clean))
  )
  assert a.key != b.key
  assert len(a) == len(b)
  assert b[0]['data'] == cipher.encipher(a[0]['data']) != a[0]['data']


def test_an_impossible_switch_is_refused():
  with pytest.raises(ValueError, match=r'switch=0.0 must be in \(0, 1\]'):
    cipher.Ciphered(source=text.Stdlib(), switch=0.0)


def test_keys_for_tokens_are_those_for_bytes():
  tokenizer = byte_tokenizer.Config(map='byt5').make()
  tables = cipher.token_tables(tokenizer, np.random.default_rng(0), 3, 2)
  assert tables.shape == (3, 2, tokenizer.vocab_size)
  assert len({row.tobytes() for row in tables.reshape(6, -1)}) == 6
  for row in tables.reshape(6, -1):
    np.testing.assert_array_equal(np.sort(row), np.arange(len(row)))
    ciphered = tokenizer.decode(row[tokenizer.encode(PLAIN)])
    found = key_of(PLAIN, ciphered)
    lower = {a: b for a, b in found.items() if 97 <= a < 123}
    assert any(a != b for a, b in lower.items())
    for a, b in found.items():
      assert b == (lower.get(a + 32, b + 32) - 32 if 65 <= a < 91 else b)
      assert a == b or chr(a).isalpha()

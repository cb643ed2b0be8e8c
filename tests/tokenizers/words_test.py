# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word rules against the text of their standards, and CPython's own lexer."""

import io
import itertools
import pathlib
import random
import tokenize
import unicodedata

import hypothesis
import numpy as np
import pytest
import regex
from hypothesis import strategies as st

from jaxtok.tokenizers import words


def cut(rule, data, longest=0):
  data = data.encode() if isinstance(data, str) else data
  ends = words.split(data, rule, longest).tolist()
  return [data[a:b] for a, b in itertools.pairwise([0, *ends])]


def texts(rule, text):
  return [piece.decode() for piece in cut(rule, text)]


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
  data=st.one_of(
    st.binary(max_size=40), st.text(max_size=20).map(lambda s: s.encode())
  ),
  rule=st.sampled_from(sorted(words.RULES)),
  longest=st.sampled_from([0, 1, 2, 5]),
)
def test_words_tile_any_bytes_and_are_short_enough(data, rule, longest):
  pieces = cut(rule, data, longest)
  assert b''.join(pieces) == data
  assert all(pieces)
  assert not longest or max(map(len, pieces), default=0) <= longest


def test_white_space_ends_words():
  """All characters of Unicode, by the tables of unicodedata."""
  for code in range(0x110000):
    if 0xD800 <= code < 0xE000:
      continue
    char = chr(code)
    # White_Space: the separators, and six control characters.
    is_space = unicodedata.category(char) in ('Zs', 'Zl', 'Zp') or (
      0x09 <= code <= 0x0D or code == 0x85
    )
    if is_space or code < 0x3000 or code % 97 == 0:
      want = [f'a{char}', 'b'] if is_space else [f'a{char}b']
      assert texts('whitespace', f'a{char}b') == want, hex(code)


@pytest.mark.parametrize(
  'text, want',
  [
    # As the splitter of the paper's authors gives them (version 0.1.10).
    ('Hello, world!', ['Hello,', ' world!']),
    ("can't stop 3.14", ["can'", 't', ' stop', ' 3.', '14']),
    ('howAreYou', ['how', 'Are', 'You']),
    ('a  b', ['a', '  ', 'b']),
    ('日本語', ['日', '本', '語']),
    ('', []),
  ],
)
def test_uax29_words_of_the_reference(text, want):
  assert texts('uax29', text) == want


_ALPHABET = 'aB1\u05d0\'".,_ \t\r\n\u0301\u00ad\u200d\u30ab\U0001f469日-:\u2028'
_IGNORED = ('Extend', 'Format', 'ZWJ')
_CLASSES = (
  *('CR', 'LF', 'Newline', 'Extend', 'Format', 'ZWJ', 'Katakana', 'ALetter'),
  *('Hebrew_Letter', 'Single_Quote', 'Double_Quote', 'MidNumLet', 'MidLetter'),
  *('MidNum', 'Numeric', 'ExtendNumLet', 'WSegSpace', 'Regional_Indicator'),
)


def word_break(char):
  for name in _CLASSES:
    if regex.match(rf'\p{{Word_Break={name}}}', char):
      return name
  return 'Other'


def boundaries(text):
  """The rules WB1 to WB999 of UAX#29, one after the other."""
  kinds = [word_break(c) for c in text]
  found = {0, len(text)}
  letter, number = {'ALetter', 'Hebrew_Letter'}, {'Numeric'}
  quote = {'MidNumLet', 'Single_Quote'}
  newline = {'CR', 'LF', 'Newline'}
  for i in range(1, len(text)):
    a, b = kinds[i - 1], kinds[i]
    if a == 'CR' and b == 'LF':  # WB3
      continue
    if a in newline or b in newline:  # WB3a, WB3b
      found.add(i)
      continue
    pictographic = regex.match(r'\p{Extended_Pictographic}', text[i])
    if a == 'ZWJ' and pictographic:  # WB3c
      continue
    if a == b == 'WSegSpace':  # WB3d
      continue
    if b in _IGNORED:  # WB4
      continue
    # WB4: what is ignored does not stand between its neighbours.
    left = [k for k in kinds[:i] if k not in _IGNORED]
    right = [k for k in kinds[i:] if k not in _IGNORED]
    if kinds[0] in _IGNORED and not left:
      left = ['Other']
    p, a = (['', *left])[-2:] if left else ('', '')
    n = right[1] if len(right) > 1 else ''
    joins = (
      (a in letter and b in letter)  # WB5
      or (a in letter and b in quote | {'MidLetter'} and n in letter)  # WB6
      or (p in letter and a in quote | {'MidLetter'} and b in letter)  # WB7
      or (a == 'Hebrew_Letter' and b == 'Single_Quote')  # WB7a
      or (a == n == 'Hebrew_Letter' and b == 'Double_Quote')  # WB7b
      or (p == b == 'Hebrew_Letter' and a == 'Double_Quote')  # WB7c
      or (a in letter | number and b in letter | number)  # WB8 to WB10
      or (p in number and a in quote | {'MidNum'} and b in number)  # WB11
      or (a in number and b in quote | {'MidNum'} and n in number)  # WB12
      or (a == b == 'Katakana')  # WB13
      or (
        a in letter | number | {'Katakana', 'ExtendNumLet'}
        and b == 'ExtendNumLet'
      )  # WB13a
      or (a == 'ExtendNumLet' and b in letter | number | {'Katakana'})  # WB13b
    )
    if not joins:
      found.add(i)
  return sorted(found)


def uax29_by_the_rules(text):
  """The rule `uax29`, step by step, on lists of strings."""
  pieces = [text[a:b] for a, b in itertools.pairwise(boundaries(text))]
  small = []
  for piece in pieces:  # Steps 2 and 3, character by character.
    small.append('')
    for before, char in zip(['', *piece], piece, strict=False):
      is_punctuation = before and unicodedata.category(before)[0] == 'P'
      is_hump = (
        before
        and unicodedata.category(before) == 'Ll'
        and unicodedata.category(char) == 'Lu'
      )
      if small[-1] and (is_punctuation or is_hump):
        small.append('')
      small[-1] += char
  joined = []
  for piece in small:  # Step 4.
    if joined and not piece.strip(' ') and not joined[-1].strip(' '):
      joined[-1] += piece
    else:
      joined.append(piece)
  result, last = [], None
  for piece in joined:
    if piece == ' ':
      kind = 'S'
    elif piece.isspace():
      kind = 'W'
    elif len(piece) == 1 and unicodedata.category(piece)[0] == 'P':
      kind = 'P'
    else:
      kind = 'T'
    if (last, kind) in {('S', 'T'), ('S', 'P'), ('T', 'P'), ('P', 'P')}:
      result[-1] += piece
    else:
      result.append(piece)
    last = kind
  return result


def test_uax29_words_follow_the_rules_of_the_standard():
  rng = random.Random(0)
  for _ in range(1500):
    text = 'x' + ''.join(rng.choices(_ALPHABET, k=rng.randint(1, 12)))
    assert texts('uax29', text) == uax29_by_the_rules(text), ascii(text)


def test_code_units_are_those_of_pythons_lexer():
  """All tokens of a few modules of the standard library, with their kinds."""
  kinds = {
    tokenize.NAME: 'name',
    tokenize.NUMBER: 'number',
    tokenize.STRING: 'string',
    tokenize.COMMENT: 'comment',
    tokenize.OP: 'operator',
  }
  folder = pathlib.Path(random.__file__).parent
  compared = 0
  for name in ('fractions', 'tokenize', 'textwrap', 'bisect', 'random'):
    data = (folder / f'{name}.py').read_bytes()
    lines = data.splitlines(keepends=True)
    begins = np.cumsum([0, *map(len, lines)])
    tokens = list(tokenize.tokenize(io.BytesIO(data).readline))
    if any(tokenize.tok_name[t.type] == 'FSTRING_START' for t in tokens):
      continue  # From 3.12 on, an f-string is several tokens of Python.
    want = []
    for token in tokens:
      if token.type in kinds:
        row, column = token.start
        line = lines[row - 1].decode()
        start = int(begins[row - 1]) + len(line[:column].encode())
        stop = start + len(token.string.encode())
        want.append((start, stop, kinds[token.type]))
    got = [
      unit
      for unit in words.code_units(data)
      if unit[2] != 'space' and data[unit[0] : unit[1]] != b'\\'
    ]
    assert got == want, name
    compared += 1
  assert compared >= 2


@pytest.mark.parametrize(
  'code', ['x = "unfinished\ny', "'''open\n", 'caf\xe9 = 1', '$?`', '1.e']
)
def test_broken_code_has_units_too(code):
  assert ''.join(texts('code', code)) == code


def test_long_words_are_cut_between_characters():
  assert cut('whitespace', 'aé日b cd', 3) == [
    *('aé'.encode(), '日'.encode(), b'b ', b'cd')
  ]
  assert cut('whitespace', '日日', 2) == [
    *(b'\xe6\x97', b'\xa5', b'\xe6\x97', b'\xa5')
  ]


def test_unknown_rules_and_lengths_are_refused():
  with pytest.raises(ValueError, match="rule='line' must be one of whitespace"):
    words.split(b'a', 'line')
  with pytest.raises(ValueError, match='longest=-1 must be >= 1'):
    words.split(b'abc', 'code', -1)

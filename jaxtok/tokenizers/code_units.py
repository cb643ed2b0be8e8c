# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which lexical unit of a program each token belongs to.

arXiv:2507.14423, section 3: a tokenizer cuts an identifier into pieces, and a
model may put them together again. Units are identifiers and keywords, numbers,
strings of one line and operators, found by the rules of the program's language:
`words.code_units` for Python, `c_family.lex` for C, C++, C#, Go, Java and
JavaScript. The languages differ in more than comments: to Python's rules `&&`
and `++` are two operators, `1L` is a number and a name, and an apostrophe in a
comment of C opens a string.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import base, c_family, words

MERGED = ('name', 'number', 'operator', 'string')
LANGUAGES = ('python', *c_family.LANGUAGES)


def units(
  tokenizer: base.Tokenizer,
  data: bytes,
  *,
  language: str = 'python',
  merged: Collection[str] = MERGED,
) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n']]:
  """Token ids of a program, and the unit of each, counted from 0.

  Args:
    tokenizer: Any whose tokens have bytes of their own.
    data: The program.
    language: Whose rules cut it, one of `LANGUAGES`.
    merged: Kinds of units whose tokens become one. Tokens of other kinds
      (white space, comments) and of strings over several lines, which are
      prose, are units of one.

  Raises:
    ValueError: If there is no such language.
  """
  ids, offsets = tokenizer.encode_with_offsets(data)
  spans = [
    (start, stop)
    for start, stop, kind in lex(data, language)
    if kind in merged and b'\n' not in data[start:stop]
  ]
  return ids, align(offsets, spans)


def lex(data: bytes, language: str) -> list[tuple[int, int, str]]:
  """Lexical units of a program: (start, stop, kind) in bytes; they tile.

  Raises:
    ValueError: If there is no such language.
  """
  check_language(language)
  if language == 'python':
    return words.code_units(data)
  return c_family.lex(data, language)


def check_language(language: str) -> None:
  """Raises a ValueError if there is no such language."""
  if language not in LANGUAGES:
    raise ValueError(
      f'language={language!r} must be one of {", ".join(LANGUAGES)}.'
    )


def align(
  offsets: Int[np.ndarray, 'n 2'], spans: list[tuple[int, int]]
) -> Int[np.ndarray, 'n']:
  """The unit of each token, counted from 0 without gaps.

  A token belongs to the span that holds its last byte: tokens may begin with
  the white space before a word, and one that reaches over several spans is the
  beginning of the last of them. Tokens of no span, and those without bytes,
  are units of one.

  Args:
    offsets: Bytes [start, stop) of each token, in order.
    spans: Bytes [start, stop) of each unit, in order, not overlapping.
  """
  starts = np.array([start for start, _ in spans], np.int64)
  stops = np.array([stop for _, stop in spans], np.int64)
  last = offsets[:, 1] - 1
  span = np.searchsorted(starts, last, side='right') - 1
  is_in = (span >= 0) & (offsets[:, 0] < offsets[:, 1])
  if len(spans):
    is_in &= last < stops[np.maximum(span, 0)]
  goes_on = np.zeros(len(offsets), bool)
  goes_on[1:] = is_in[1:] & is_in[:-1] & (span[1:] == span[:-1])
  return (np.cumsum(~goes_on) - 1).astype(np.int32)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which lexical unit of a program each token belongs to.

arXiv:2507.14423, section 3: a tokenizer cuts an identifier into pieces, and a
model may put them together again. Units are identifiers and keywords, numbers,
strings of one line and operators, found by `words.code_units`, whose rules are
those of Python; in languages of C's family they find the same units but for
comments, whose words come out as names.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import base, words

MERGED = ('name', 'number', 'operator', 'string')


def units(
  tokenizer: base.Tokenizer,
  data: bytes,
  *,
  merged: Collection[str] = MERGED,
) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n']]:
  """Token ids of a program, and the unit of each, counted from 0.

  Args:
    tokenizer: Any whose tokens have bytes of their own.
    data: The program.
    merged: Kinds of `words.code_units` whose tokens make one unit. Tokens of
      other kinds (white space, comments) and of strings over several lines,
      which are prose, are units of one.
  """
  ids, offsets = tokenizer.encode_with_offsets(data)
  spans = [
    (start, stop)
    for start, stop, kind in words.code_units(data)
    if kind in merged and b'\n' not in data[start:stop]
  ]
  return ids, align(offsets, spans)


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

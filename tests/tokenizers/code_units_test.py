# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Units of programs against a lexer of Python's own."""

import io
import tokenize

import numpy as np
import pytest

from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import code_units, hf

CODE = b'''def long_name(x, y=12.5):
  """A docstring
  of two lines."""
  return 'a b' + other_name[x] ** y  # done
'''


@pytest.fixture(scope='module')
def tokenizer():
  return hf.Train(vocab_size=300).make(lambda: [CODE * 20])


def pieces(ids, units, tokenizer):
  """The text of each unit."""
  return [
    tokenizer.decode(ids[units == i]).decode() for i in range(units.max() + 1)
  ]


def test_with_bytes_units_are_the_tokens_of_python():
  ids, units = code_units.units(byte_tokenizer.Config().make(), CODE)
  got = pieces(ids, units, byte_tokenizer.Config().make())
  kinds = (tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.STRING)
  want = [
    token.string
    for token in tokenize.generate_tokens(io.StringIO(CODE.decode()).readline)
    if token.type in kinds and '\n' not in token.string
  ]
  # In between: single bytes of space, docstring and comment.
  rest = iter(got)
  assert all(token in rest for token in want)
  assert [x for x in got if len(x) > 1] == [x for x in want if len(x) > 1]


def test_units_ascend_without_gaps_and_join_the_pieces_of_names(tokenizer):
  ids, units = code_units.units(tokenizer, CODE)
  assert set(np.diff(units)) <= {0, 1}
  assert units[0] == 0
  assert ''.join(pieces(ids, units, tokenizer)) == CODE.decode()
  assert units.max() + 1 < len(ids)


@pytest.mark.parametrize(
  'offsets, spans, want',
  [
    # A name in two pieces, the first with the space before it.
    ([(0, 3), (3, 5), (5, 6)], [(1, 5), (5, 6)], [0, 0, 1]),
    # A token over two units begins the second.
    ([(0, 2), (2, 5), (5, 7)], [(0, 3), (3, 7)], [0, 1, 1]),
    # Outside spans, and without bytes: alone.
    ([(0, 1), (1, 2), (2, 2), (2, 3)], [(2, 3)], [0, 1, 2, 3]),
    ([(0, 1), (1, 2)], [], [0, 1]),
  ],
)
def test_tokens_belong_to_the_unit_of_their_last_byte(offsets, spans, want):
  got = code_units.align(np.array(offsets), spans)
  np.testing.assert_array_equal(got, want)


def test_kinds_that_are_not_merged_stay_apart(tokenizer):
  _, every = code_units.units(tokenizer, CODE)
  _, none = code_units.units(tokenizer, CODE, merged=())
  np.testing.assert_array_equal(none, np.arange(len(none)))
  assert every.max() < none.max()

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxtok.tokenizers import word_bytes
from jaxtok.tokenizers.word_bytes import WORD


def test_a_mark_stands_behind_each_word():
  tokenizer = word_bytes.Config().make()
  ids = tokenizer.encode(b'to be')
  assert ids.tolist() == [*b'to ', WORD, *b'be', WORD]
  assert tokenizer.decode(ids) == b'to be'
  assert tokenizer.token_byte_lengths[ids].sum() == 5


def test_long_words_get_several_marks():
  tokenizer = word_bytes.Config(longest=2).make()
  assert tokenizer.encode(b'abc').tolist() == [*b'ab', WORD, *b'c', WORD]
  np.testing.assert_array_equal(
    tokenizer.split(b'abc d'), [*([0, 2], [2, 4], [4, 5])]
  )


@pytest.mark.parametrize(
  'rule, prompt, is_open',
  [
    ('whitespace', b'to be', True),
    ('whitespace', b'to be ', False),
    ('uax29', b'to be ', True),
    ('code', b'x = 1', True),
    ('code', b'', False),
  ],
)
def test_the_last_word_of_a_prompt_is_open(rule, prompt, is_open):
  tokenizer = word_bytes.Config(rule=rule).make()
  ids, rest = tokenizer.encode_prompt(prompt)
  assert rest == b''
  assert tokenizer.decode(ids) == prompt
  assert len(tokenizer.encode(prompt)) - len(ids) == is_open


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match="rule='line' must be one of whitespace"):
    word_bytes.Config(rule='line')
  with pytest.raises(ValueError, match='longest=0 must be >= 1'):
    word_bytes.Config(longest=0)

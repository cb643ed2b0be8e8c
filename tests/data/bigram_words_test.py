# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import collections
import itertools

import numpy as np
import pytest

from jaxtok.data import bigram_words

SMALL = bigram_words.BigramWords(num_words=30, num_classes=5, num_train=4)


def test_documents_are_words_of_the_lexicon_with_spaces():
  assert {*map(len, SMALL.lexicon())} <= set(range(3, 10))
  document = SMALL.make('train')[3]
  *parts, end = document['data'].split(b' ')
  assert end == b''
  ids = SMALL.word_ids('train', 3)
  assert [SMALL.lexicon()[i] for i in ids] == parts
  assert len(parts) == 400


def test_documents_are_the_same_every_time_and_differ_from_each_other():
  source = SMALL.make('validation')
  datas = [source[i]['data'] for i in range(3)]
  again = SMALL.make('validation')
  assert datas == [again[i]['data'] for i in range(3)]
  assert len({*datas, SMALL.make('train')[0]['data']}) == 4
  assert source.key == again.key != SMALL.make('test').key
  assert (len(source), len(SMALL.make('train'))) == (50, 4)


def test_the_chain_keeps_zipfs_law():
  law = 1 / np.arange(1, 31)
  law /= law.sum()
  laws = SMALL.laws()[SMALL.classes()]
  np.testing.assert_allclose(laws.sum(axis=1), 1, rtol=1e-12)
  np.testing.assert_allclose(law @ laws, law, atol=1e-11)
  assert laws.max() > 2 * law.max()  # And yet the last word tells something.


def test_words_follow_each_other_by_the_laws():
  config = bigram_words.BigramWords(
    num_words=6, num_classes=3, concentration=1.0, document_words=30_000
  )
  ids = config.word_ids('train', 0)
  pairs = collections.Counter(itertools.pairwise(ids))
  laws, class_of = config.laws(), config.classes()
  for a in range(6):
    total = (ids[:-1] == a).sum()
    for b in range(6):
      want = total * laws[class_of[a], b]
      # Five standard errors, and one for rare pairs.
      assert abs(pairs[a, b] - want) < 5 * np.sqrt(want) + 1


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_classes': 2001}, r'num_classes=2001 must be in \[1, num_words=2000'),
    ({'concentration': 0.0}, 'concentration=0.0 must be > 0'),
    ({'shortest': 10}, 'shortest=10 <= longest=9'),
  ],
)
def test_impossible_languages_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    bigram_words.BigramWords(**fields)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import collections

import numpy as np
import pytest

from jaxtok.data import zipf

SMALL = zipf.Zipf(num_words=50, num_train=40, document_words=500)


def test_documents_are_words_of_the_lexicon_with_spaces():
  words = set(SMALL.lexicon())
  assert len(words) == 50
  assert {3, 7} <= set(map(len, words)) <= set(range(3, 8))
  document = SMALL.make('train')[3]
  parts = document['data'].split(b' ')
  assert parts.pop() == b''
  assert len(parts) == 500
  assert set(parts) <= words
  ids = SMALL.word_ids('train', 3)
  assert [SMALL.lexicon()[i] for i in ids] == parts


def test_documents_are_the_same_every_time_and_differ_from_each_other():
  source = SMALL.make('validation')
  datas = [source[i]['data'] for i in range(3)]
  again = SMALL.make('validation')
  assert datas == [again[i]['data'] for i in range(3)]
  assert len({*datas, SMALL.make('train')[0]['data']}) == 4
  assert source.key == again.key != SMALL.make('test').key
  assert len(source) == 100


def test_words_of_a_topic_follow_zipfs_law():
  config = zipf.Zipf(num_words=50, num_topics=1, document_words=20_000)
  counts = collections.Counter(config.word_ids('train', 0).tolist())
  found = [n for _, n in counts.most_common(8)]
  law = 1 / np.arange(1, 51)
  want = 20_000 * law[:8] / law.sum()
  # Five standard errors of each count.
  assert (abs(np.asarray(found) - want) < 5 * np.sqrt(want)).all()


def test_topics_stay():
  """Words near each other are of one topic: they repeat more often."""
  config = zipf.Zipf(num_words=200, num_topics=8, document_words=20_000)
  ids = config.word_ids('train', 0)
  near, far = (ids[1:] == ids[:-1]).mean(), (ids[500:] == ids[:-500]).mean()
  assert near > 1.5 * far


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'shortest': 8}, 'shortest=8 <= longest=7'),
    ({'num_words': 200, 'shortest': 1, 'longest': 1}, 'num_words=200 must be'),
    ({'stay': 1.5}, 'stay=1.5 must be in'),
  ],
)
def test_impossible_languages_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    zipf.Zipf(**fields)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Made-up DNA holds what it says."""

import numpy as np
import pytest

from jaxtok.data import planted


def test_half_of_a_sequence_repeats_a_3mer():
  config = planted.Repeats(length=101)
  for i in range(20):
    data, is_repeat = config.document('train', i)
    assert (len(data), is_repeat.sum()) == (101, 50)
    part = bytes(b for b, yes in zip(data, is_repeat, strict=True) if yes)
    assert part[3:] == part[:-3]
    assert len(set(part)) > 1
  assert len(config.make('validation')) == 500


def test_documents_are_functions_of_seed_split_and_index():
  config, other = planted.Repeats(), planted.Repeats(seed=1)
  data = config.document('train', 3)[0]
  assert data == config.document('train', 3)[0]
  assert data != config.document('test', 3)[0]
  assert data != other.document('train', 3)[0]
  made = planted.Repeats(num_train=5).make('train')
  assert made[3]['data'] == data


def test_each_sequence_holds_the_word_of_its_class_and_not_the_other():
  config = planted.Motifs(mutation=0.0, num_train=200)
  words = [np.frombuffer(b'ACGT', 'u1')[w].tobytes() for w in config.lexicon()]
  found = config.read('train')
  for data, label in zip(found.sequences, found.labels_n, strict=True):
    assert len(data) == config.length
    assert words[label] in data
    # By chance: 191 places, 4**-10 each.
    assert words[1 - label] not in data
  assert 70 < found.labels_n.sum() < 130


def test_mutations_change_a_share_of_the_planted_bases():
  plain = planted.Motifs(mutation=0.0, num_train=500)
  noisy = planted.Motifs(mutation=1.0, num_train=500)
  word = np.frombuffer(b'ACGT', 'u1')[plain.lexicon()[0]].tobytes()
  count = lambda c: sum(word in x for x in c.read('train').sequences)
  assert count(plain) > 200
  assert count(noisy) == 0


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: planted.Repeats(length=3), 'length=3 must be >= 12'),
    (lambda: planted.Motifs(length=20), 'do not fit length=20'),
    (lambda: planted.Motifs(num_words=2), 'num_words=2 must be >= 3'),
    (lambda: planted.Motifs(mutation=2.0), 'mutation=2.0 must be in'),
  ],
)
def test_impossible_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Texts of windows, against the dictionary that made them."""

import collections

import numpy as np
import pytest

from jaxtok.analysis import resets, trivial, window_texts
from jaxtok.entropy import table
from jaxtok.entropy.formats import WindowFormat
from jaxtok.tokenizers import neural

DOCUMENTS = [b'the cat sat on the mat; ' * 20, b'a dog and the cat; ' * 15]


@pytest.fixture(scope='module')
def model():
  return table.fit(DOCUMENTS, order=1)


@pytest.fixture(scope='module')
def tokenizer(model):
  return neural.NeuralCompressionTokenizer(model, token_bits=8)


def test_texts_are_those_of_the_dictionary(tokenizer):
  found = window_texts.collect(tokenizer, DOCUMENTS)
  want = collections.defaultdict(collections.Counter)
  for document in DOCUMENTS:
    ids = tokenizer.encode(document)
    for first, second in ids.reshape(-1, 2).tolist():
      symbols = tokenizer.words.string(first * 256 + second)
      text = bytes(x for x in symbols if x < 256)  # Without EOS.
      want[0, first][text] += 1
      want[1, second][text] += 1
  assert found.texts == dict(want)
  assert found.counts().shape == (2, 256)
  assert found.counts()[0].sum() == sum(x.total() for x in want.values()) / 2


def test_agreement_counts_the_most_frequent_beginning():
  texts = {(0, 7): collections.Counter({b'ab': 3, b'ac': 1, b'x': 2})}
  found = window_texts.WindowTexts(texts, 1, 9)
  assert found.agreement()[0, 7] == pytest.approx(4 / 6)
  assert found.agreement(2)[0, 7] == pytest.approx(3 / 6)
  assert np.isnan(found.agreement()[0, 0])
  assert found.num_texts()[0, 7] == 3
  assert found.common(0, 7, 2) == [b'ab', b'x']
  assert found.common(0, 3) == []


def test_resets_are_those_of_the_tokenizers(model, tokenizer):
  found = resets.measure(model, DOCUMENTS, (1, 0))
  once = trivial.measure(tokenizer, DOCUMENTS)
  assert found.bytes_per_token[0] == once.bytes_per_token
  assert found.uniform_bpb[0] == pytest.approx(8 / once.bytes_per_token)
  carried = neural.NeuralCompressionTokenizer(
    model, WindowFormat(reset_every=0), token_bits=8
  )
  never = trivial.measure(carried, DOCUMENTS)
  assert found.unigram_bpb[1] == pytest.approx(never.unigram_bpb)
  # An order-1 model that remembers the last byte compresses better.
  assert found.bytes_per_token[1] > found.bytes_per_token[0]

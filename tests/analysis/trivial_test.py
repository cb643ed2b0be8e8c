# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trivial models against closed forms."""

import collections
import math

import numpy as np
import pytest

from jaxtok.analysis import trivial
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.tokenizers import gzip


def test_bytes_need_eight_bits_or_the_entropy_of_their_frequencies():
  documents = [b'abab', b'aacd' * 3]
  found = trivial.measure(byte_tokenizer.Config().make(), documents)
  counts = collections.Counter(b''.join(documents))
  total = counts.total()
  bits = -sum(n / total * math.log2(n / total) for n in counts.values())
  assert found.uniform_bpb == pytest.approx(8)
  assert found.unigram_bpb == pytest.approx(bits)
  assert found.bytes_per_token == 1


def test_uniform_bits_are_eight_over_the_ratio_of_compression():
  text = b'to be or not to be, that is the question; ' * 40
  for token_bits in (8, 16):
    tokenizer = gzip.GzipTokenizer(token_bits=token_bits)
    found = trivial.measure(tokenizer, [text])
    coded_bits = len(tokenizer.encode(text)) * token_bits
    assert found.uniform_bpb == pytest.approx(coded_bits / len(text))
    assert found.unigram_bpb < found.uniform_bpb


def test_entropy_of_counts():
  assert trivial.entropy_nats(np.array([5, 0, 5])) == pytest.approx(math.log(2))
  assert trivial.entropy_nats(np.array([0, 7])) == 0


def test_no_text_is_refused():
  with pytest.raises(ValueError, match='documents hold no bytes'):
    trivial.measure(byte_tokenizer.Config().make(), [b''])

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""KL of bit n-grams against counting by hand and closed forms."""

import collections
import math

import numpy as np
import pytest

from jaxtok.analysis import bit_ngrams


def by_hand(bits, n, step):
  """KL without and with Miller's correction, in bits."""
  grams = [tuple(bits[i : i + n]) for i in range(0, len(bits) - n + 1, step)]
  counts = collections.Counter(grams)
  total = len(grams)
  kl = sum(k / total * math.log2(k / total * 2**n) for k in counts.values())
  return kl, kl - (len(counts) - 1) / (2 * total) / math.log(2)


@pytest.mark.parametrize('overlapping', [True, False])
def test_equals_counting_by_hand(overlapping):
  rng = np.random.default_rng(0)
  bits = (rng.random(3 * 160 + 7) < 0.3).astype(np.uint8)
  sizes = (1, 2, 3, 8, 16)
  found = bit_ngrams.divergence(
    bits, sizes, num_parts=3, overlapping=overlapping
  )
  for row, n in enumerate(sizes):
    for part in range(3):
      some = bits[part * 160 : (part + 1) * 160].tolist()
      plain, corrected = by_hand(some, n, 1 if overlapping else n)
      assert found.plug_in[row, part] == pytest.approx(plain)
      assert found.corrected[row, part] == pytest.approx(corrected)


def test_independent_biased_bits_have_n_times_the_divergence_of_one():
  p, rng = 0.3, np.random.default_rng(1)
  bits = (rng.random(1_600_000) < p).astype(np.uint8)
  one = 1 + p * math.log2(p) + (1 - p) * math.log2(1 - p)
  found = bit_ngrams.divergence(bits, (1, 4, 8), num_parts=20)
  # The entropy of a bit has a standard error of
  # sqrt(p (1 - p)) log2((1 - p) / p) / sqrt(bits) = 4.4e-4 bits in all; six.
  np.testing.assert_allclose(
    found.corrected.mean(axis=1), one * found.sizes, atol=6 * 4.4e-4 * 8
  )


def test_coin_tosses_are_uniform_once_corrected():
  bits = bit_ngrams.random_bits(1 << 20, seed=2)
  found = bit_ngrams.divergence(bits, (1, 4, 8, 10), num_parts=16)
  assert found.plug_in[-1].min() > 4e-3  # Biased: 1023 / (2 * 65536) / ln 2.
  low, _, high = found.percentiles().T
  assert (low < 1e-3).all()
  # Sums of K - 1 squares: standard deviation sqrt(2 (K - 1)) / (2 m ln 2).
  spread = np.sqrt(2 * (2.0**found.sizes - 1)) / (2 * 65_536 * math.log(2))
  assert (np.abs(high) < 5 * spread * np.sqrt(found.sizes)).all()


def test_bits_of_tokens_come_most_significant_first():
  bits = bit_ngrams.bits_of(np.array([0x81, 0x02]), 8)
  assert ''.join(map(str, bits)) == '1000000100000010'
  wide = bit_ngrams.bits_of(np.array([0x8102]), 16)
  np.testing.assert_array_equal(wide, bits)


def test_special_ids_and_short_texts_are_refused():
  with pytest.raises(ValueError, match='do not all have 8 bits'):
    bit_ngrams.bits_of(np.array([256]), 8)
  with pytest.raises(ValueError, match='not enough for n-grams of 16'):
    bit_ngrams.divergence(np.zeros(100, np.uint8), num_parts=10)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of texts, and long texts, code as each would alone from its start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.entropy import dictionary, documents, long_text, reference, stream
from jaxtok.entropy.formats import WindowFormat
from tests.entropy import coding_oracle as oracle


@pytest.fixture(scope='module')
def model():
  return oracle.order1(0)


@given(st.lists(st.integers(0, 5000), max_size=30))
def test_batches_hold_every_text_once_and_bounded(lengths):
  texts = [bytes(n) for n in lengths]
  found = list(documents.batches(texts))
  assert sorted(i for batch in found for i in batch) == list(range(len(texts)))
  for batch in found:
    longest = max(lengths[i] for i in batch)
    assert len(batch) == 1 or len(batch) * longest <= documents._BATCH_BYTES
    # Padding at most doubles a text, or takes it to 16 bytes.
    assert all(longest < max(16, 2 * lengths[i] + 2) for i in batch)


def test_texts_of_a_list_code_like_the_reference(model):
  fmt = WindowFormat(window_bits=32)
  texts = [oracle.likely_text(model, n, n) for n in (70, 0, 3, 30, 31, 32, 5)]
  found = documents.encode_windows(texts, model, fmt, verify=False)
  cdf = oracle.next_cdf(model)
  for text, (words, spans) in zip(texts, found, strict=True):
    numbers = [int.from_bytes(x.astype('>u2').tobytes()) for x in words]
    pairs = list(zip(spans.tolist(), numbers, strict=True))
    assert pairs == reference.encode_windows(text, cdf, 32)
  decoded = documents.decode_windows([x for x, _ in found], model, fmt)
  assert decoded == texts


def test_streams_of_a_list_come_back_and_charge_every_byte(model):
  texts = [oracle.likely_text(model, n, n) for n in (70, 0, 3, 31, 32, 5)]
  found = documents.encode_streams(texts, model)
  for text, (digits, charges) in zip(texts, found, strict=True):
    want = reference.encode_stream([*text, 256], oracle.next_cdf(model))
    assert digits.tolist() == want
    assert charges.sum() == len(text)
    assert len(charges) == len(digits)
  assert documents.decode_streams([x for x, _ in found], model) == texts


def test_digits_without_an_end_decode_to_something_finite(model):
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, 1 << 16, n).astype(np.uint16) for n in (0, 1, 9)]
  texts = documents.decode_streams(rows, model)
  assert texts[0] == b''
  assert all(isinstance(x, bytes) for x in texts)


def test_a_long_run_of_certain_symbols_decodes():
  """More symbols per digit than are decoded at first."""
  model = oracle.widen(oracle.order0(oracle.peaked_freqs(97)))
  [(digits, _)] = documents.encode_streams([b'a' * 3000], model)
  assert len(digits) < 6
  assert documents.decode_streams([digits], model) == [b'a' * 3000]


class Words:
  """Codes with a dictionary, and remembers how often."""

  def __init__(self, model):
    words = dictionary.compile_window_dictionary(model, max_symbols=4)
    self.words, self.calls = words, []

  def __call__(self, texts):
    self.calls.append(len(texts))
    return [self.words.encode(x, use_numba=False) for x in texts]


@pytest.fixture(scope='module')
def words(model):
  return Words(model)


@pytest.fixture
def tiny(monkeypatch):
  """Pieces of 32 bytes that overlap by 16."""
  monkeypatch.setattr(long_text, 'OVERLAP', 4)
  monkeypatch.setattr(long_text, 'PIECE', 8)


def check_long(text, words):
  words.calls.clear()
  got, spans = long_text.encode(text, words, max_symbols=4)
  want, want_spans = words.words.encode(text, use_numba=False)
  np.testing.assert_array_equal(got, want)
  np.testing.assert_array_equal(spans, want_spans)


def test_long_texts_code_as_from_their_start(words, model, tiny):
  for length in (1, 31, 32, 33, 64, 100, 1000):
    check_long(oracle.likely_text(model, length, length), words)
  assert words.calls[0] == 31


def test_pieces_that_never_agree_are_coded_again(words, tiny):
  """Words of a run all have one length, so starts keep their distance."""
  for run in (b'a', b'ab', b'\x00\x01\x02', b'e'):
    check_long(run * 300, words)
  [(_, spans)] = words([b'aaaa' * 50])
  assert spans[5] == spans[6]


def test_a_piece_that_disagrees_is_coded_from_where_the_last_one_ends(tiny):
  """Words of 3 bytes, in pieces whose starts differ modulo 3."""
  calls = []

  def threes(texts):
    calls.append(len(texts))
    starts = [np.arange(0, len(x) + 1, 3) for x in texts]
    spans = [
      np.diff(a, append=len(x) + 1) for a, x in zip(starts, texts, strict=True)
    ]
    return [(np.zeros((len(x), 1)), x) for x in spans]

  words, spans = long_text.encode(bytes(130), threes, max_symbols=4)
  assert calls == [4, 1, 1]
  assert spans.tolist() == [3] * 43 + [2]
  assert len(words) == 44


@given(data=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_long_text_codes_as_from_its_start(words, data):
  before = long_text.OVERLAP, long_text.PIECE
  long_text.OVERLAP, long_text.PIECE = 4, 8
  try:
    check_long(data or b'x', words)
  finally:
    long_text.OVERLAP, long_text.PIECE = before


def test_only_long_texts_are_cut(model, monkeypatch):
  monkeypatch.setattr(long_text, 'OVERLAP', 2)
  monkeypatch.setattr(long_text, 'PIECE', 4)
  fmt = WindowFormat(window_bits=32, max_symbols=6)
  texts = [oracle.likely_text(model, n, n) for n in (250, 10)]
  found = documents.encode_windows(texts, model, fmt)
  cdf = oracle.next_cdf(model)
  for text, (_, spans) in zip(texts, found, strict=True):
    want = reference.encode_windows(text, cdf, 32, max_symbols=6)
    assert spans.tolist() == [n for n, _ in want]


def test_code_lengths_do_not_depend_on_the_batch(model):
  texts = [oracle.likely_text(model, 20, n) for n in range(4)]
  rows = np.array([list(x) for x in texts])
  together = stream.code_length(rows, [20] * 4, model)
  alone = [stream.code_length(row[None], [20], model)[0] for row in rows]
  np.testing.assert_array_equal(together, alone)

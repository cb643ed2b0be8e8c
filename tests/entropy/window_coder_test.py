# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The windowed coder against Python integers, and what it promises."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.entropy import interval, quantize, reference, window
from jaxtok.entropy.formats import WindowFormat
from tests.entropy import coding_oracle as oracle

slow = pytest.mark.slow
FORMATS = [
  (16, 'cell'),
  (64, 'cell'),
  (128, 'cell'),
  (16, 'delay'),
  (32, 'greedy_zero_pad'),
  pytest.param(32, 'cell', marks=slow),
  pytest.param(32, 'delay', marks=slow),
  pytest.param(64, 'delay', marks=slow),
  pytest.param(128, 'delay', marks=slow),
  pytest.param(16, 'greedy_zero_pad', marks=slow),
  pytest.param(64, 'greedy_zero_pad', marks=slow),
  pytest.param(128, 'greedy_zero_pad', marks=slow),
]


HARDEST = ('sparse', 'peaked', 'dyadic')


@pytest.fixture(scope='module')
def models():
  return {name: oracle.widen(make()) for name, make in oracle.MODELS.items()}


def check_against_reference(model, bits, rule):
  fmt = WindowFormat(window_bits=bits, close_rule=rule)
  texts = oracle.hard_texts(model)
  packed = oracle.pack(texts)
  got = window.encode_windows(*packed, model, fmt, verify=False)
  for row, text in enumerate(texts):
    want = reference.encode_windows(text, oracle.next_cdf(model), bits, rule)
    assert oracle.as_pairs(got, row) == want


@pytest.mark.parametrize('bits, rule', FORMATS)
def test_windows_equal_the_reference_in_python_integers(bits, rule, models):
  for name in HARDEST:
    check_against_reference(models[name], bits, rule)


@slow
@pytest.mark.parametrize('bits, rule', FORMATS)
def test_windows_of_other_models_equal_the_reference(bits, rule, models):
  for name in set(models) - set(HARDEST):
    check_against_reference(models[name], bits, rule)


@pytest.mark.parametrize('bits, rule', FORMATS)
def test_any_word_decodes_like_the_reference(bits, rule, models):
  fmt = WindowFormat(window_bits=bits, close_rule=rule)
  rng = np.random.default_rng(0)
  edges = [0, 1, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1]
  numbers = edges + [int.from_bytes(rng.bytes(bits // 8)) for _ in range(30)]
  for name in HARDEST:
    model = models[name]
    got = window.decode_windows(
      oracle.as_words(numbers, bits), [len(numbers)], model, fmt
    )
    cdf = oracle.next_cdf(model)
    for k, number in enumerate(numbers):
      path = [x for x, _ in reference.follow_word(number, cdf, bits)]
      exact = reference.candidate_lengths(number, cdf, bits)
      length = got.num_symbols_bk[0, k]
      if rule == 'cell':
        assert length == len(path)
      elif rule == 'delay':
        assert length == (exact[0] if exact else len(path))
      else:
        assert length == (exact[-1] if exact else len(path))
        found = np.flatnonzero(got.is_candidate_bkn[0, k]) + 1
        assert found.tolist() == exact
      assert got.is_exact_bk[0, k] == (rule == 'cell' or bool(exact))
      assert got.symbols_bkn[0, k, :length].tolist() == path[:length]


@pytest.mark.parametrize('bits', [24, 40, 48])
def test_reference_codes_other_window_sizes_without_loss(bits):
  model = oracle.order1(0)
  cdf = oracle.next_cdf(model)
  for text in [b'', b'a' * 50, oracle.likely_text(model, 80, 3)]:
    for rule in ('cell', 'delay'):
      windows = reference.encode_windows(text, cdf, bits, rule, 60)
      symbols = []
      for n, word in windows:
        decoded = reference.decode_window(word, cdf, bits, rule, 60)
        assert len(decoded) == n or reference.EOS in decoded[:n]
        symbols += decoded
      end = symbols.index(reference.EOS)
      assert bytes(symbols[:end]) == text


@pytest.mark.parametrize('limit', [pytest.param(1, marks=slow), 3])
def test_short_symbol_limits_still_round_trip(limit, models):
  fmt = WindowFormat(window_bits=16, max_symbols=limit)
  texts = oracle.hard_texts(models['peaked'])
  got = window.encode_windows(*oracle.pack(texts), models['peaked'], fmt)
  for row, text in enumerate(texts):
    want = reference.encode_windows(
      text, oracle.next_cdf(models['peaked']), 16, max_symbols=limit
    )
    assert oracle.as_pairs(got, row) == want


def test_all_words_of_16_bits_decode_and_code_again(models):
  fmt = WindowFormat()
  words = np.arange(1 << 16).reshape(1, -1, 1)
  for name in ('sparse', 'dyadic'):
    got = window.decode_windows(words, [1 << 16], models[name], fmt)
    assert got.num_symbols_bk.min() >= 1
    assert got.is_exact_bk.all()
    cdf = oracle.next_cdf(models[name])
    for k in range(0, 1 << 16, 4111):
      n = got.num_symbols_bk[0, k]
      symbols = got.symbols_bkn[0, k, :n].tolist()
      # Coded as a whole text, the string gets the first word of its interval.
      length, word = reference.encode_window(symbols, cdf, 16)
      assert length == n
      assert word <= k
      assert reference.decode_window(word, cdf, 16)[:n] == symbols


def digest(texts, model, fmt, batch_size, **kwargs):
  """SHA-256 of all words, coding `batch_size` texts per call."""
  found = hashlib.sha256()
  for i in range(0, len(texts), batch_size):
    packed = oracle.pack(texts[i : i + batch_size])
    windows = window.encode_windows(*packed, model, fmt, **kwargs)
    for row, num in enumerate(windows.num_words_b):
      found.update(windows.words_bkw[row, :num].tobytes())
  return found.hexdigest()


def test_words_do_not_depend_on_the_batch_size(models):
  model, fmt = models['sparse'], WindowFormat()
  texts = [oracle.likely_text(model, 3 + i % 14, i) for i in range(70)]
  want = digest(texts, model, fmt, 70, verify=False)
  for batch_size in (1, 7, 64):
    assert digest(texts, model, fmt, batch_size, verify=False) == want
  few = digest(texts[:7], model, fmt, 7, verify=False)
  assert digest(texts[:7], model, fmt, 7, verify=False, max_lanes=2) == few


def test_words_do_not_depend_on_jit(models):
  model, fmt = models['sparse'], WindowFormat(window_bits=64)
  texts = [oracle.likely_text(model, n, n) for n in range(9)]
  want = digest(texts, model, fmt, 9, verify=False)
  with jax.disable_jit():
    assert digest(texts, model, fmt, 9, verify=False) == want


@pytest.mark.parametrize('rule', ['cell', pytest.param('delay', marks=slow)])
@pytest.mark.parametrize('reset_every', [pytest.param(0, marks=slow), 2])
def test_models_that_remember_earlier_windows_round_trip(
  rule, reset_every, models
):
  model = models['sparse']
  fmt = WindowFormat(close_rule=rule, reset_every=reset_every)
  texts = oracle.hard_texts(model)
  windows = window.encode_windows(*oracle.pack(texts), model, fmt)
  cdf = oracle.next_cdf(model)
  for row, text in enumerate(texts):
    symbols, start, past = [*text, reference.EOS], 0, 0
    for k, (n, word) in enumerate(oracle.as_pairs(windows, row)):
      if fmt.resets_before(k):
        past = start
      context = lambda now, past=tuple(symbols[past:start]): cdf((*past, *now))
      want = reference.encode_window(symbols[start:], context, 16, rule)
      assert (n, word) == want
      start += n
    assert start == len(symbols)


def test_a_wrong_word_spoils_only_its_own_window(models):
  model, fmt = models['sparse'], WindowFormat(window_bits=32)
  text = oracle.likely_text(model, 120, 5)
  windows = window.encode_windows(*oracle.pack([text]), model, fmt)
  good = window.decode_windows(*windows[:2], model, fmt)
  words = windows.words_bkw.copy()
  words[0, 3, 1] ^= 0x10
  bad = window.decode_windows(words, windows.num_words_b, model, fmt)
  for k in range(windows.num_words_b[0]):
    parts = [
      x.symbols_bkn[0, k, : x.num_symbols_bk[0, k]].tolist()
      for x in (good, bad)
    ]
    assert (parts[0] == parts[1]) == (k != 3)


def test_cell_covers_nearly_as_much_text_as_greedy_and_more_than_delay(models):
  model = models['dense']
  packed = oracle.pack([oracle.likely_text(model, 256, i) for i in range(12)])
  num = {}
  for rule in ('cell', 'delay', 'greedy_zero_pad'):
    fmt = WindowFormat(close_rule=rule)
    windows = window.encode_windows(*packed, model, fmt, verify=False)
    num[rule] = windows.num_words_b.sum()
  assert num['greedy_zero_pad'] / num['cell'] >= 0.95
  assert num['cell'] < num['delay']


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_bytes_under_any_model_round_trip(data):
  seed = data.draw(st.integers(0, 2**32 - 1))
  rng = np.random.default_rng(seed)
  freqs = data.draw(
    st.sampled_from(
      [
        lambda: oracle.sparse_freqs(rng, 10 ** rng.uniform(-2.5, 1)),
        lambda: oracle.peaked_freqs(int(rng.integers(257))),
        oracle.dyadic_freqs,
      ]
    )
  )()
  model = oracle.widen(oracle.order0(rng.permutation(freqs)))
  text = data.draw(st.binary(max_size=16))
  fmt = WindowFormat(window_bits=data.draw(st.sampled_from([16, 64])))
  window.encode_windows(*oracle.pack([text, b'']), model, fmt, verify=True)


def test_zero_padded_words_equal_a_search_over_all_blocks():
  """Random intervals, also ones that no model would make."""
  rng = np.random.default_rng(0)
  for bits in (16, 64):
    p_max = bits // 16 - 1
    nodes = []
    while len(nodes) < 300:
      p = int(rng.integers(p_max + 1))
      r = int(2 ** rng.uniform(16, 32))
      unit = 16 * (p_max - p)
      top = (1 << bits + 16) - (r << unit)
      low = int.from_bytes(rng.bytes(18)) % (top + 1) >> unit << unit
      low = rng.choice([low, 0, top >> unit << unit, low >> 20 << 20])
      node = reference.Node(bits, int(low), r, p, 1)
      nodes += [node] if node.feasible else []
    limbs = np.array(
      [list(x.low.to_bytes(bits // 8 + 2)) for x in nodes], np.uint32
    )
    limbs = limbs[:, 0::2] << 8 | limbs[:, 1::2]
    got = interval.zero_padded_word(
      interval.Node(
        tuple(jnp.asarray(limbs.T)),
        jnp.array([x.r for x in nodes], jnp.uint32),
        jnp.array([x.p for x in nodes], jnp.int32),
        jnp.ones(len(nodes), jnp.int32),
      )
    )
    words = np.stack([np.asarray(x) for x in got], axis=1)
    for word, node in zip(words.astype('>u2'), nodes, strict=True):
      assert int.from_bytes(word.tobytes()) == node.zero_padded_word()


def test_errors_name_the_argument():
  model = oracle.order1(0)
  text = np.zeros((2, 4), np.uint8)
  with pytest.raises(ValueError, match='window_bits=24 must be'):
    WindowFormat(window_bits=24)
  with pytest.raises(ValueError, match="close_rule='best'"):
    WindowFormat(close_rule='best')
  with pytest.raises(ValueError, match='text_bt is int64'):
    window.encode_windows(text.astype(np.int64), [1, 2], model)
  with pytest.raises(ValueError, match='length_b'):
    window.encode_windows(text, [1, 5], model)
  with pytest.raises(ValueError, match='words_bkw has shape'):
    window.decode_windows(np.zeros((1, 3, 2), int), [3], model)
  fmt = WindowFormat(close_rule='greedy_zero_pad', reset_every=0)
  with pytest.raises(ValueError, match='reset_every'):
    window.decode_windows(np.zeros((1, 3, 1), int), [3], model, fmt)


def test_nothing_codes_to_nothing():
  model = oracle.order1(0)
  windows = window.encode_windows(np.zeros((0, 4), np.uint8), [], model)
  assert windows.words_bkw.shape == (0, 0, 1)
  decoded = window.decode_windows(np.zeros((2, 0, 1), int), [0, 0], model)
  assert window.to_bytes(decoded, [0, 0]) == [b'', b'']
  assert quantize.EOS not in decoded.symbols_bkn

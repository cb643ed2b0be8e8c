# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The unbounded coder against Python integers, fractions and constriction."""

import fractions
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.entropy import quantize, reference, stream, table
from jaxtok.entropy.determinism import DeterminismLevel, NotDecodableError
from tests.entropy import coding_oracle as oracle


def batch_of(model):
  """Hard texts with EOS, as `(symbols_bt, length_b)`."""
  rows = [[*text, quantize.EOS] for text in oracle.hard_texts(model)]
  symbols_bt = np.zeros((len(rows), max(map(len, rows))), np.int32)
  for row, symbols in zip(symbols_bt, rows, strict=True):
    row[: len(symbols)] = symbols
  return symbols_bt, np.array([len(x) for x in rows])


@pytest.mark.parametrize('name', list(oracle.MODELS))
def test_digits_equal_the_reference_and_decode(name):
  model = oracle.widen(oracle.MODELS[name]())
  symbols_bt, length_b = batch_of(model)
  digits = stream.encode_stream(symbols_bt, length_b, model)
  cdf = oracle.next_cdf(model)
  for b, num in enumerate(length_b):
    text = symbols_bt[b, :num].tolist()
    want = reference.encode_stream(text, cdf)
    assert digits.digits_bk[b, : digits.num_digits_b[b]].tolist() == want
    assert not digits.digits_bk[b, digits.num_digits_b[b] :].any()
  got_bt, got_b = stream.decode_stream(
    digits.digits_bk, length_b + 5, model, until_eos=True
  )
  np.testing.assert_array_equal(got_b, length_b)
  for b, num in enumerate(length_b):
    np.testing.assert_array_equal(got_bt[b, :num], symbols_bt[b, :num])


def test_the_reference_decodes_its_own_digits():
  model = oracle.order1(0)
  cdf = oracle.next_cdf(model)
  for text in oracle.hard_texts(model):
    digits = reference.encode_stream(text, cdf)
    assert bytes(reference.decode_stream(digits, len(text), cdf)) == text


def test_short_strings_land_in_their_exact_interval():
  """Nested intervals in exact fractions contain the code's value."""
  rows = np.stack([oracle.cdf_of(oracle.dyadic_freqs())])
  model = table.TableModel(rows, order=0)
  cdf = [fractions.Fraction(int(c), quantize.TOTAL) for c in rows[0]]
  texts = [list(x) for x in itertools.product(range(4), repeat=3)]
  texts += [[a, b, a, a, b, 256] for a in (0, 1, 3) for b in (2, 200)]
  for text in texts:
    low, size = fractions.Fraction(0), fractions.Fraction(1)
    for x in text:
      low, size = low + size * cdf[x], size * (cdf[x + 1] - cdf[x])
    digits = stream.encode_stream([text], [len(text)], model).digits_bk[0]
    value = sum(
      fractions.Fraction(int(d), 1 << 16 * (i + 1))
      for i, d in enumerate(digits)
    )
    # The coder's ranges start at 2**32 - 1 and are rounded down: each step
    # moves a bound by at most 2**-16 of the range.
    slack = (len(text) + 1) * fractions.Fraction(1, 1 << 16)
    assert low - slack <= value < low + size + slack


@given(st.binary(max_size=32), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_bytes_under_any_model_round_trip(text, seed):
  rng = np.random.default_rng(seed)
  freqs = oracle.sparse_freqs(rng, 10 ** rng.uniform(-2.5, 1))
  model = oracle.widen(oracle.order0(freqs))
  symbols = np.zeros((1, 33), np.int32)
  symbols[0, : len(text) + 1] = [*text, quantize.EOS]
  digits = stream.encode_stream(symbols, [len(text) + 1], model)
  padded = np.zeros((1, 40), np.uint16)  # One shape for all examples.
  padded[:, : digits.digits_bk.shape[1]] = digits.digits_bk
  got, length = stream.decode_stream(padded, [33], model, until_eos=True)
  assert length[0] == len(text) + 1
  assert bytes(got[0, : len(text)].astype(np.uint8)) == text


def test_carries_run_through_any_number_of_full_digits():
  rows = [
    [1, 0xFFFF, 0xFFFF, 0x10000],
    [0xFFFE, 0x10000, 0xFFFF, 0x10005],
    [0, 0xFFFF, 0xFFFE, 0x10000],
    [5, 6, 7, 0xFFFF],
  ]
  got = np.asarray(stream.resolve_carries(jnp.array(rows, jnp.uint32)))
  for row, digits in zip(rows, got, strict=True):
    value = sum(d << 16 * i for i, d in enumerate(reversed(row)))
    assert sum(int(d) << 16 * i for i, d in enumerate(digits[::-1])) == value


def test_adversarial_text_that_makes_carries_wait_round_trips():
  """The middle of the code space makes long runs of undecided digits."""
  freqs = np.ones(oracle.NUM, int)
  freqs[100] = 3
  freqs[:100] = (quantize.TOTAL // 2 - 1) // 100
  freqs[0] += quantize.TOTAL // 2 - 1 - freqs[:100].sum()
  freqs[256] += quantize.TOTAL - freqs.sum()
  model = oracle.order0(freqs)
  cdf = oracle.next_cdf(model)
  rng = np.random.default_rng(0)
  texts = rng.choice(
    [99, 100, 101, 256], p=[0.02, 0.94, 0.02, 0.02], size=(8, 300)
  )
  texts[0] = 100
  digits = stream.encode_stream(texts, [300] * 8, model)
  for row, text in zip(digits.digits_bk, texts, strict=True):
    assert row.tolist()[: len(row)] == reference.encode_stream(
      text.tolist(), cdf
    ) + [0] * (len(row) - len(reference.encode_stream(text.tolist(), cdf)))
  got, _ = stream.decode_stream(digits.digits_bk, [300] * 8, model)
  np.testing.assert_array_equal(got, texts)


def test_code_length_is_the_sum_of_ideal_lengths_and_nearly_reached():
  model = oracle.order1(0)
  symbols = np.stack(
    [list(oracle.likely_text(model, 2000, i)) for i in range(3)]
  )
  length = np.array([2000, 1500, 0])
  got = stream.code_length(symbols, length, model)
  cdf = oracle.next_cdf(model)
  for row, num, bits in zip(symbols, length, got, strict=True):
    freqs = [
      cdf(tuple(row[:i]))[x + 1] - cdf(tuple(row[:i]))[x]
      for i, x in enumerate(row[:num])
    ]
    np.testing.assert_allclose(
      bits, -np.log2(np.array(freqs) / 65536).sum(), rtol=1e-12, atol=1e-9
    )
  digits = stream.encode_stream(symbols, length, model)
  assert (16 * digits.num_digits_b <= got * 1.001 + 32).all()


@pytest.mark.parametrize('name', ['sparse', 'dense', 'peaked', 'flat'])
def test_codes_are_as_short_as_those_of_constriction(name):
  constriction = pytest.importorskip(
    'constriction', reason='constriction is not installed: pip install it'
  )
  model = oracle.MODELS[name]()
  cdf = oracle.next_cdf(model)
  text = list(oracle.likely_text(model, 3000, 0))
  encoder = constriction.stream.queue.RangeEncoder()
  for i, symbol in enumerate(text):
    row = np.array(cdf(tuple(text[max(0, i - 1) : i])), np.float64)
    pmf = np.diff(row) / quantize.TOTAL
    # Off by less than 257 of its 2**24 shares; exact ones take a second each.
    entropy = constriction.stream.model.Categorical(pmf, perfect=False)
    encoder.encode(np.array([symbol], np.int32), entropy)
  theirs = encoder.num_bits()
  ours = 16 * stream.encode_stream([text], [3000], model).num_digits_b[0]
  assert ours <= theirs * 1.001 + 32


def test_stepping_gives_the_same_code_as_the_whole_text_at_once():
  model = oracle.order1(0)

  @jax.tree_util.register_static
  class Stepped:
    """The same model without the fast paths."""

    level = DeterminismLevel.TABLE
    init_state = staticmethod(model.init_state)
    next_cdf = staticmethod(model.next_cdf)
    step = staticmethod(model.step)
    fingerprint = staticmethod(model.fingerprint)

  symbols_bt, length_b = batch_of(model)
  want = stream.encode_stream(symbols_bt, length_b, model)
  got = stream.encode_stream(symbols_bt, length_b, Stepped())
  np.testing.assert_array_equal(got.digits_bk, want.digits_bk)
  back, _ = stream.decode_stream(want.digits_bk, length_b, Stepped())
  is_used = np.arange(back.shape[1]) < length_b[:, None]
  np.testing.assert_array_equal(back[is_used], symbols_bt[is_used])


def test_unchecked_models_are_measured_but_not_decoded():
  class Unchecked(table.TableModel):
    level = DeterminismLevel.UNCHECKED

  model = oracle.order1(0)
  unchecked = Unchecked(model.cdf_rv, order=1)
  jax.tree_util.register_dataclass(Unchecked, ['cdf_rv'], ['order'])
  symbols_bt, length_b = batch_of(model)
  np.testing.assert_array_equal(
    stream.code_length(symbols_bt, length_b, unchecked),
    stream.code_length(symbols_bt, length_b, model),
  )
  with pytest.raises(NotDecodableError, match='UNCHECKED'):
    stream.decode_stream(np.zeros((1, 4)), [3], unchecked)

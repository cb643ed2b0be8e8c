# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Probabilities and integer logits to CDFs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtok.entropy import quantize

NUM, TOTAL = quantize.NUM_SYMBOLS, quantize.TOTAL


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16))
def test_mulshift_is_the_floor_of_the_exact_product(r, c):
  got = quantize.mulshift16(np.uint32([r]), np.uint32([c]))
  assert got.dtype == np.uint32
  assert int(got[0]) == r * c >> 16


def random_pmfs(num=40):
  rng = np.random.default_rng(0)
  shapes = 10.0 ** rng.uniform(-2.5, 1, size=(num, 1))
  p = rng.gamma(shapes, size=(num, NUM)) + 1e-30
  return (p / p.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize('precision', [10, 14, 16])
def test_every_symbol_gets_a_share_and_shares_sum_to_the_total(precision):
  freqs = np.asarray(quantize.quantize_pmf(random_pmfs(), precision))
  assert freqs.dtype == np.uint32
  assert freqs.min() >= 1
  np.testing.assert_array_equal(freqs.sum(1), 2**precision)


def test_quantized_pmf_follows_the_formula_of_the_sheet():
  p = random_pmfs()
  want = np.floor(p * np.float32(TOTAL - NUM)).astype(np.int64) + 1
  for row in want:
    row[np.argmax(row)] += TOTAL - row.sum()
  np.testing.assert_array_equal(quantize.quantize_pmf(p), want)


def test_pmfs_that_are_slightly_off_still_sum_to_the_total():
  p = np.concatenate([np.eye(NUM)[:3], random_pmfs(5)]).astype(np.float32)
  for factor in (0.9995, 1.0005):
    freqs = np.asarray(quantize.quantize_pmf(p * np.float32(factor)))
    assert freqs.min() >= 1
    np.testing.assert_array_equal(freqs.sum(1), TOTAL)


def expected_bits(p, freqs):
  freqs = np.asarray(freqs, np.float64)
  return -(p * np.log2(freqs / freqs.sum(1, keepdims=True))).sum(1)


def test_the_floor_method_costs_what_it_says():
  p = random_pmfs().astype(np.float64)
  p /= p.sum(1, keepdims=True)
  entropy = -(p * np.log2(p)).sum(1)
  for precision in (14, 16):
    freqs = quantize.quantize_pmf(p.astype(np.float32), precision)
    cost = expected_bits(p, freqs) - entropy
    # f > p (M - A) for every symbol; float32 moves p by 6e-8 of itself.
    assert cost.max() < -np.log2(1 - NUM / 2**precision) + 1e-6


def test_no_unit_move_improves_the_optimal_method():
  p = random_pmfs(6).astype(np.float64)
  freqs = quantize.quantize_pmf(p, 12, method='optimal').astype(np.int64)
  np.testing.assert_array_equal(freqs.sum(1), 2**12)
  best = expected_bits(p, freqs)
  assert (best <= expected_bits(p, quantize.quantize_pmf(p, 12))).all()
  rng = np.random.default_rng(1)
  for _ in range(300):
    i, j = rng.integers(NUM, size=2)
    moved = freqs.copy()
    moved[:, i] += 1
    moved[:, j] -= 1
    ok = moved[:, j] >= 1
    assert (expected_bits(p[ok], moved[ok]) >= best[ok] - 1e-12).all()


def integer_softmax(logits):
  """The same in Python integers."""
  top = max(logits)
  table = [round(2 ** (14 - i / 64)) for i in range(64)]
  e = []
  for z in logits:
    gap = min(top - z, 20 * 64)
    e.append(table[gap % 64] >> gap // 64)
  f = [1 + x * (TOTAL - NUM) // sum(e) for x in e]
  f[f.index(max(f))] += TOTAL - sum(f)
  return f


@given(
  st.lists(
    st.one_of(st.integers(-3000, 3000), st.integers(-(2**31), 2**31 - 1)),
    min_size=NUM,
    max_size=NUM,
  )
)
@settings(max_examples=15, deadline=None)
def test_integer_softmax_equals_python_integers(logits):
  got = quantize.freqs_from_logits(jnp.array([logits], jnp.int32))
  assert np.asarray(got)[0].tolist() == integer_softmax(logits)


def test_integer_softmax_is_close_to_the_softmax_to_base_two():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 200, (50, NUM)).astype(np.int32)
  p = 2.0 ** (logits / 64)
  p /= p.sum(1, keepdims=True)
  freqs = quantize.freqs_from_logits(jnp.asarray(logits))
  entropy = -(p * np.log2(p)).sum(1)
  # 0.0057 for the floor of 1 / 2**16, the rest for the table's 2**-14 steps.
  assert (expected_bits(p, freqs) - entropy).max() < 0.008


def test_cdfs_are_integers_also_under_jit():
  freqs = quantize.quantize_pmf(random_pmfs(3))
  cdf = jax.jit(quantize.freqs_to_cdf)(freqs)
  assert cdf.dtype == jnp.uint32
  np.testing.assert_array_equal(np.diff(cdf), freqs)
  quantize.check_cdf(np.asarray(cdf))


def test_cdfs_that_cannot_code_are_refused():
  good = np.asarray(
    quantize.freqs_to_cdf(quantize.quantize_pmf(random_pmfs(2)))
  )
  hole = good.copy()
  hole[0, 5] = hole[0, 6]
  short = good.copy()
  short[:, -1] -= 1
  for bad, word in ((hole, 'frequency 0'), (short, '2\\*\\*16')):
    with pytest.raises(ValueError, match=word):
      quantize.check_cdf(bad)
  with pytest.raises(ValueError, match='258 entries'):
    quantize.check_cdf(good[:, :-1])


@pytest.mark.parametrize('kwargs', [dict(precision=8), dict(precision=17)])
def test_impossible_precisions_are_refused(kwargs):
  with pytest.raises(ValueError, match='precision'):
    quantize.quantize_pmf(random_pmfs(1), **kwargs)

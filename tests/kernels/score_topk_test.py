# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores and selections, XLA and interpreted Pallas, against NumPy."""

import contextlib
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import (
  flash_attention,
  lowering_platforms,
  masks,
  score_topk,
  tuning,
)

from tests.kernels import interpreted

ATOL = 2e-5  # As in flash_attention_test.


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
  ('implementation', 'softcap', 'by_key_head'),
  [
    *itertools.product(['reference', 'xla'], [None], [True, False]),
    *itertools.product(['reference', 'xla', 'tpu', 'triton'], [0.8], [True]),
  ],
)
def test_column_sums_equal_sums_of_float64_probabilities(
  implementation, softcap, by_key_head
):
  b, t, n, k, h = 2, 37, 4, 2, 16
  q, key, weight = draw(b, t, n, h), draw(b, t, k, h, seed=1), draw(b, t, n)
  mask = masks.packed(jnp.asarray(np.repeat([[1, 2, 0]] * 2, [14, 20, 3], 1)))
  _, lse = jax.jit(
    lambda *x: flash_attention(
      *x, mask=mask, softcap=softcap, return_state=True, implementation='xla'
    )
  )(q, key, key)
  sums = functools.partial(
    score_topk.column_sums,
    mask=mask,
    softcap=softcap,
    by_key_head=by_key_head,
    implementation=implementation,
  )
  got = interpreted.run(sums, q, key, lse, weight)
  keys = np.repeat(np.asarray(key, np.float64), n // k, 2)
  s = np.einsum('btnh,bsnh->bnts', np.asarray(q, np.float64), keys) / 4
  s = s if softcap is None else softcap * np.tanh(s / softcap)
  p = np.where(np.asarray(mask.dense(t, t))[:, None], np.exp(s), 0)
  p = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
  want = np.einsum('bnts,btn->bns', p, np.asarray(weight, np.float64))
  if by_key_head:
    want = want.reshape(b, k, n // k, t).sum(2)
  np.testing.assert_allclose(got, want, atol=ATOL)


PALLAS = ['tpu', 'triton']
IMPLEMENTATIONS = ['reference', 'xla', 'tpu', 'triton']


def run(implementation, fn, x, *args, tile=None):
  """Jitted in the first operand, kernels interpreted, with small tiles."""
  call = lambda x: fn(x, *args, implementation=implementation)
  with contextlib.ExitStack() as stack:
    for name in ('decode_scores', 'soft_vote', 'topk_threshold'):
      config = {} if tile is None else {'tile': tile}
      stack.enter_context(tuning.override(name, config))
    return interpreted.run(call, x)


@pytest.mark.parametrize(
  ('implementation', 'softcap'),
  [
    ('reference', 0.8),
    ('xla', None),
    ('xla', 0.8),
    ('tpu', None),
    ('tpu', 0.8),
    pytest.param('triton', None, marks=pytest.mark.slow),
    ('triton', 0.8),
  ],
)
def test_scores_and_votes_equal_float64(implementation, softcap):
  b, n, k, h, s = 2, 6, 2, 16, 41
  q, keys = draw(b, n, h), draw(b, s, k, h, seed=1).at[1, 18:].set(jnp.nan)
  length = jnp.array([41, 18])
  decode_scores = functools.partial(score_topk.decode_scores, softcap=softcap)
  scores, lse = run(implementation, decode_scores, q, keys, length, tile=16)
  seen = np.arange(s) < np.asarray(length)[:, None]
  wide = np.repeat(np.nan_to_num(np.asarray(keys, np.float64)), n // k, 2)
  want = np.einsum('bnh,bsnh->bns', np.asarray(q, np.float64), wide) / 4
  want = want if softcap is None else softcap * np.tanh(want / softcap)
  want = np.where(seen[:, None], want, -np.inf)
  np.testing.assert_allclose(scores, want, atol=ATOL)
  np.testing.assert_allclose(lse, np.log(np.exp(want).sum(-1)), atol=ATOL)
  region = (np.arange(s) >= 2) & seen & [[True], [False]]
  votes = run(
    implementation, score_topk.soft_vote, scores, jnp.asarray(region), tile=16
  )
  p = np.exp(want[0]) * region[0]
  np.testing.assert_allclose(
    votes[0], (p / p.sum(-1, keepdims=True)).sum(0), atol=1e-6
  )
  assert not votes[1].any()  # An empty region: no votes, no NaN.


def test_a_length_of_zero_has_no_scores():
  scores, lse = run(
    'xla',
    score_topk.decode_scores,
    draw(1, 2, 8),
    draw(1, 5, 2, 8),
    jnp.array([0]),
  )
  assert np.isneginf(scores).all()
  assert np.isneginf(lse).all()


def test_scores_are_reduced_over_the_heads_of_a_key_head_or_over_all():
  scores = draw(2, 6, 5).at[1, :, 3:].set(-jnp.inf)
  for k in (1, 2, 6):
    want = np.stack([x.max(1) for x in np.split(scores, k, axis=1)], 1)
    np.testing.assert_array_equal(score_topk.group_max(scores, k), want)
  want = np.asarray(scores, np.float64).mean(1)
  np.testing.assert_allclose(score_topk.head_mean(scores), want, atol=1e-6)


def test_block_scores_average_the_heads_of_a_key_head():
  q, k = draw(1, 3, 4, 8), draw(1, 5, 2, 8, seed=1)
  got = score_topk.block_scores(q, k)
  want = np.einsum('bukgh,bpkh->bkup', q.reshape(1, 3, 2, 2, 8), k) / 2
  np.testing.assert_allclose(got, want, atol=1e-5)


def brute_force(row, k, valid):
  row = np.where(np.isnan(row), -np.inf, row)
  order = [i for i in np.argsort(-row, kind='stable') if valid[i]][:k]
  return np.array(sorted(order) + [-1] * (k - len(order)))


def hard_rows(size):
  rng = np.random.default_rng(0)
  rows = [
    rng.normal(size=size),
    rng.integers(-2, 3, size) * 0.5,  # Many ties, signed zeros.
    np.full(size, -np.inf),
    np.zeros(size) * rng.choice([-1, 1], size),
    rng.choice([np.nan, np.inf, -np.inf, 1.0, -1.0], size),
  ]
  return np.stack(rows).astype(np.float32), rng.random((5, size)) < 0.3


# With 300 entries three tiles of 128, the last one not full.
@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('k', [pytest.param(8, marks=pytest.mark.slow), 150])
def test_top_k_equals_brute_force_with_ties_nan_and_infinities(
  k, implementation
):
  x, valid = hard_rows(300)
  got = run(
    implementation,
    score_topk.topk_threshold,
    jnp.asarray(x),
    k,
    jnp.asarray(valid),
    tile=128,
  )
  want = [brute_force(*y) for y in zip(x, [k] * 5, valid, strict=True)]
  np.testing.assert_array_equal(got, want)
  assert (valid.sum(-1) < 150).all()  # So that 150 exceeds what is valid.


@pytest.mark.parametrize('k', [8, 150, 400])
def test_top_k_of_whole_rows_equals_brute_force(k):
  """Which a CPU selects in another way than with invalid entries."""
  x, _ = hard_rows(300)
  got = run('xla', score_topk.topk_threshold, jnp.asarray(x), k)
  everything = np.ones(300, bool)
  want = [brute_force(y, k, everything) for y in x]
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
  'implementation',
  ['xla', *(pytest.param(x, marks=pytest.mark.slow) for x in PALLAS)],
)
def test_top_k_selects_the_same_set_as_lax_top_k(implementation):
  x = jnp.round(draw(2, 300) * 4) / 4
  got = run(implementation, score_topk.topk_threshold, x, 17, tile=128)
  np.testing.assert_array_equal(got, np.sort(jax.lax.top_k(x, 17)[1], -1))


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['xla', 'tpu', 'triton'])
@pytest.mark.parametrize(('size', 'k'), [(20_000, 1), (20_000, 2000), (1, 1)])
def test_long_rows_select_the_same_set_as_lax_top_k(implementation, size, k):
  x = jnp.round(draw(3, size) * 50) / 50
  got = run(implementation, score_topk.topk_threshold, x, k)
  np.testing.assert_array_equal(got, np.sort(jax.lax.top_k(x, k)[1], -1))


def test_top_k_of_fewer_entries_is_padded():
  got = score_topk.topk_threshold(draw(1, 3), 5)
  np.testing.assert_array_equal(got, [[0, 1, 2, -1, -1]])
  with pytest.raises(ValueError, match='k=0 must be at least 1'):
    score_topk.topk_threshold(draw(1, 3), 0)


def test_approximate_top_k_is_exact_off_tpus():
  x, valid = hard_rows(50)
  got = score_topk.topk_threshold(
    jnp.asarray(x[:1]), 30, jnp.asarray(valid[:1]), recall_target=0.9
  )
  np.testing.assert_array_equal(got[0], brute_force(x[0], 30, valid[0]))
  with pytest.raises(ValueError, match='exclude each other'):
    score_topk.topk_threshold(
      jnp.asarray(x), 3, recall_target=0.9, implementation='xla'
    )


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
def test_no_gradient_passes_through_scores_on_any_platform(platform):
  """Kernels that cannot be differentiated must not be."""
  q, k, scores = draw(1, 8, 2, 64), draw(1, 8, 2, 64), draw(1, 2, 128)
  mask, region = masks.full(), jnp.ones((1, 128), bool)

  def top(x):
    return x[0, score_topk.topk_threshold(x, 3)].sum()

  cases = {
    'column_sums': (
      lambda q: score_topk.column_sums(q, k, q[..., 0], mask=mask).sum(),
      q,
    ),
    'decode_scores': (
      lambda q: sum(x.sum() for x in score_topk.decode_scores(q[:, 0], k)),
      q,
    ),
    'soft_vote': (lambda x: score_topk.soft_vote(x, region).sum(), scores),
    'topk_threshold': (top, scores[0]),
  }
  for name, (fn, x) in cases.items():
    with lowering_platforms(platform):
      program = jax.make_jaxpr(jax.value_and_grad(fn))(x)
    is_kernel = 'pallas_call' in str(program)
    assert is_kernel == (platform != 'cpu'), name


def test_wrong_arguments_are_named():
  with pytest.raises(ValueError, match='k_bskh has shape'):
    score_topk.decode_scores(draw(2, 4, 8), draw(2, 9, 3, 8))
  with pytest.raises(ValueError, match=r'region_bs has shape \(2, 8\)'):
    score_topk.soft_vote(draw(2, 4, 9), jnp.ones((2, 8), bool))
  with pytest.raises(ValueError, match='k dividing the 3 query heads'):
    score_topk.column_sums(
      draw(1, 4, 3, 8), draw(1, 4, 2, 8), draw(1, 4, 3), mask=masks.full()
    )
  with pytest.raises(ValueError, match='num_kv_heads=2 must divide the 3'):
    score_topk.group_max(draw(1, 3, 5), 2)
  with pytest.raises(ValueError, match='must divide the 3 query heads'):
    score_topk.block_scores(draw(1, 4, 3, 8), draw(1, 4, 2, 8))
  with pytest.raises(ValueError, match=r'x_rs has shape \(5,\)'):
    score_topk.topk_threshold(draw(5), 2)
  with pytest.raises(ValueError, match=r'valid_rs has shape \(1, 5\)'):
    score_topk.topk_threshold(draw(2, 5), 2, jnp.ones((1, 5), bool))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import flash_attention, masks, score_topk

ATOL = 2e-5  # As in flash_attention_test.


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize('implementation', ['reference', 'xla'])
@pytest.mark.parametrize('by_key_head', [True, False])
def test_column_sums_equal_sums_of_float64_probabilities(
  by_key_head, implementation
):
  b, t, n, k, h = 2, 37, 4, 2, 16
  q, key, weight = draw(b, t, n, h), draw(b, t, k, h, seed=1), draw(b, t, n)
  mask = masks.packed(jnp.asarray(np.repeat([[1, 2, 0]] * 2, [14, 20, 3], 1)))
  _, lse = flash_attention(
    q, key, key, mask=mask, return_state=True, implementation='xla'
  )
  got = jax.jit(
    lambda *x: score_topk.column_sums(
      *x, mask=mask, by_key_head=by_key_head, implementation=implementation
    )
  )(q, key, lse, weight)
  keys = np.repeat(np.asarray(key, np.float64), n // k, 2)
  s = np.einsum('btnh,bsnh->bnts', np.asarray(q, np.float64), keys) / 4
  p = np.where(np.asarray(mask.dense(t, t))[:, None], np.exp(s), 0)
  p = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
  want = np.einsum('bnts,btn->bns', p, np.asarray(weight, np.float64))
  if by_key_head:
    want = want.reshape(b, k, n // k, t).sum(2)
  np.testing.assert_allclose(got, want, atol=ATOL)


def test_votes_sum_to_one_per_head_over_the_region():
  q, k = draw(2, 4, 16), draw(2, 9, 2, 16, seed=1)
  length = jnp.array([9, 5])
  scores, lse = jax.jit(score_topk.decode_scores)(q, k, length)
  assert np.isneginf(scores[1, :, 5:]).all()
  np.testing.assert_allclose(
    np.exp(scores - lse[..., None]).sum(-1), 1, rtol=1e-6
  )
  region = (jnp.arange(9) >= 2) & (jnp.arange(9) < length[:, None])
  votes = score_topk.soft_vote(scores, region)
  np.testing.assert_allclose(votes.sum(-1), 4, rtol=1e-6)
  assert not votes[:, :2].any()
  want = np.exp(np.asarray(scores, np.float64)) * np.asarray(region)[:, None]
  want = (want / want.sum(-1, keepdims=True)).sum(1)
  np.testing.assert_allclose(votes, want, atol=1e-6)
  assert not score_topk.soft_vote(scores, region & False).any()


def test_block_scores_average_the_heads_of_a_key_head():
  q, k = draw(1, 3, 4, 8), draw(1, 5, 2, 8, seed=1)
  got = score_topk.block_scores(q, k)
  want = np.einsum('bukgh,bpkh->bkup', q.reshape(1, 3, 2, 2, 8), k) / 2
  np.testing.assert_allclose(got, want, atol=1e-5)


def brute_force(row, k, valid):
  row = np.where(np.isnan(row), -np.inf, row)
  order = [i for i in np.argsort(-row, kind='stable') if valid[i]][:k]
  return np.array(sorted(order) + [-1] * (k - len(order)))


@pytest.mark.parametrize('implementation', ['reference', 'xla'])
def test_top_k_equals_brute_force_with_ties_nan_and_infinities(implementation):
  rng = np.random.default_rng(0)
  rows = [
    rng.normal(size=50),
    rng.integers(-2, 3, 50) * 0.5,  # Many ties, signed zeros.
    np.full(50, -np.inf),
    np.zeros(50) * rng.choice([-1, 1], 50),
    rng.choice([np.nan, np.inf, -np.inf, 1.0, -1e-40], 50),
  ]
  x = np.stack(rows).astype(np.float32)
  x[4] = np.where(x[4] == np.float32(-1e-40), -1.0, x[4])  # CPU flushes these.
  valid = rng.random(x.shape) < 0.3
  for k in (1, 8, 50):
    got = score_topk.topk_threshold(
      jnp.asarray(x), k, jnp.asarray(valid), implementation=implementation
    )
    want = [brute_force(*y) for y in zip(x, [k] * 5, valid, strict=True)]
    np.testing.assert_array_equal(got, want)


def test_top_k_selects_the_same_set_as_lax_top_k():
  x = jnp.round(draw(4, 300) * 4) / 4
  for k in (1, 17, 300):
    got = score_topk.topk_threshold(x, k, implementation='xla')
    want = np.sort(jax.lax.top_k(x, k)[1], -1)
    np.testing.assert_array_equal(got, want)


def test_top_k_of_fewer_entries_is_padded():
  got = score_topk.topk_threshold(draw(1, 3), 5)
  np.testing.assert_array_equal(got, [[0, 1, 2, -1, -1]])
  with pytest.raises(ValueError, match='k=0 must be at least 1'):
    score_topk.topk_threshold(draw(1, 3), 0)

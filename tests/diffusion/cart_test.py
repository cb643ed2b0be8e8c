# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dream's weights against a sum over pairs, and the loss against all masks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import cart, llada
from tests.diffusion import enumerable

P, EPS = 0.3, 0.1


def by_pairs(is_masked, segments, p):
  """Weights of one row, by the formula."""
  t = len(is_masked)
  out = np.zeros(t)
  for place, j in itertools.product(range(t), range(t)):
    is_pair = is_masked[place] and not is_masked[j]
    if is_pair and segments[place] == segments[j] > 0:
      out[place] += p * (1 - p) ** (abs(place - j) - 1) / 2
  return out


@pytest.mark.parametrize('p', [0.3, 0.8, 1.0])
def test_weights_are_the_sum_over_visible_tokens_of_the_document(p):
  rng = np.random.default_rng(0)
  segments = np.sort(rng.integers(1, 4, (20, 13)), axis=1)
  segments[:, 11:] = 0
  masked = (rng.random((20, 13)) < 0.6) & (segments > 0)
  masked[0], segments[0] = True, 1  # Nothing is visible.
  got = jax.jit(cart.weights, static_argnames='p')(masked, segments, p=p)
  want = [by_pairs(m, s, p) for m, s in zip(masked, segments, strict=True)]
  # Sums of 13 numbers below 1 in float32.
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert (got[0] == 0).all()
  assert np.max(got) > 0.3


def test_the_expected_loss_is_that_of_all_masks():
  """With p uniform above eps, k of n tokens have p**k (1 - p)**(n - k)."""
  rows, model = 20_000, enumerable.Lookup()
  n, want = len(enumerable.TARGETS), 0.0
  for masked in enumerable.subsets():
    k = len(masked)
    is_masked = np.isin(np.arange(enumerable.T), masked)
    tokens = np.where(is_masked, enumerable.V, enumerable.X)
    log_probs = enumerable.log_probs(model, tokens)
    nats = -log_probs[np.arange(enumerable.T), enumerable.X]
    chance = (
      np.polynomial.Polynomial([0, 1]) ** k
      * np.polynomial.Polynomial([1, -1]) ** (n - k)
    ).integ()
    chance = (chance(1.0) - chance(EPS)) / (1 - EPS)
    weights = by_pairs(is_masked, np.ones(enumerable.T), P)
    want += chance * (weights * nats).sum()
  batch = enumerable.batch(rows)
  objective = llada.Config(mask_id=enumerable.V, eps=EPS, cart=P).make()
  loss = jax.jit(lambda rng: objective(model, batch, rng))(jax.random.key(0))
  # The loss of a row is between 0 and 3 times the largest cross-entropy; the
  # standard error of 20,000 is below 1 %.
  np.testing.assert_allclose(loss.sum_nats / rows, want, rtol=0.03)
  assert loss.weight == rows * n
  assert not [name for name in loss.metrics if 'bound' in name]
  plain = llada.Config(mask_id=enumerable.V, eps=EPS).make()
  other = plain(model, batch, jax.random.key(0))
  assert abs(other.sum_nats / rows - want) > 0.2 * want
  # Evaluation is by the bound, whatever the weights of training.
  few = enumerable.batch(8)
  ours, theirs = (
    x.per_row(model, few, jax.random.key(1))['bpb_bound'].total
    for x in (objective, plain)
  )
  np.testing.assert_array_equal(ours, theirs)


def test_answers_can_be_weighted_too():
  batch = enumerable.batch(16)
  rng = jax.random.key(3)
  got = llada.corrupt_answers(batch, rng, EPS, P)
  want = cart.weights(got.is_masked_bt, batch['segment_ids_bt'], P)
  np.testing.assert_allclose(
    got.weights_bt, want / len(enumerable.TARGETS), rtol=1e-6
  )
  assert jnp.any(got.weights_bt > 0)


def test_a_p_that_is_no_probability_is_refused():
  with pytest.raises(ValueError, match=r'cart=1.5 must be in \[0, 1\]'):
    llada.Config(mask_id=1, cart=1.5)

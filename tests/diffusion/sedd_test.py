# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Score entropy and its sampler against their definitions and MDLM."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

from jaxtok.decoding import sampling
from jaxtok.diffusion import losses, mdlm, samplers, schedules, sedd
from tests.diffusion import ancestral_test, enumerable

V, X = enumerable.V, enumerable.X


def test_it_is_the_published_score_entropy():
  """At one time, in double precision, from scores and noise."""
  model, t = enumerable.Lookup(1), 0.3
  masked = np.array([True, False, False, True])
  sigma, dsigma = -np.log(1 - t), 1 / (1 - t)
  r = 1 / np.expm1(sigma)
  tokens = np.where(masked, V, X)
  logits = np.asarray(model(jnp.asarray(tokens)[None]).hidden_btd[0], float)
  log_s = logits[:, :V] - np.log(np.expm1(sigma)) - np.log(V)
  want = dsigma * (
    np.exp(log_s).sum(-1)
    - r * log_s[np.arange(enumerable.T), X]
    + r * (np.log(r) - 1)
  )
  weights = jnp.asarray(masked / t)[None]
  corruption = losses.Corruption(jnp.asarray(masked)[None], weights)
  got = sedd.score_entropy(model, enumerable.batch(1), corruption, V, None)
  np.testing.assert_allclose(
    (got.nats_bt * weights)[0, masked], want[masked], rtol=1e-5
  )
  np.testing.assert_allclose(got.total, want[masked].sum(), rtol=1e-5)


def test_with_normalised_scores_it_is_mdlm_row_by_row():
  model, rng = enumerable.Lookup(2, is_normalised=True), jax.random.key(0)
  bounds = [
    module.Config(mask_id=V).make().per_row(model, enumerable.batch(50), rng)
    for module in (sedd, mdlm)
  ]
  a, b = (np.asarray(m['nats_bound'].total) for m in bounds)
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_other_scores_cost_more():
  model, rng = enumerable.Lookup(2), jax.random.key(0)
  bounds = [
    module.Config(mask_id=V).make().per_row(model, enumerable.batch(50), rng)
    for module in (sedd, mdlm)
  ]
  a, b = (np.asarray(m['nats_bound'].total) for m in bounds)
  assert (a >= b - 1e-4).all()
  assert a.sum() > 1.05 * b.sum()


def test_a_head_makes_scores_of_probabilities():
  """Then the score entropy is MDLM's loss, and the probabilities are kept."""
  model, rng = enumerable.Lookup(3), jax.random.key(0)
  head, rows = sedd.ScoreHead(model, V), enumerable.batch(50)
  bound = lambda module, model: np.asarray(
    module.Config(mask_id=V)
    .make()
    .per_row(model, rows, rng)['nats_bound']
    .total
  )
  want = bound(mdlm, model)
  np.testing.assert_allclose(bound(sedd, head), want, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(bound(mdlm, head), want, rtol=1e-5, atol=1e-5)
  assert np.abs(bound(sedd, model) - want).max() > 0.1
  # s_v = p_v / (e^sigma - 1), alpha = e^-sigma, and 1 at the mask.
  tokens, alpha = jnp.full((1, enumerable.T), V), 0.7
  logits = head.logits(head(tokens).hidden_btd)
  scores = np.exp(sedd.log_scores(logits, jnp.float32(alpha), V))[0]
  want = np.exp(enumerable.log_probs(model, tokens[0])) / (1 / alpha - 1)
  np.testing.assert_allclose(scores[:, :V], want, rtol=1e-5)
  np.testing.assert_array_equal(scores[:, V], 1)


def test_logarithms_of_scores_are_finite_near_the_data():
  logits = jnp.zeros((1, 1, V + 1))
  got = sedd.log_scores(logits, 1 - jnp.float32(1e-6), V)
  want = np.log(1e6 / V)
  # 1 - 1e-6 in float32 is off by 5 % of 1e-6.
  np.testing.assert_allclose(got[0, 0, :V], want, atol=0.06)


# Scores of two places and three symbols, not normalised; 3 is the mask.
STATES = list(itertools.product(range(V + 1), repeat=2))
LOGITS = np.random.default_rng(4).normal(size=((V + 1) ** 2, 2, V + 1))
LOGITS[-1, 1] += 1.5  # Scores that reveal this place with certainty.


def denoiser(tokens_bt, times_b):
  assert times_b.shape == tokens_bt.shape[:1]
  code_b = tokens_bt[:, 0] * (V + 1) + tokens_bt[:, 1]
  return jnp.asarray(LOGITS, jnp.float32)[code_b]


def published_law(state, t, s, change=lambda p: p):
  """Of the states after a step, from scores, as in the published code.

  Args:
    state: Two tokens.
    t: Time before the step, of log-linear noise with eps = 0.
    s: Time after it.
    change: Of the law of the token that is revealed.
  """
  sigma, d = -np.log(1 - t), np.log(1 - s) - np.log(1 - t)
  law = np.ones(1)
  for place, token in enumerate(state):
    logits = LOGITS[STATES.index(state), place, :V]
    score = np.append(np.exp(logits - np.log(np.expm1(sigma)) - np.log(V)), 1)
    staggered = np.exp(d) * score
    staggered[V] += (1 - np.exp(d)) * score.sum()
    column = np.exp(-d) * np.eye(V + 1)[token]
    column = column + (token == V) * (1 - np.exp(-d))
    # The code takes the largest of probabilities over noise: never negatives.
    to = np.maximum(staggered * column, 0)
    to /= to.sum()
    to[:V] = to[:V].sum() * change(to[:V] / to[:V].sum())
    law = np.outer(law, to).reshape(-1)
  return law


def greedy(p):
  return (p == p.max()).astype(float)


@pytest.mark.parametrize(
  'filters, change',
  [(None, lambda p: p), (sampling.Config(temperature=0.0), greedy)],
  ids=['all', 'greedy'],
)
def test_a_step_of_the_analytic_sampler_is_the_published_one(filters, change):
  """From each state of two places with a mask; false alarms 1e-3 each."""
  num, t, s = 2000, 0.8, 0.3
  masked = [state for state in STATES if V in state]
  tokens = jnp.asarray(np.repeat(masked, num, axis=0), jnp.int32)
  begin = samplers.start(tokens, tokens == V, V)
  rngs = samplers.row_rngs(jax.random.key(0), len(tokens))
  after = jax.jit(
    lambda canvas: sedd.step(
      denoiser,
      canvas,
      jnp.float32(t),
      jnp.float32(s),
      3,
      rngs_b=rngs,
      mask_id=V,
      filters=filters,
    )
  )(begin)
  found = np.asarray(after.tokens_bt) @ [V + 1, 1]
  np.testing.assert_array_equal(after.is_masked_bt, after.tokens_bt == V)
  chi2 = freedom = 0
  for i, state in enumerate(masked):
    # The published law lets a given token as it is, exp(-d) exp(d) = 1.
    law = published_law(state, t, s, change)
    counts = np.bincount(found[i * num : (i + 1) * num], minlength=len(law))
    can = law > 1e-9
    assert not counts[~can].any()
    chi2 += ((counts - num * law)[can] ** 2 / (num * law[can])).sum()
    freedom += can.sum() - 1
  assert stats.chi2.sf(chi2, freedom) > 1e-3


def test_exact_scores_sample_as_the_ancestral_sampler_does():
  """From nothing but masks, in one step the marginals, in two the mixture."""
  v = ancestral_test.V
  rngs = samplers.row_rngs(jax.random.key(5), ancestral_test.ROWS)
  scores = lambda tokens, times: ancestral_test.denoiser(tokens) + jnp.log(v)
  for steps in (1, 2):
    out = jax.jit(
      lambda canvas, steps=steps: sedd.decode(
        scores, canvas, schedules.grid(steps), rngs, mask_id=v
      )
    )(ancestral_test.start())
    found = ancestral_test.counts(out)
    want = ancestral_test.ROWS * ancestral_test.expected_at(steps)
    chi2 = ((found - want) ** 2 / want).sum()
    assert stats.chi2.sf(chi2, len(want) - 1) > 0.01
    ones = np.asarray(out.tokens_bt).mean(0)
    error = np.sqrt(0.25 * 0.75 / ancestral_test.ROWS)
    np.testing.assert_allclose(ones, 0.25, atol=4 * error)


def test_scores_need_a_column_of_the_mask():
  with pytest.raises(ValueError, match='mask_id=9 must be one of the 4 col'):
    sedd.log_scores(jnp.zeros((1, 1, V + 1)), jnp.float32(0.5), 9)


def test_score_entropy_has_no_finite_steps():
  with pytest.raises(ValueError, match='num_steps=8: score entropy is of cont'):
    sedd.Config(mask_id=V, num_steps=8)

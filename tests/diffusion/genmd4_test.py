# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learned schedules: bound and gradient against sums over all masks."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import genmd4, md4, samplers, schedules
from jaxtok.models import base
from tests.diffusion import enumerable

T1 = 0.02
RATES = np.array([0.5, 1.0, 2.0])
INNER = types.SimpleNamespace(
  make=lambda rngs: enumerable.Lookup(), vocab_size=enumerable.V + 1
)
CONFIG = genmd4.Config(mask_id=enumerable.V, t_min=T1, eval_samples=1)


def make_model(rates=RATES):
  config = genmd4.Model(inner=INNER, num_tokens=enumerable.V)
  model = config.make(nnx.Rngs(0))
  logits = np.log(np.expm1(rates))
  model.rate_logits[...] = jnp.asarray(logits, jnp.float32)
  return model


def exact_bound(model, rates):
  """Nats per row in double precision, integrated over ln t."""
  x, weight = np.polynomial.legendre.leggauss(60)
  log_t = 0.5 * np.log(T1) * (1 - x)  # From ln T1 to 0.
  weight = -0.5 * np.log(T1) * weight  # dt / t = d ln t.
  w = rates[enumerable.X[enumerable.TARGETS]]
  log_rate = w[:, None] * log_t
  total = 0.0
  for masked in enumerable.subsets():
    tokens = enumerable.X.copy()
    tokens[masked] = enumerable.V
    hit = np.isin(enumerable.TARGETS, masked)[:, None]
    law = np.where(hit, np.exp(log_rate), -np.expm1(log_rate)).prod(0)
    prior = enumerable.log_probs(model.inner, tokens)[masked]
    log_p = prior[:, None] + rates * log_t[:, None]  # [place, time, v].
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    true = enumerable.X[masked]
    log_px = np.take_along_axis(log_p, true[:, None, None], axis=-1)[..., 0]
    each = rates[true][:, None] * (-log_px - 1) + np.exp(log_p) @ rates
    total += (weight * law * each.sum(0)).sum()
  log_first = w * np.log(T1)
  guess = np.log(np.exp(rates * np.log(T1)).sum()) - log_first
  return total + (np.exp(log_first) * guess).sum()


def test_the_estimate_is_unbiased():
  """A false alarm at 4 standard errors, rows taken as independent: 6e-5."""
  model, rows = make_model(), 30_000
  metrics = CONFIG.make().per_row(
    model, enumerable.batch(rows), jax.random.key(0)
  )
  nats = np.asarray(metrics['nats_bound'].total, np.float64)
  error, want = nats.std() / np.sqrt(rows), exact_bound(model, RATES)
  assert error < 0.02 * want
  assert abs(nats.mean() - want) < 4 * error


def test_the_bound_is_above_the_negative_log_likelihood():
  """Over all rows, exp(-bound) sums to less than 1."""
  model = make_model()
  x, total = enumerable.X.copy(), 0.0
  try:
    for row in np.ndindex(*(enumerable.V,) * len(enumerable.TARGETS)):
      enumerable.X[enumerable.TARGETS] = row
      total += np.exp(-exact_bound(model, RATES))
  finally:
    enumerable.X[:] = x
  assert 0.1 < total < 1


def test_the_gradient_of_the_rates_is_unbiased():
  """Against central differences of the exact bound; 50 batches of 2000."""
  model, rows, num = make_model(), 2000, 50
  graph, params = nnx.split(model)

  def loss(params, rng):
    loss = CONFIG.make()(nnx.merge(graph, params), enumerable.batch(rows), rng)
    return loss.sum_nats / rows

  @jax.jit
  def gradients(params, rngs):
    grad = jax.grad(loss)
    return jax.lax.map(
      lambda rng: nnx.to_pure_dict(grad(params, rng))['rate_logits'], rngs
    )

  got = np.asarray(gradients(params, jax.random.split(jax.random.key(0), num)))
  error = got.std(0) / np.sqrt(num)
  step, want = 1e-5, np.zeros(3)
  logits = np.log(np.expm1(RATES))
  for i in range(3):
    ends = [
      exact_bound(model, np.log1p(np.exp(logits + s * step * np.eye(3)[i])))
      for s in (1, -1)
    ]
    want[i] = (ends[0] - ends[1]) / (2 * step)
  assert (error < 0.1 * np.abs(want).max()).all()
  assert (np.abs(got.mean(0) - want) < 4.5 * error).all()


def test_equal_rates_are_md4():
  model, batch = make_model(np.ones(3)), enumerable.batch(500)
  rng = jax.random.key(3)
  got = CONFIG.make().per_row(model, batch, rng)['nats_bound']
  theirs = md4.Config(mask_id=enumerable.V, eps=T1, eval_samples=1)
  want = theirs.make().per_row(model.inner, batch, rng)['nats_bound']
  np.testing.assert_allclose(got.total, want.total, rtol=1e-5, atol=1e-6)


def test_the_reported_value_has_no_score_term():
  model, batch = make_model(), enumerable.batch(64)
  loss = CONFIG.make()(model, batch, jax.random.key(0))
  bound = loss.metrics['nats_bound']
  np.testing.assert_allclose(bound.total, loss.sum_nats, rtol=1e-6)
  assert 0.5 < loss.metrics['rate'].value < 2
  empty = batch | {'loss_mask_bt': jnp.zeros((64, enumerable.T))}
  assert CONFIG.make()(model, empty, jax.random.key(0)).sum_nats == 0


def test_samples_of_one_place_follow_its_prior_at_any_number_of_steps():
  prior, n = np.array([0.6, 0.3, 0.1]), 20_000
  table = jnp.log(jnp.asarray([*prior, 0.5]))
  denoiser = lambda tokens: jnp.broadcast_to(table, (*tokens.shape, 4))
  canvas = samplers.start(
    jnp.zeros((n, 1), jnp.int32), jnp.ones((n, 1), bool), enumerable.V
  )
  rngs = samplers.row_rngs(jax.random.key(1), n)
  rates = jnp.asarray(RATES, jnp.float32)
  out = jax.jit(
    lambda c: genmd4.decode(denoiser, rates, c, schedules.grid(4), rngs)
  )(canvas)
  assert not out.is_masked_bt.any()
  got = np.bincount(np.asarray(out.tokens_bt)[:, 0], minlength=3) / n
  chi2 = n * ((got - prior) ** 2 / prior).sum()
  assert chi2 < 13.8  # The 0.999 quantile with 2 degrees.
  # Tokens of large rates are written early.
  step = np.asarray(out.reveal_step_bt)[:, 0]
  token = np.asarray(out.tokens_bt)[:, 0]
  assert step[token == 2].mean() < step[token == 0].mean() - 0.3


def test_the_model_is_the_inner_one_and_a_step_counts_two_masks():
  model = make_model()
  np.testing.assert_allclose(model.rates(), RATES, rtol=1e-5)
  fresh = genmd4.Model(inner=INNER, num_tokens=3).make(nnx.Rngs(0))
  np.testing.assert_allclose(fresh.rates(), np.ones(3), rtol=1e-6)
  asked = types.SimpleNamespace(
    flops=lambda shape: {'all': 1.0 * shape.b * shape.t}
  )
  assert CONFIG.make().flops(asked, base.Shape(b=3, t=5)) == {'all': 30}


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: genmd4.Config(t_min=0.0), 't_min=0.0'),
    (lambda: genmd4.Config().make(), 'mask_id=-1'),
    (lambda: genmd4.Model(inner=INNER), 'num_tokens=0'),
  ],
)
def test_bad_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()

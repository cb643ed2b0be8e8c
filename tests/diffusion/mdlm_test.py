# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MDLM's bound against the sum over all masks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxtok.diffusion import losses, mdlm
from jaxtok.models import transformer
from tests.diffusion import enumerable

ROWS = 30_000


def estimate(objective, model, rows=ROWS, seed=0):
  """Mean and standard error, nats per row, rows taken as independent.

  Times are stratified, so the true error is smaller.
  """
  metrics = objective.per_row(
    model, enumerable.batch(rows), jax.random.key(seed)
  )
  nats = np.asarray(metrics['nats_bound'].total, np.float64)
  return nats.mean(), nats.std() / np.sqrt(rows)


# A false alarm at 4 standard errors: 6e-5.
@pytest.mark.parametrize('t_min', [1e-3, 0.2])
def test_the_estimate_is_unbiased(t_min):
  model = enumerable.Lookup()
  config = mdlm.Config(mask_id=enumerable.V, t_min=t_min, eval_samples=1)
  got, error = estimate(config.make(), model)
  want = enumerable.exact_bound(model, low=t_min, share_at_low=1.0)
  assert error < 0.03 * want
  assert abs(got - want) < 4 * error


def test_the_bound_is_above_the_negative_log_likelihood():
  """Jensen: the mean over orders of -ln p is at least -ln of the mean of p."""
  model = enumerable.Lookup()
  orders = enumerable.mean_over_orders(model)
  clipped = enumerable.exact_bound(model, low=1e-3, share_at_low=1.0)
  assert enumerable.exact_bound(model) == pytest.approx(orders, rel=1e-12)
  assert clipped == pytest.approx(orders, rel=1e-2)


@pytest.mark.parametrize('num_steps', [1, 3])
def test_the_estimate_of_few_steps_is_unbiased(num_steps):
  model = enumerable.Lookup()
  config = mdlm.Config(
    mask_id=enumerable.V, num_steps=num_steps, eval_samples=1
  )
  got, error = estimate(config.make(), model)
  alphas = 1 - np.arange(num_steps + 1) / num_steps
  want = enumerable.bound_of_steps(model, alphas)
  assert error < 0.03 * want
  assert abs(got - want) <= 4 * error + 1e-4
  # Another number than in continuous time.
  assert abs(enumerable.exact_bound(model) - want) > 0.1


def test_many_steps_come_near_continuous_time():
  """At a rate of one over the number of steps."""
  model = enumerable.Lookup()
  gaps = [
    enumerable.bound_of_steps(model, 1 - np.arange(n + 1) / n)
    - enumerable.exact_bound(model)
    for n in (250, 500, 1000)
  ]
  assert abs(gaps[2]) < 3e-3 * enumerable.exact_bound(model)
  np.testing.assert_allclose(np.divide(gaps[:2], gaps[1:]), 2, rtol=0.02)


def test_training_loss_and_metrics_agree():
  objective = mdlm.Config(mask_id=enumerable.V).make()
  batch = enumerable.batch(64)
  loss = objective(enumerable.Lookup(), batch, jax.random.key(0))
  bound = loss.metrics['bpb_bound']
  assert loss.weight == 64 * 3
  assert loss.metrics['nats_bound'].total == loss.sum_nats
  assert bound.weight == 64 * 6
  np.testing.assert_allclose(bound.total, loss.sum_nats / np.log(2), rtol=1e-6)
  assert 0 < loss.metrics['mask_rate'].value < 1


def test_padding_is_never_masked_nor_charged():
  batch = enumerable.batch(512)
  corruption = mdlm.corrupt(batch, jax.random.key(0), 1e-3)
  assert not corruption.is_masked_bt[:, ~enumerable.IS_TARGET].any()
  assert (corruption.weights_bt[:, ~enumerable.IS_TARGET] == 0).all()
  assert corruption.is_masked_bt[:, enumerable.IS_TARGET].any(0).all()
  nothing = batch | {'loss_mask_bt': jnp.zeros((512, enumerable.T))}
  objective = mdlm.Config(mask_id=enumerable.V).make()
  loss = objective(enumerable.Lookup(), nothing, jax.random.key(0))
  assert loss.sum_nats == 0
  assert loss.weight == 0


def test_substitution_keeps_revealed_tokens_and_forbids_the_mask():
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 4)))
  tokens = jnp.array([[3, 1, 3]])
  got = np.asarray(losses.substituted(logits, tokens, 3))
  assert (got[0, [0, 2], 3] < -1e29).all()
  np.testing.assert_allclose(np.exp(got).sum(-1), np.ones((1, 3)), rtol=1e-6)
  assert got[0, 1, 1] == 0
  assert (got[0, 1, [0, 2, 3]] < -1e29).all()


def test_times_of_a_batch_are_spread_evenly():
  """The share of masks varies by t (1 - t) alone, not by the times' mean.

  Per row and 3 targets the variances are E[t (1 - t)] / 3 = 1/18 and, with
  independent times, 1/12 more: a ratio of 0.4. It is measured to 5 % here.
  """
  rows, repeats = 16, 1000
  rngs = jax.random.split(jax.random.key(1), repeats)
  share = lambda batch, rng: mdlm.corrupt(batch, rng, 1e-3).is_masked_bt.mean()
  batch, one = enumerable.batch(rows), enumerable.batch(1)
  stratified = jax.vmap(lambda rng: share(batch, rng))(rngs)
  each = jax.vmap(
    lambda rng: jax.vmap(lambda r: share(one, r))(jax.random.split(rng, rows))
  )(rngs)
  assert float(stratified.var()) < 0.55 * float(each.mean(-1).var())


@pytest.mark.parametrize(
  'fields, rule',
  [
    (dict(mask_id=1, t_min=0.0), 't_min=0.0'),
    (dict(mask_id=1, eval_samples=0), 'eval_samples=0'),
    (dict(mask_id=1, num_steps=-1), 'num_steps=-1 must be >= 0'),
    (dict(), 'mask_id=-1'),
  ],
)
def test_bad_settings_are_refused(fields, rule):
  with pytest.raises(ValueError, match=rule):
    mdlm.Config(**fields).make()


def test_a_transformer_learns_to_copy_what_is_visible():
  """Rows repeat one of 8 tokens: ln 8 = 2.08 nats each without context.

  With it, only the first of 16 costs that: 0.13 nats per target.
  """
  v, t, b = 8, 16, 64
  model = transformer.Config(
    vocab_size=v + 1, dim=32, num_layers=1, num_heads=2, is_causal=False
  ).make(nnx.Rngs(0))
  objective = mdlm.Config(mask_id=v, eval_samples=8).make()
  graph, params = nnx.split(model)
  optimizer = optax.adam(1e-2)

  def batch(rng):
    x = jnp.tile(jax.random.randint(rng, (b, 1), 0, v), (1, t))
    ones = jnp.ones((b, t), jnp.int32)
    return {
      'tokens_bt': x,
      'targets_bt': x,
      'loss_mask_bt': ones.astype(jnp.float32),
      'segment_ids_bt': ones,
      'positions_bt': ones * jnp.arange(t),
      'num_bytes_bt': ones,
    }

  def loss(params, rng):
    loss = objective(nnx.merge(graph, params), batch(rng), rng)
    return loss.sum_nats / loss.weight

  def step(carry, rng):
    params, state = carry
    grads = jax.grad(loss)(params, rng)
    updates, state = optimizer.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  init = (params, optimizer.init(params))
  rngs = jax.random.split(jax.random.key(0), 200)
  (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, rngs))(init)
  rng = jax.random.key(1)
  bound = objective.per_row(nnx.merge(graph, params), batch(rng), rng)
  total = bound['nats_bound']
  nats = float(total.total.sum() / total.weight.sum())
  assert np.log(v) / t * 0.7 < nats < 0.5

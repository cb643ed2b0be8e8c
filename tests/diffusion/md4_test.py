# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MD4's bound against the sum over all masks; its schedules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import md4, mdlm, schedules
from tests.diffusion import enumerable, mdlm_test


@pytest.mark.parametrize(
  'fields',
  [dict(), dict(power=2.0), dict(schedule='cosine'), dict(eps=0.05)],
  ids=str,
)
def test_the_estimate_is_unbiased_for_every_schedule(fields):
  model = enumerable.Lookup()
  config = md4.Config(mask_id=enumerable.V, eval_samples=1, **fields)
  got, error = mdlm_test.estimate(config.make(), model)
  want = enumerable.exact_bound(model, low=config.eps)
  want += 3 * config.eps * math.log(enumerable.V)
  assert error < 0.05 * want
  assert abs(got - want) < 4 * error


def alphas_at(config, num_steps):
  """From time 0 to 1, double precision, from the paper's formulas."""
  t = np.arange(num_steps + 1) / num_steps
  kept = 1 - t**config.power
  if config.schedule == 'cosine':
    kept = 1 - np.cos(np.pi / 2 * (1 - t))
  return (1 - config.eps) * kept


STEPPED = [
  dict(power=2.0, eps=0.05),
  dict(schedule='cosine', eps=0.05),
  dict(eps=1e-4),
]


@pytest.mark.parametrize('fields', STEPPED, ids=str)
def test_the_estimate_of_few_steps_is_unbiased(fields):
  model = enumerable.Lookup()
  config = md4.Config(
    mask_id=enumerable.V, eval_samples=1, num_steps=3, **fields
  )
  got, error = mdlm_test.estimate(config.make(), model)
  want = enumerable.bound_of_steps(model, alphas_at(config, 3))
  want += 3 * config.eps * math.log(enumerable.V)
  assert error < 0.05 * want
  assert abs(got - want) < 4 * error


@pytest.mark.parametrize('fields', STEPPED, ids=str)
def test_many_steps_come_near_continuous_time(fields):
  """The bounds at a rate of one over the steps, the weights at each time."""
  model, config = enumerable.Lookup(), md4.Config(mask_id=3, **fields)
  want = enumerable.exact_bound(model, low=config.eps)
  gaps = [
    enumerable.bound_of_steps(model, alphas_at(config, n)) - want
    for n in (1000, 2000)
  ]
  assert abs(gaps[1]) < 3e-3 * want
  assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
  schedule = schedules.make(config.schedule, power=config.power, eps=config.eps)
  t = jnp.linspace(0.1, 0.9, 30)
  at, weight = schedules.of_steps(schedule, t, 1000)
  assert (at > t - 1e-6).all()
  assert (at <= t + 1e-3 + 1e-6).all()
  # The mean weight of a step of 1/1000, near the one at its end.
  np.testing.assert_allclose(weight, schedule.weight(at), rtol=0.02)


def test_the_last_step_of_few_begins_at_time_0():
  t = jnp.array([0.0, 0.49, 0.5, 0.9999999])
  at, weight = schedules.of_steps(schedules.Linear(), t, 2)
  np.testing.assert_array_equal(at, [0.5, 0.5, 1, 1])
  np.testing.assert_allclose(weight, [2, 2, 1, 1])


def test_the_linear_schedule_is_mdlm():
  batch, rng = enumerable.batch(500), jax.random.key(3)
  ours = md4.corrupt(batch, rng, schedules.Polynomial(1.0, 1e-7))
  theirs = mdlm.corrupt(batch, rng, 1e-3)
  late = np.asarray(schedules.times(jax.random.split(rng)[0], 500)) > 2e-3
  assert late.sum() >= 498
  # Where the mask rates' difference of 1e-7 separates no uniform number.
  np.testing.assert_array_equal(
    ours.is_masked_bt[late], theirs.is_masked_bt[late]
  )
  np.testing.assert_allclose(
    ours.weights_bt[late], theirs.weights_bt[late], rtol=1e-3
  )


@pytest.mark.parametrize(
  'schedule',
  [
    schedules.Linear(),
    schedules.Polynomial(1.0),
    schedules.Polynomial(3.0, 1e-2),
    schedules.Cosine(),
    schedules.Geometric(),
  ],
  ids=repr,
)
def test_the_weight_is_the_slope_over_the_mask_rate(schedule):
  t = jnp.linspace(0.05, 0.98, 40)
  slope = jax.vmap(jax.grad(schedule.alpha))(t)
  alpha = schedule.alpha(t)
  # 1 - alpha loses up to 6e-8 / (1 - alpha) in float32; the geometric
  # schedule begins at 1 - alpha = 2e-5.
  np.testing.assert_allclose(
    schedule.weight(t), -slope / (1 - alpha), rtol=5e-3
  )
  assert (jnp.diff(alpha) < 0).all()
  assert float(schedule.alpha(jnp.float32(1))) < 1e-6


def test_reveals_on_a_grid_compose_to_the_whole():
  t = schedules.grid(7, kind='cosine')
  assert float(t[0]) == 1
  assert float(t[-1]) == 0
  assert (jnp.diff(t) < 0).all()
  assert t[0] - t[1] < t[-2] - t[-1]
  schedule = schedules.Linear()
  stay = 1 - schedules.reveal_probability(schedule, t[:-1], t[1:])
  np.testing.assert_allclose(jnp.cumprod(stay), t[1:], atol=1e-6)


def test_one_time_falls_into_each_stratum():
  t = schedules.times(jax.random.key(0), 64)
  np.testing.assert_array_equal(jnp.sort((t * 64).astype(int)), jnp.arange(64))


@pytest.mark.parametrize(
  'fields, rule',
  [
    (dict(schedule='linear'), "schedule='linear'"),
    (dict(power=0.0), 'power=0.0'),
    (dict(eps=1.0), 'eps=1.0'),
    (dict(num_steps=-2), 'num_steps=-2'),
  ],
)
def test_bad_settings_are_refused(fields, rule):
  with pytest.raises(ValueError, match=rule):
    md4.Config(mask_id=3, **fields)

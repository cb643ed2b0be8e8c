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
  ],
)
def test_bad_settings_are_refused(fields, rule):
  with pytest.raises(ValueError, match=rule):
    md4.Config(mask_id=3, **fields)

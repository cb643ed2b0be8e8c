# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Remasking rates against their definitions.

That samples keep their distribution is tested in `ancestral_test`.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import remdm, samplers


def canvas(psi, is_masked):
  is_masked = jnp.asarray(is_masked)
  return samplers.Canvas(
    tokens_bt=jnp.zeros(is_masked.shape, jnp.int32),
    is_masked_bt=is_masked,
    num_calls_b=jnp.zeros(is_masked.shape[0], jnp.int32),
    reveal_step_bt=jnp.zeros(is_masked.shape, jnp.int32),
    psi_bt=jnp.asarray(psi),
  )


RULES = [
  remdm.Cap(0.3),
  remdm.Rescale(0.5),
  remdm.Confidence(),
  remdm.Loop(0.2),
]


@pytest.mark.parametrize('rule', RULES, ids=repr)
@pytest.mark.parametrize('alphas', [(0.0, 0.1), (0.4, 0.5), (0.9, 1.0)])
def test_rates_and_reveals_are_probabilities(rule, alphas):
  alpha_t, alpha_s = map(jnp.float32, alphas)
  rows = canvas(
    [[0.9, 0.2, 1.0], [0.5, 0.5, 0.5]],
    [[False, False, True], [True, True, True]],
  )
  free = jnp.ones((2, 3), bool)
  sigma = np.asarray(rule(rows, free, alpha_t, alpha_s))
  assert (sigma >= 0).all()
  # 1 - 0.9 in float32 is off by 3e-8.
  assert (sigma <= float(remdm.sigma_max(alpha_t, alpha_s)) + 1e-6).all()
  reveal = (alphas[1] - (1 - sigma) * alphas[0]) / (1 - alphas[0])
  assert (reveal >= 0).all()
  assert (reveal <= 1 + 1e-5).all()


def test_the_share_of_masks_is_the_schedules():
  """One step by the kernel: alpha_t of the positions clean before it."""
  alpha_t, alpha_s = 0.4, 0.5
  for sigma in (0.0, 0.3, 1.0):
    reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
    after = alpha_t * (1 - sigma) + (1 - alpha_t) * reveal
    assert after == pytest.approx(alpha_s)
  bound = lambda a, b: float(remdm.sigma_max(jnp.float32(a), jnp.float32(b)))
  assert bound(0.0, 0.1) == 1
  # 1 - 0.9 in float32 is off by 2.4e-8.
  assert bound(0.8, 0.9) == pytest.approx(0.125, rel=1e-6)


def test_confidence_prefers_tokens_that_were_unlikely():
  rows = canvas([[0.9, 0.1, 0.5, 0.3]], [[False, False, True, False]])
  free = jnp.array([[True, True, True, False]])
  rate = remdm.Confidence(1.0)
  got = np.asarray(rate(rows, free, jnp.float32(0.5), jnp.float32(0.6)))[0]
  share = np.exp([-0.9, -0.1]) / np.exp([-0.9, -0.1]).sum()
  np.testing.assert_allclose(got, [*(0.8 * share), 0, 0], rtol=1e-5)


def test_the_loop_stands_still_between_its_times():
  alphas = np.asarray(remdm.loop_alphas(100))
  assert alphas[0] == 0
  assert alphas[-1] == 1
  assert (np.diff(alphas) >= -1e-7).all()
  assert (alphas[46:95] == np.float32(0.9)).all()
  rows, free = canvas([[0.5]], [[False]]), jnp.ones((1, 1), bool)
  rule = remdm.Loop(0.02)
  moving = rule(rows, free, jnp.float32(0.1), jnp.float32(0.2))
  standing = rule(rows, free, jnp.float32(0.9), jnp.float32(0.9))
  assert moving.item() == 0
  assert standing.item() == pytest.approx(0.02)
  with pytest.raises(ValueError, match='t_off'):
    remdm.loop_alphas(10, t_on=0.01)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Score entropy against its definition and against MDLM."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.diffusion import losses, mdlm, sedd
from tests.diffusion import enumerable

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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The any-order bound against the mean over all orders."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtok.diffusion import any_order, losses, mdlm
from tests.diffusion import enumerable, mdlm_test


def test_the_estimate_is_the_mean_over_all_orders():
  model = enumerable.Lookup()
  objective = any_order.Config(mask_id=enumerable.V, eval_samples=1).make()
  got, error = mdlm_test.estimate(objective, model)
  want = enumerable.mean_over_orders(model)
  assert error < 0.02 * want
  assert abs(got - want) < 4 * error


def test_it_varies_less_than_over_times():
  model = enumerable.Lookup()
  errors = [
    mdlm_test.estimate(
      module.Config(mask_id=enumerable.V, eval_samples=1).make(), model
    )[1]
    for module in (any_order, mdlm)
  ]
  assert errors[0] < 0.8 * errors[1]


def test_each_subset_is_equally_likely():
  rows = 24_000
  batch = enumerable.batch(rows)
  masked = np.asarray(any_order.corrupt(batch, jax.random.key(0)).is_masked_bt)
  places = masked[:, enumerable.IS_TARGET] @ (1 << np.arange(3))
  counts = np.bincount(places, minlength=8)
  assert counts[0] == 0
  size = np.array([bin(i).count('1') for i in range(8)])
  # One of 3 sizes, then one of C(3, k) subsets.
  want = rows / 3 / np.array([1, 3, 3, 1])[size[1:]]
  chi2 = ((counts[1:] - want) ** 2 / want).sum()
  assert chi2 < 22.5  # The 0.999 quantile with 6 degrees of freedom.


def test_a_row_of_padding_masks_nothing():
  batch = enumerable.batch(3)
  batch['loss_mask_bt'] = batch['loss_mask_bt'].at[1].set(0)
  corruption = any_order.corrupt(batch, jax.random.key(0))
  assert corruption.is_masked_bt.any(-1).tolist() == [True, False, True]
  assert np.isfinite(corruption.weights_bt).all()
  assert (corruption.weights_bt[1] == 0).all()


def test_exactly_so_many_are_masked():
  is_target = jnp.asarray(np.random.default_rng(0).random((5, 9)) < 0.8)
  k = jnp.array([0, 1, 3, 4, 99])
  masked = losses.mask_exactly(is_target, k, jax.random.key(0))
  np.testing.assert_array_equal(
    masked.sum(-1), jnp.minimum(k, is_target.sum(-1))
  )
  assert not (masked & ~is_target).any()

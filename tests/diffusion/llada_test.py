# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""LLaDA's losses against the sum over all masks."""

import jax
import numpy as np
import pytest

from jaxtok.diffusion import any_order, llada
from tests.diffusion import enumerable

ROWS, EPS = 30_000, 0.1


def row_losses(corruption, model):
  """Weighted cross-entropy of each row, from a table over all masks."""
  masked = np.asarray(corruption.is_masked_bt)
  codes = masked @ (1 << np.arange(enumerable.T))
  nats = np.zeros((1 << enumerable.T, enumerable.T))
  for code in np.unique(codes):
    is_masked = (code >> np.arange(enumerable.T)) & 1 == 1
    tokens = np.where(is_masked, enumerable.V, enumerable.X)
    probs = enumerable.log_probs(model, tokens)
    nats[code] = -probs[np.arange(enumerable.T), enumerable.X]
  weights = np.asarray(corruption.weights_bt, np.float64)
  return (nats[codes] * weights).sum(-1)


def test_the_training_loss_is_mdlms_integral_above_eps():
  """With t uniform, p is uniform on [eps, 1] with density 1 / (1 - eps)."""
  model, batch = enumerable.Lookup(), enumerable.batch(ROWS)
  corruption = llada.corrupt(batch, jax.random.key(0), EPS)
  got = row_losses(corruption, model)
  want = enumerable.exact_bound(model, low=EPS) / (1 - EPS)
  error = got.std() / np.sqrt(ROWS)
  assert error < 0.02 * want
  assert abs(got.mean() - want) < 4 * error
  objective = llada.Config(mask_id=enumerable.V, eps=EPS).make()
  loss = objective(model, batch, jax.random.key(1))
  # The key is split between masks and dropout.
  again = llada.corrupt(batch, jax.random.split(jax.random.key(1))[0], EPS)
  np.testing.assert_allclose(
    loss.sum_nats, row_losses(again, model).sum(), rtol=1e-4
  )


@pytest.mark.parametrize('eps', [0.1, 0.5])
def test_the_training_loss_is_no_bound_and_not_called_one(eps):
  """Here its expectation is less than the bound, nats per row."""
  model, batch = enumerable.Lookup(seed=1), enumerable.batch(4)
  expected = enumerable.exact_bound(model, low=eps) / (1 - eps)
  assert expected < enumerable.exact_bound(model) - 0.05
  objective = llada.Config(mask_id=enumerable.V, eps=eps).make()
  loss = objective(model, batch, jax.random.key(1))
  assert not [name for name in loss.metrics if 'bound' in name]
  each = objective.per_row(model, batch, jax.random.key(1))
  assert {'nats_bound', 'bpb_bound'} <= set(each)


def test_each_answer_weighs_the_same():
  batch = enumerable.batch(64)
  short = np.array(batch['loss_mask_bt'])
  short[::2, 1:] = 0  # Every other answer has one token instead of three.
  short[-1] = 0  # A row of padding.
  batch['loss_mask_bt'] = jax.numpy.asarray(short)
  rng = jax.random.key(2)
  plain = llada.corrupt(batch, rng, EPS)
  shared = llada.corrupt_answers(batch, rng, EPS)
  lengths = np.maximum(short.sum(-1, keepdims=True), 1)
  np.testing.assert_allclose(
    shared.weights_bt, plain.weights_bt / lengths, rtol=1e-6
  )
  assert not np.asarray(shared.is_masked_bt)[short == 0].any()
  objective = llada.FineTuning(mask_id=enumerable.V, eps=EPS).make()
  loss = objective(enumerable.Lookup(), batch, rng)
  assert loss.weight == 63
  assert not [name for name in loss.metrics if 'bound' in name]


def test_it_is_evaluated_by_the_any_order_bound():
  model, batch, rng = (
    enumerable.Lookup(),
    enumerable.batch(8),
    jax.random.key(0),
  )
  ours, theirs = (
    config.make().per_row(model, batch, rng)['bpb_bound'].total
    for config in (
      llada.Config(mask_id=enumerable.V),
      any_order.Config(mask_id=enumerable.V),
    )
  )
  np.testing.assert_array_equal(ours, theirs)


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match='eps=0'):
    llada.Config(mask_id=1, eps=0.0)

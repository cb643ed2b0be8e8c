# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every objective on text rows keeps. One line adds an objective.

The probe model's state at each place is a free parameter, so the gradient by
it shows which targets count.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base
from jaxtok.objectives import next_token

OBJECTIVES = {
  'next_token': next_token.Config(),
  'next_token_z_loss': next_token.Config(z_loss=0.01, num_chunks=3),
}

B, T, V, D = 8, 12, 40, 6


class Probe(nnx.Module):
  """Row r of the batch uses the states that its first token names."""

  def __init__(self):
    key = jax.random.key(0)
    self.states = nnx.Param(jax.random.normal(key, (B, T, D)))
    self.head = nnx.Param(jax.random.normal(key, (D, V)))

  def __call__(self, tokens_bt, **kwargs):
    return base.Output(hidden_btd=self.states[tokens_bt[:, 0]])

  def logits(self, hidden_btd):
    return hidden_btd @ self.head[...]


def make_batch():
  rng = np.random.default_rng(0)
  mask = (rng.uniform(size=(B, T)) < 0.7).astype('float32')
  mask[-1] = 0  # A row of padding, as at the end of an eval.
  tokens = rng.integers(0, V, (B, T), dtype='int32')
  tokens[:, 0] = np.arange(B)
  num_bytes = rng.integers(0, 9, (B, T)) * mask
  return {
    'tokens_bt': tokens,
    'targets_bt': rng.integers(0, V, (B, T), dtype='int32'),
    'loss_mask_bt': mask,
    'segment_ids_bt': np.ones((B, T), 'int32'),
    'positions_bt': np.tile(np.arange(T, dtype='int32'), (B, 1)),
    'num_bytes_bt': num_bytes.astype('int32'),
  }


@pytest.fixture(params=OBJECTIVES, scope='module')
def run(request):
  """Function from a batch to (Loss, gradients by the probe's parameters)."""
  objective = OBJECTIVES[request.param].make()
  graphdef, params = nnx.split(Probe())

  def f(params, batch):
    model = nnx.merge(graphdef, params)
    loss = objective(model, batch, jax.random.key(0))
    return loss.sum_nats, loss

  grad = jax.jit(jax.grad(f, has_aux=True))

  def call(batch):
    grads, loss = grad(nnx.to_pure_dict(params), batch)
    return loss, grads

  return call


def test_masked_positions_have_exactly_zero_gradient(run):
  batch = make_batch()
  _, grads = run(batch)
  norms = np.abs(grads['states']).max(axis=-1)
  np.testing.assert_array_equal(norms > 0, batch['loss_mask_bt'] > 0)


def test_targets_under_the_mask_do_not_matter(run):
  batch = make_batch()
  other = dict(batch)
  masked = batch['loss_mask_bt'] == 0
  other['targets_bt'] = np.where(masked, 1, batch['targets_bt'])
  for a, b in zip(*map(jax.tree.leaves, (run(batch), run(other))), strict=True):
    np.testing.assert_array_equal(a, b)


# Float32 sums of 60 terms in another order: relative error below 60 * 6e-8.
@pytest.mark.parametrize('parts', [2, 4])
def test_splitting_rows_into_microbatches_changes_nothing(run, parts):
  batch = make_batch()
  size = B // parts
  whole = run(batch)
  pieces = [
    run({k: v[i : i + size] for k, v in batch.items()})
    for i in range(0, B, size)
  ]
  added = jax.tree.map(lambda *x: sum(x), *pieces)
  for a, b in zip(*map(jax.tree.leaves, (whole, added)), strict=True):
    np.testing.assert_allclose(a, b, rtol=4e-6, atol=1e-6)


def test_a_row_of_padding_adds_nothing(run):
  batch = make_batch()
  padding = {k: np.zeros_like(v[:2]) for k, v in batch.items()}
  loss, grads = run(padding)
  for leaf in jax.tree.leaves((loss, grads)):
    np.testing.assert_array_equal(leaf, 0)


def test_bits_per_byte_come_from_num_bytes_and_nothing_else(run):
  batch = make_batch()
  loss, _ = run(batch)
  more, _ = run(batch | {'num_bytes_bt': 3 * batch['num_bytes_bt']})
  assert more.sum_nats == loss.sum_nats
  assert more.weight == loss.weight
  bits = {name for name in loss.metrics if name.startswith('bpb')}
  assert bits, 'report bpb, or bpb_bound if the likelihood is not exact'
  for name in bits:
    mean = loss.metrics[name]
    assert mean.weight == batch['num_bytes_bt'].sum()
    assert more.metrics[name].total == mean.total
    assert more.metrics[name].weight == 3 * mean.weight
  nats = loss.metrics['nats']
  assert jnp.isclose(loss.metrics['bpb'].total, nats.total / np.log(2))

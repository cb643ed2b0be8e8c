# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base
from jaxtok.objectives import next_token


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  shape = (2, 9)
  mask = np.ones(shape, 'float32')
  mask[1, 5:] = 0
  arrays = {
    'tokens_bt': rng.integers(0, 30, shape, dtype='int32'),
    'targets_bt': rng.integers(0, 30, shape, dtype='int32'),
    'loss_mask_bt': mask,
    'segment_ids_bt': mask.astype('int32'),
    'positions_bt': np.tile(np.arange(9, dtype='int32'), (2, 1)),
    'num_bytes_bt': rng.integers(0, 5, shape, dtype='int32')
    * mask.astype('int32'),
  }
  return {name: jnp.asarray(x) for name, x in arrays.items()}


class Bigram(nnx.Module):
  """The state of a position is the embedding of its token."""

  def __init__(self, dropout=False):
    self.dropout = dropout
    rng = np.random.default_rng(1)
    self.embed = nnx.Param(jnp.asarray(rng.normal(size=(30, 8)), 'float32'))
    self.head = nnx.Param(jnp.asarray(rng.normal(size=(8, 30)), 'float32'))

  def __call__(self, tokens_bt, *, positions, segment_ids, rng):
    hidden_btd = self.embed[tokens_bt]
    if rng is not None and self.dropout:
      hidden_btd *= jax.random.bernoulli(rng, 0.5, hidden_btd.shape)
    return base.Output(hidden_btd=hidden_btd)

  def logits(self, hidden_btd):
    return hidden_btd @ self.head[...]


@pytest.fixture(scope='module')
def model():
  return Bigram()


def test_metrics_equal_a_float64_computation(model, batch):
  embed, head = (
    np.asarray(p[...], 'float64') for p in (model.embed, model.head)
  )
  logits = embed[np.asarray(batch['tokens_bt'])] @ head
  lse = np.log(np.exp(logits).sum(-1))
  targets = np.asarray(batch['targets_bt'])
  picked = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  mask = np.asarray(batch['loss_mask_bt'])
  nats = ((lse - picked) * mask).sum()
  is_best = logits.argmax(-1) == targets
  hits = is_best * mask

  objective = next_token.Config().make()
  loss = objective(model, batch, jax.random.key(0))
  assert float(loss.sum_nats) == pytest.approx(nats, rel=1e-6)
  assert float(loss.weight) == 14
  value = {name: float(mean.value) for name, mean in loss.metrics.items()}
  num_bytes = int(batch['num_bytes_bt'].sum())
  assert value == pytest.approx(
    {
      'nats': nats / 14,
      'bpb': nats / np.log(2) / num_bytes,
      'accuracy': hits.sum() / 14,
      'tokens_per_byte': 14 / num_bytes,
    },
    rel=1e-6,
  )
  rows = objective.per_row(model, batch, jax.random.key(0))
  for name, mean in rows.items():
    total = float(loss.metrics[name].total)
    assert mean.total.shape == mean.weight.shape == (2,)
    assert float(mean.total.sum()) == pytest.approx(total, rel=1e-6)


def test_z_loss_is_minimised_but_not_reported(model, batch):
  plain = next_token.Config().make()(model, batch, jax.random.key(0))
  with_z = next_token.Config(z_loss=0.1).make()(model, batch, jax.random.key(0))
  assert with_z.sum_nats > plain.sum_nats
  assert with_z.metrics['bpb'].total == plain.metrics['bpb'].total


@pytest.mark.parametrize('field, value', [('z_loss', -1.0), ('num_chunks', -1)])
def test_negative_settings_are_refused_by_name(field, value):
  with pytest.raises(ValueError, match=f'{field} must be >= 0, got -1'):
    next_token.Config(**{field: value})


def test_rows_are_measured_without_dropout(model, batch):
  objective, rng = next_token.Config().make(), jax.random.key(0)
  want = objective.per_row(model, batch, rng)['bpb'].total
  noisy = Bigram(dropout=True)
  np.testing.assert_array_equal(
    objective.per_row(noisy, batch, rng)['bpb'].total, want
  )
  train = objective(noisy, batch, rng).metrics['bpb'].total
  assert float(train) != pytest.approx(float(want.sum()), rel=1e-3)


def test_places_split_nats_and_accuracy_by_position(model, batch):
  plain = next_token.Config().make()(model, batch, jax.random.key(0))
  loss = next_token.Config(places=3).make()(model, batch, jax.random.key(0))
  assert set(loss.metrics) - set(plain.metrics) == {
    f'{name}_{i}' for name in ('nats', 'accuracy') for i in range(3)
  }
  place = np.asarray(batch['positions_bt']) % 3
  mask = np.asarray(batch['loss_mask_bt'])
  for i in range(3):
    weight = float(loss.metrics[f'nats_{i}'].weight)
    assert weight == (mask * (place == i)).sum()
    # With only the targets of this place, the plain metrics are the same.
    some = dict(batch, loss_mask_bt=jnp.asarray(mask * (place == i)))
    want = next_token.Config().make()(model, some, jax.random.key(0)).metrics
    for name in ('nats', 'accuracy'):
      got = float(loss.metrics[f'{name}_{i}'].total)
      assert got == pytest.approx(float(want[name].total), rel=1e-6)
  with pytest.raises(ValueError, match='places must be >= 1, got 0'):
    next_token.Config(places=0)


def test_what_an_encoder_reads_is_passed_on(model, batch):
  seen = []

  class Reader(Bigram):
    def __call__(self, tokens_bt, *, context, **kwargs):
      seen.append(context)
      return super().__call__(tokens_bt, **kwargs)

  source = {
    'context_bs': jnp.arange(6, dtype=jnp.int32).reshape(2, 3),
    'context_segment_ids_bs': jnp.ones((2, 3), jnp.int32),
  }
  objective = next_token.Config().make()
  got = objective(Reader(), batch | source, jax.random.key(0))
  assert seen[0].tokens_bs is source['context_bs']
  assert seen[0].segment_ids_bs is source['context_segment_ids_bs']
  want = objective(model, batch, jax.random.key(0))
  assert float(got.sum_nats) == float(want.sum_nats)

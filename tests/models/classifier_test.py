# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The last layer of a classifier: what it pools, and what it ignores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import classifier
from jaxtok.objectives import classification


class Encoder(nnx.Module):
  """States are rows of a table."""

  def __init__(self):
    table = np.random.default_rng(0).normal(size=(7, 4))
    self.table = nnx.Param(jnp.asarray(table, jnp.float32))

  def features(self, tokens_bt, segment_ids, rng=None):
    del rng
    return self.table[...][tokens_bt], segment_ids > 0


class Config:
  dim = 4

  def make(self, rngs):
    del rngs
    return Encoder()


TOKENS = jnp.array([[1, 2, 3, 0], [4, 5, 6, 1]])
SEGMENTS = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize('pool', classifier.POOLS)
def test_logits_are_those_of_the_pooled_state(pool):
  model = classifier.Config(encoder=Config(), num_classes=3, pool=pool).make(
    nnx.Rngs(0)
  )
  got = model(TOKENS, segment_ids=SEGMENTS)
  table = np.asarray(model.encoder.table[...], np.float64)
  if pool == 'first':
    kernel = np.asarray(model.pooler.kernel[...])
    x = np.tanh(table[[1, 4]] @ kernel)
  else:
    x = np.stack([table[[1, 2, 3]].mean(0), table[[4, 5, 6, 1]].mean(0)])
  # Float32 sums of four terms below 1.
  np.testing.assert_allclose(got, x @ model.out.kernel[...], atol=1e-5)


def test_the_mean_of_a_long_bfloat16_row_is_not_rounded():
  model = classifier.Config(encoder=Config(), num_classes=3, pool='mean').make(
    nnx.Rngs(0)
  )
  table = model.encoder.table[...].astype(jnp.bfloat16)
  model.encoder.table = nnx.Param(table)
  tokens = jnp.arange(257)[None] % 7
  got = model(tokens, segment_ids=jnp.ones_like(tokens))
  want = np.asarray(table, np.float64)[np.asarray(tokens)[0]].mean(0)
  # Float32 sums of 257 terms below 4, then of four terms below 1.
  np.testing.assert_allclose(got[0], want @ model.out.kernel[...], atol=1e-5)


def test_rows_without_label_add_nothing():
  model = classifier.Config(encoder=Config(), num_classes=3).make(nnx.Rngs(0))
  batch = dict(tokens_bt=TOKENS, segment_ids_bt=SEGMENTS)
  objective = classification.Config().make()
  loss = objective(model, batch | {'labels_b': jnp.array([2, -1])}, None)
  logits = np.asarray(model(TOKENS, segment_ids=SEGMENTS), np.float64)[0]
  want = np.log(np.exp(logits).sum()) - logits[2]
  assert loss.weight == 1
  np.testing.assert_allclose(loss.sum_nats, want, rtol=1e-5)
  assert loss.metrics['accuracy'].total == (logits.argmax() == 2)


def test_dropout_acts_before_the_last_layer():
  config = classifier.Config(encoder=Config(), num_classes=3, dropout=0.5)
  model = config.make(nnx.Rngs(0))
  call = lambda rng: model(TOKENS, segment_ids=SEGMENTS, rng=rng)
  assert jnp.abs(call(None) - call(jax.random.key(1))).max() > 1e-3


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(num_classes=1), 'num_classes=1 must be >= 2'),
    (dict(pool='max'), "pool='max' must be one of first, mean"),
  ],
)
def test_impossible_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    classifier.Config(encoder=Config(), **fields)

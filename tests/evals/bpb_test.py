# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.evals import base, bpb
from jaxtok.models import base as model_base
from jaxtok.objectives import next_token

V, T = 11, 6


class Table(nnx.Module):
  """A table of next-token logits."""

  def __init__(self):
    logits = np.random.default_rng(0).normal(size=(V, V)).astype('float32')
    self.table = nnx.Param(jnp.asarray(logits))

  def __call__(self, tokens_bt, **kwargs):
    return model_base.Output(hidden_btd=self.table[tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


def rows(n):
  rng = np.random.default_rng(1)
  mask = np.ones((n, T), 'float32')
  mask[-1, 3:] = 0
  shape = (n, T)
  return {
    'tokens_bt': rng.integers(0, V, shape, dtype='int32'),
    'targets_bt': rng.integers(0, V, shape, dtype='int32'),
    'loss_mask_bt': mask,
    'segment_ids_bt': mask.astype('int32'),
    'positions_bt': np.tile(np.arange(T, dtype='int32'), (n, 1)),
    'num_bytes_bt': (rng.integers(0, 5, shape) * mask).astype('int32'),
  }


def context(data, batch_size, objective=None, kind='concat'):
  def batches(split, max_bytes):
    assert (split, max_bytes) == ('test', 123)
    n = len(data['tokens_bt'])
    for i in range(0, n, batch_size):
      batch = {k: v[i : i + batch_size] for k, v in data.items()}
      missing = batch_size - len(batch['tokens_bt'])
      pad = ((0, missing), (0, 0))
      yield {k: jnp.asarray(np.pad(v, pad)) for k, v in batch.items()}

  return base.Context(
    tokenizer=types.SimpleNamespace(kind=kind),
    batches=batches,
    corpus_id=lambda split, max_bytes: f'{split}-{max_bytes}',
    objective=objective or next_token.Config().make(),
    workdir=None,
  )


def measure(data, batch_size):
  config = bpb.Config(split='test', max_bytes=123)
  return config.make(context(data, batch_size))(Table(), jax.random.key(0))


def test_it_equals_a_float64_computation():
  data, model = rows(21), Table()
  logits = np.asarray(model.table[...], 'float64')[data['tokens_bt']]
  picked = np.take_along_axis(logits, data['targets_bt'][..., None], -1)[..., 0]
  nats = np.log(np.exp(logits).sum(-1)) - picked
  bits = (nats * data['loss_mask_bt']).sum(1) / np.log(2)
  num_bytes = data['num_bytes_bt'].sum(1)
  ratio = bits.sum() / num_bytes.sum()
  residual = bits - ratio * num_bytes
  error = math.sqrt(21 / 20 * (residual**2).sum()) / num_bytes.sum()

  got = measure(data, 21)
  assert got['bpb'] == pytest.approx(ratio, rel=1e-6)
  # The squares nearly cancel: 1e-7 of them is about 1e-5 of the difference.
  assert got['bpb_se'] == pytest.approx(error, rel=1e-4)
  tokens = 21 * T - 3
  assert got['nats'] == pytest.approx(bits.sum() * np.log(2) / tokens, rel=1e-6)
  assert got['tokens_per_byte'] == pytest.approx(tokens / num_bytes.sum())
  assert (got['tokens'], got['rows']) == (tokens, 21)
  assert got['bytes'] == num_bytes.sum()
  assert got['corpus'] == 'test-123'
  assert 0 < got['accuracy'] < 0.5


def test_batch_size_and_padding_rows_change_nothing():
  data = rows(21)
  whole, padded = measure(data, 21), measure(data, 4)
  assert whole.pop('corpus') == padded.pop('corpus')
  assert padded == pytest.approx(whole, rel=1e-4)


def test_the_standard_error_is_that_of_repeated_draws():
  rng = np.random.default_rng(2)
  w = rng.integers(50, 150, (4000, 100)) * 1.0  # 4000 texts of 100 rows.
  x = 2.0 * w + rng.normal(size=w.shape) * 30
  errors = [
    bpb.ratio_error(n=100.0, x=a.sum(), w=b.sum(), xx=a @ a, xw=a @ b, ww=b @ b)
    for a, b in zip(x, w, strict=True)
  ]
  spread = (x.sum(1) / w.sum(1)).std()
  # The spread of 4000 draws is known to 1/sqrt(2 * 4000) = 1.1 %.
  assert np.mean(errors) == pytest.approx(spread, rel=0.04)


def test_one_row_has_no_standard_error():
  assert math.isnan(measure(rows(1), 2)['bpb_se'])


def test_what_cannot_be_measured_is_refused():
  config = bpb.Config()
  with pytest.raises(ValueError, match='does not keep all bytes'):
    config.make(context(rows(2), 2, kind='lossy'))
  with pytest.raises(TypeError, match='function has no per_row'):
    config.make(context(rows(2), 2, objective=lambda model, batch, rng: None))
  with pytest.raises(ValueError, match='the test split has no text'):
    measure({k: v[:0] for k, v in rows(1).items()}, 2)
  with pytest.raises(ValueError, match='max_bytes must be >= 0, got -1'):
    bpb.Config(max_bytes=-1)

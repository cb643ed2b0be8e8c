# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""DNABERT-2 against the formulas of its layers in float64 NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, dnabert2
from tests.conformance import model_suite

SMALL = dict(dim=12, num_layers=2, num_heads=3, mlp_dim=20)
CONFIG = dnabert2.Config(vocab_size=model_suite.VOCAB, **SMALL)


class TestConformance(model_suite.ModelSuite):
  case = model_suite.Case(CONFIG, is_causal=False)


@pytest.fixture(scope='module')
def model():
  graph, params = nnx.split(CONFIG.make(nnx.Rngs(0)))
  rng = np.random.default_rng(0)
  noisy = jax.tree.map(
    lambda x: jnp.asarray(x + 0.2 * rng.normal(size=x.shape), jnp.float32),
    params,
  )
  return nnx.merge(graph, noisy)


def norm(x, part):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
  return x * part['scale'] + part['bias']


def gelu(x):
  return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def oracle(params, tokens, length):
  """Logits of one row whose first `length` tokens are no padding."""
  table = params['embed']['tokens']['table']
  types = params['embed']['types']['table']
  x = norm(table[tokens[:length]] + types[0], params['embed']['norm'])
  place = np.arange(length)
  distance = np.abs(place[:, None] - place)
  slopes = [2.0**-4, 2.0**-8, 2.0**-2]  # Of three heads.
  for i in range(CONFIG.num_layers):
    layer = params['layers'][i]
    part = layer['attention']
    q, k, v = (
      np.einsum('td,dnh->tnh', x, part[name]['kernel']) + part[name]['bias']
      for name in 'qkv'
    )
    heads = []
    for n in range(3):
      score = q[:, n] @ k[:, n].T / math.sqrt(4) - slopes[n] * distance
      score = np.exp(score - score.max(-1, keepdims=True))
      heads.append(score / score.sum(-1, keepdims=True) @ v[:, n])
    out = part['out']
    y = np.einsum('tnh,nhd->td', np.stack(heads, 1), out['kernel'])
    x = norm(x + y + out['bias'], layer['attention_norm'])
    hidden = gelu(x @ layer['gate']['kernel']) * (x @ layer['up']['kernel'])
    y = hidden @ layer['down']['kernel'] + layer['down']['bias']
    x = norm(x + y, layer['mlp_norm'])
  head = params['head']
  x = gelu(x @ head['dense']['kernel'] + head['dense']['bias'])
  return norm(x, head['norm']) @ table.T + head['bias']


def test_logits_equal_the_formulas(model):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  tokens = np.random.default_rng(1).integers(0, model_suite.VOCAB, (2, 9))
  lengths = [9, 6]
  segments = np.arange(9) < np.array(lengths)[:, None]

  @nnx.jit
  def logits(model, tokens, segment_ids):
    return model.logits(model(tokens, segment_ids=segment_ids).hidden_btd)

  got = logits(
    model, jnp.asarray(tokens, jnp.int32), jnp.asarray(segments, jnp.int32)
  )
  for b, length in enumerate(lengths):
    want = oracle(params, tokens[b], length)
    # Four float32 norms and sums of 20 terms of order 1.
    np.testing.assert_allclose(got[b, :length], want, atol=2e-5)


@pytest.mark.slow  # Compiles two programs.
def test_recomputing_layers_changes_no_gradient(model):
  tokens = jnp.arange(8)[None] % model_suite.VOCAB
  graph, params = nnx.split(model)
  other, _ = nnx.split(
    nnx.eval_shape(
      lambda: dnabert2.Config(
        vocab_size=model_suite.VOCAB, remat=True, **SMALL
      ).make(nnx.Rngs(0))
    )
  )

  def loss(graph, params):
    return nnx.merge(graph, params)(tokens).hidden_btd[..., 0].sum()

  got = jax.jit(jax.grad(lambda p: loss(other, p)))(params)
  want = jax.jit(jax.grad(lambda p: loss(graph, p)))(params)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    # Sums of float32 terms up to 5 in another order.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_dropout_needs_an_rng(model):
  tokens = jnp.arange(8)[None] % model_suite.VOCAB
  graph, params = nnx.split(model)
  call = jax.jit(lambda p, rng: nnx.merge(graph, p)(tokens, rng=rng).hidden_btd)
  plain, dropped = call(params, None), call(params, jax.random.key(0))
  assert jnp.abs(plain - dropped).max() > 0.1


def test_flops_are_those_that_xla_counts():
  tokens = jnp.zeros((4, 64), jnp.int32)
  config = dnabert2.Config(
    vocab_size=64, dim=64, num_layers=2, num_heads=4, mlp_dim=128, dropout=0.0
  )
  ours = sum(config.flops(base.Shape(b=4, t=64)).values())
  theirs = model_suite.xla_flops(config, tokens)
  # XLA counts norms, softmax and erf too.
  assert 1 <= theirs / ours <= 1.25


def test_the_defaults_have_the_published_number_of_parameters():
  config = dnabert2.Config(vocab_size=4096)
  shapes = nnx.state(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))))
  num = sum(x.size for x in jax.tree.leaves(shapes))
  assert 116.5e6 < num < 117.5e6  # "117M".


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(dim=10, num_heads=4), 'dim=10 must be a multiple of num_heads=4'),
    (dict(num_layers=0), 'num_layers=0 must be >= 1'),
    (dict(dropout=1.0), 'dropout=1.0 must be in'),
  ],
)
def test_impossible_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    dnabert2.Config(**fields)

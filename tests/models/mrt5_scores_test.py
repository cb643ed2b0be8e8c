# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MrT5's penalty on attention scores, against the whole model in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, mrt5
from jaxtok.nn import ragged
from jaxtok.objectives import next_token
from tests.conformance import model_suite

LAYERS, SHORTEN_AT, LIMIT = 3, 1, 0.5
CONFIG = mrt5.Config.byt5(
  vocab_size=model_suite.VOCAB,
  dim=16,
  num_layers=2,
  num_encoder_layers=LAYERS,
  num_heads=2,
  head_dim=8,
  mlp_dim=24,
  shorten_at=SHORTEN_AT,
  score_weight=0.5,
  score_limit=LIMIT,
)
B, T, S = 2, 5, 9
LENGTHS = (9, 6)


def make_batch():
  rng = np.random.default_rng(0)
  ids = lambda *shape: jnp.asarray(rng.integers(3, 24, shape), jnp.int32)
  ones = jnp.ones((B, T))
  valid = jnp.arange(S) < jnp.asarray(LENGTHS)[:, None]
  return {
    'tokens_bt': ids(B, T),
    'targets_bt': ids(B, T),
    'loss_mask_bt': ones.at[1, 2:].set(0),
    'segment_ids_bt': ones.astype(jnp.int32),
    'positions_bt': jnp.broadcast_to(jnp.arange(T), (B, T)),
    'num_bytes_bt': ones.astype(jnp.int32),
    'context_bs': ids(B, S),
    'context_segment_ids_bs': valid.astype(jnp.int32),
  }


def make(config=CONFIG):
  case = model_suite.Case(config, has_context=True)
  return model_suite.Subject(case).model


@nnx.jit
def loss_of(model, batch):
  return next_token.Config().make()(model, batch, jax.random.key(0))


class InNumPy:
  """One row in float64, from the equations of T5 and of MrT5."""

  def __init__(self, model, tokens_s, tokens_t):
    self.found = []  # The mean excess of each attention that counts.
    self.model = model
    to_s, to_t = np.arange(len(tokens_s)), np.arange(len(tokens_t))
    encoder, decoder = model.encoder, model.stack
    bias = self.relative(encoder, to_s)
    x, gate = self.embed(tokens_s), np.zeros(len(tokens_s))
    for i, blk in enumerate(encoder.blocks):
      if i == SHORTEN_AT:
        gate = self.gate(x)
      x = self.attend(blk, 'attention', x, None, bias, gate, i >= SHORTEN_AT)
      x = self.think(blk, x)
    x_s = self.norm(encoder.norm, x)
    causal = np.where(to_t[:, None] >= to_t, 0.0, -np.inf)
    bias = self.relative(decoder, to_t) + causal
    x = self.embed(tokens_t)
    for blk in decoder.blocks:
      x = self.attend(blk, 'attention', x, None, bias, 0.0, False)
      x = self.attend(blk, 'cross', x, x_s, 0.0, gate, True)
      x = self.think(blk, x)

  array = staticmethod(lambda x: np.asarray(x, np.float64))

  def relative(self, stack, place_t):
    place_1t = jnp.asarray(place_t)[None]
    return self.array(stack.bias(place_1t, place_1t))[0]

  def embed(self, tokens):
    return self.array(self.model.embed.tokens.table[...])[np.asarray(tokens)]

  def norm(self, norm, x):
    rms = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x / rms * self.array(norm.scale[...])

  def gate(self, x):
    gate = self.model.shortener
    y = self.norm(gate.norm, x) @ self.array(gate.kernel[...])
    logit = y[:, 0] + self.array(gate.bias[...])
    return -30 / (1 + np.exp(logit))

  def attend(self, blk, name, x, others, bias, gate, counts):
    layer = getattr(blk, name)
    y = self.norm(getattr(blk, f'{name}_norm'), x)
    keys = y if others is None else others
    q, k, v = (
      np.einsum('td,dnh->tnh', z, self.array(getattr(layer, part).kernel[...]))
      for z, part in ((y, 'q'), (keys, 'k'), (keys, 'v'))
    )
    score = np.einsum('tnh,snh->nts', q, k) + bias
    if counts:
      self.found.append((np.maximum(score, LIMIT) - LIMIT).mean())
    weight = np.exp(score + gate)
    weight /= 1 + weight.sum(-1, keepdims=True)
    out = np.einsum('nts,snh->tnh', weight, v)
    return x + np.einsum('tnh,nhd->td', out, self.array(layer.out.kernel[...]))

  def think(self, blk, x):
    y = self.norm(blk.mlp_norm, x)
    gate, up, down = (
      self.array(getattr(blk.mlp, part).kernel[...])
      for part in ('gate', 'up', 'down')
    )
    z = y @ gate
    z = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    return x + (z * (y @ up)) @ down


def excess_in_numpy(model, batch):
  rows = []
  for b, length in enumerate(LENGTHS):
    found = InNumPy(
      model, batch['context_bs'][b, :length], batch['tokens_bt'][b]
    ).found
    assert len(found) == LAYERS - SHORTEN_AT + 2
    rows.append(np.mean(found))
  return np.array(rows)


@pytest.mark.parametrize(
  'remat', [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_the_penalty_is_that_of_the_model_in_numpy(remat):
  batch = make_batch()
  model = make(dataclasses.replace(CONFIG, remat=remat))
  want_b = excess_in_numpy(model, batch)
  assert want_b.min() > 0.01
  loss = loss_of(model, batch)
  got = loss.metrics['score_excess']
  # float32 scores of order 1.
  np.testing.assert_allclose(got.value, want_b.mean(), rtol=1e-4)
  assert got.weight == B
  # Each row's excess, times the weight, is added to its 5 and 2 targets.
  want = 0.5 * (want_b * [5, 2]).sum() / 7
  np.testing.assert_allclose(loss.metrics['penalty'].value, want, rtol=1e-4)
  nats = loss.metrics['nats'].total + loss.metrics['penalty'].total
  np.testing.assert_allclose(loss.sum_nats, nats, rtol=1e-5)


def test_nothing_else_changes_and_a_weight_of_zero_computes_nothing():
  batch, model = make_batch(), make()
  plain = make(dataclasses.replace(CONFIG, score_weight=0.0))
  with_it, without = loss_of(model, batch), loss_of(plain, batch)
  assert 'score_excess' not in without.metrics
  np.testing.assert_allclose(
    with_it.metrics['nats'].total, without.metrics['nats'].total, rtol=1e-6
  )
  source = base.Source(batch['context_bs'], batch['context_segment_ids_bs'])
  # Evaluation has no penalty.
  aux = nnx.jit(lambda m: m(batch['tokens_bt'], context=source).aux)(model)
  assert 'score_excess' not in aux['metrics']


def test_hard_steps_and_the_model_without_a_gate_have_the_penalty_too():
  batch = make_batch()
  capacity = ragged.Capacity(policy='bucket', multiple=4)
  fields = dict(hard_share=1.0, capacity=capacity)
  hard = loss_of(make(dataclasses.replace(CONFIG, **fields)), batch)
  assert hard.metrics['score_excess'].value > 0
  control = make(dataclasses.replace(CONFIG, shortener=None))
  metrics = loss_of(control, batch).metrics
  assert metrics['score_excess'].value > 0
  assert metrics['penalty'].value > 0


def test_the_penalty_shrinks_scores():
  """A step along its gradient: what it is for."""
  batch, model = make_batch(), make()
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  @jax.jit
  def excess(params):
    loss = next_token.Config().make()(
      nnx.merge(graph, params, rest), batch, jax.random.key(0)
    )
    return loss.metrics['score_excess'].total

  value, grad = jax.value_and_grad(excess)(params)
  step = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grad)
  assert excess(step) < value


def test_a_negative_weight_is_refused():
  with pytest.raises(ValueError, match=r'score_weight=-1.0 must be >= 0'):
    dataclasses.replace(CONFIG, score_weight=-1.0)


@pytest.mark.parametrize('shortener', [CONFIG.shortener, None])
def test_scores_that_are_computed_once_more_are_counted(shortener):
  config = dataclasses.replace(CONFIG, shortener=shortener)
  make = lambda c: nnx.eval_shape(lambda: c.make(nnx.Rngs(0)))
  model = make(config)
  parts = model.flops(base.Shape(b=B, t=T, s=S))
  # Two blocks of the encoder, and cross-attention of two; inner width 16.
  assert parts.pop('scores') == 2 * B * (2 * S * S + 2 * T * S) * 16
  plain = make(dataclasses.replace(config, score_weight=0.0))
  assert parts == plain.flops(base.Shape(b=B, t=T, s=S))
  # Of what does not train, none is.
  assert 'scores' not in model.flops(base.Shape(b=B, t=T, s=S), kept=1.0)

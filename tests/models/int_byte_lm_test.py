# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The trained side of the integer model."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxtok.entropy import integer_model, stream
from jaxtok.models import base, int_byte_lm

SMALL = dict(dim=16, num_layers=3, reset_rate=0.2)
T = 24


def wild(config, seed=0):
  """A model whose parameters reach their clips, made without compiling."""
  abstract = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  graph, params = nnx.split(abstract)
  rng = np.random.default_rng(seed)
  draw = lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32)
  return nnx.merge(graph, jax.tree.map(draw, params))


@pytest.fixture(scope='module')
def model():
  return wild(int_byte_lm.Config(**SMALL))


@nnx.jit
def run(model, tokens, segment_ids=None, rng=None):
  """Hidden states, logits in bits, and logits of the tokenizer's ids."""
  hidden = model(tokens, segment_ids=segment_ids, rng=rng).hidden_btd
  return hidden, model.symbol_logits(hidden), model.logits(hidden)


@jax.jit
def run_exported(model, inputs):
  hidden = model.hidden(inputs)
  return hidden, model.logits(hidden)


def tokens_of(rows, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (rows, T))


def test_training_computes_the_integers_of_the_exported_model(model):
  tokens = tokens_of(3)
  tokens[:, 0] = 257
  exported = model.export()
  inputs = np.where(tokens == 257, integer_model.START, tokens)
  want_h, want_z = map(np.asarray, run_exported(exported, inputs))
  hidden, bits, _ = run(model, jnp.asarray(tokens))
  np.testing.assert_array_equal(np.asarray(hidden) * 2**5, want_h)
  np.testing.assert_array_equal(np.asarray(bits) * 64, want_z)
  assert np.abs(want_h).max() == 127  # Clips are in use.
  assert len(np.unique(want_z)) > 100


def test_code_length_is_the_cross_entropy_of_the_logits(model):
  tokens = tokens_of(3)
  inputs = np.pad(tokens, ((0, 0), (1, 0)), constant_values=257)[:, :-1]
  logits = np.asarray(run(model, jnp.asarray(inputs))[2], np.float64)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  picked = np.take_along_axis(logprobs, tokens[..., None], axis=2)
  bits = -picked[..., 0].sum(1) / math.log(2)
  got = stream.code_length(tokens, [T] * 3, model.export())
  # Frequencies are at least 1 of 2**16 and add up to 2**16, which costs others
  # 0.0057 bits; a weight is off by 2**-15, or by 2**-11 at 1/16 of the largest.
  assert (got < bits + 0.03 * T).all()
  # What a symbol has at most: the floor's unit, and for the most likely one the
  # remainder of 257 others.
  is_best = tokens == logits.argmax(-1)
  most = np.exp(picked[..., 0]) + (1 + 257 * is_best) / 2**16
  assert (got > -np.log2(most).sum(1) - 0.03 * T).all()


def test_logits_are_of_the_byte_tokenizers_ids(model):
  logits = np.asarray(run(model, jnp.asarray(tokens_of(3)))[2])
  assert logits.shape == (3, T, 259)
  p = np.exp(logits - logits.max(-1, keepdims=True))
  assert p[..., [256, 258]].max() == 0
  assert p[..., 257].min() > 0  # The end of a document.


def test_documents_of_a_row_do_not_see_each_other(model):
  tokens = tokens_of(2)
  tokens[:, [0, 10]] = 257
  segments = np.repeat([[1] * 10 + [2] * 14], 2, axis=0)
  together = run(model, jnp.asarray(tokens), jnp.asarray(segments))[1]
  changed = tokens.copy()
  changed[:, 1:10] = 7
  alone = run(model, jnp.asarray(changed), jnp.asarray(segments))[1]
  np.testing.assert_array_equal(together[:, 10:], alone[:, 10:])
  assert (together[:, 1:10] != alone[:, 1:10]).any()


def test_positions_depend_on_the_last_eight_tokens_only(model):
  tokens = tokens_of(3)
  base_logits = np.asarray(run(model, jnp.asarray(tokens))[1])
  for place in (1, 9, 15):
    changed = tokens.copy()
    changed[0, place] = (changed[0, place] + 100) % 256
    moved = np.asarray(run(model, jnp.asarray(changed))[1]) != base_logits
    moved = moved.any(-1)[0]
    assert not moved[:place].any()
    assert moved[place]
    assert not moved[place + 8 :].any()


def test_cached_steps_equal_the_uncached_row(model):
  tokens = jnp.asarray(tokens_of(2))
  want = run(model, tokens)[0]
  call = nnx.jit(lambda model, x, cache: model(x, cache=cache))
  output = call(model, tokens[:, :7], model.init_cache(2, T))
  cache, parts = output.cache, [output.hidden_btd]
  for t in range(7, T):
    output = call(model, tokens[:, t : t + 1], cache)
    cache = output.cache
    parts.append(output.hidden_btd)
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), want)
  assert not cache.overflow_b.any()
  again = call(model, tokens[:, 5:6], cache.truncate(5))
  np.testing.assert_array_equal(again.hidden_btd[:, 0], parts[0][:, 5])
  twice = call(
    model,
    tokens[:1, 5:6].repeat(2, 0),
    cache.truncate(5).gather(jnp.array([0, 0])),
  )
  np.testing.assert_array_equal(twice.hidden_btd[1], again.hidden_btd[0])


def test_random_starts_hide_what_came_before():
  config = int_byte_lm.Config(**SMALL | dict(reset_rate=1.0, reset_rows=1.0))
  key = jax.random.key(0)
  logits = np.asarray(run(wild(config), jnp.asarray(tokens_of(2)), rng=key)[1])
  np.testing.assert_array_equal(
    logits, np.broadcast_to(logits[:1, :1], logits.shape)
  )
  config = int_byte_lm.Config(**SMALL | dict(reset_rate=0.0))
  model = wild(config)
  tokens = jnp.asarray(tokens_of(2))
  np.testing.assert_array_equal(
    run(model, tokens, rng=key)[0], run(model, tokens)[0]
  )


@pytest.mark.parametrize(
  'is_quantized', [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_it_learns_a_short_text_by_heart(is_quantized):
  text = b'the quick brown fox jumps over the lazy dog. ' * 2
  tokens = np.frombuffer(text[:65], np.uint8)[None].astype(np.int32)
  config = int_byte_lm.Config(
    dim=32, num_layers=4, is_quantized=is_quantized, reset_rate=0.0
  )
  graph, params = nnx.split(config.make(nnx.Rngs(0)))
  optimizer = optax.adam(1e-2)

  def loss(params):
    model = nnx.merge(graph, params)
    output = model(jnp.asarray(tokens[:, :-1]))
    logprobs = jax.nn.log_softmax(model.logits(output.hidden_btd))
    return -jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=2).mean()

  @jax.jit
  def train(carry, _):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), value

  start = params, optimizer.init(params)
  (params, _), losses = jax.lax.scan(train, start, length=150)
  assert losses[0] > 4
  assert losses[-1] < 0.3
  if is_quantized:
    exported = nnx.merge(graph, params).export()
    bits = stream.code_length(tokens[:, 1:], [64], exported)[0]
    # The exported model starts its window one symbol later.
    assert bits / 64 < 1.0


def test_flops_are_those_of_the_matmuls():
  config = int_byte_lm.Config(dim=8, num_layers=2)
  parts = wild(config).flops(base.Shape(b=2, t=3))
  macs = 2 * (2 * 8 * 8 + 8 * 8) + 8 * 257
  assert sum(parts.values()) == 2 * 6 * macs


@pytest.mark.parametrize(
  'kwargs, name',
  [
    (dict(dim=513), 'dim=513'),
    (dict(num_layers=0), 'num_layers=0'),
    (dict(reset_rate=2.0), 'reset_rate=2'),
    (dict(vocab_size=300), 'vocab_size=300'),
    (dict(weight_scale=0, gate_scale=9), 'shifts'),
  ],
)
def test_impossible_configs_are_refused(kwargs, name):
  with pytest.raises(ValueError, match=name):
    int_byte_lm.Config(**kwargs)


def test_contexts_and_masks_are_refused(model):
  with pytest.raises(ValueError, match='context and mask'):
    model(jnp.asarray(tokens_of(1)), mask=1)

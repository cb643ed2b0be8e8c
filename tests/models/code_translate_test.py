# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merging in an encoder-decoder: identity, a loop, padding, cache, FLOPs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.decoding import autoregressive
from jaxtok.models import base, code_merge, code_translate, transformer
from jaxtok.nn import block, masks, ragged

SIZES = dict(vocab_size=30, dim=16, num_heads=2, num_layers=2)
SIZES |= dict(num_encoder_layers=2)
TOKENS = np.array([[1, 2, 3, 4, 5, 0, 0, 0], [1, 6, 7, 8, 9, 10, 11, 12]])
UNITS = np.array([[0, 1, 1, 2, 2, -1, -1, -1], [0, 1, 2, 2, 2, 3, 4, 4]])
TARGETS = np.array([[3, 4, 5, 6], [7, 8, 9, 10]])
How = code_merge.How


def config(how=How.AVERAGE, layer=1, **fields):
  fields = SIZES | dict(how=how, layer=layer) | fields
  if fields.pop('family', 't5') == 't5':
    return code_translate.Config.t5(**fields)
  return code_translate.Config.bert(**fields | dict(is_causal=True, max_len=32))


def make(*args, **fields):
  return config(*args, **fields).make(nnx.Rngs(0))


@nnx.jit
def call(model, tokens, units, targets):
  encoded = model.encode(tokens, units_bs=units)
  hidden = model(targets, context=encoded).hidden_btd
  return encoded, model.logits(hidden)


def run(model, tokens=TOKENS, units=UNITS, targets=TARGETS):
  return call(
    model, *(jnp.asarray(x, jnp.int32) for x in (tokens, units, targets))
  )


@pytest.mark.parametrize('family', ['t5', 'bert'])
@pytest.mark.parametrize('how', [How.AVERAGE, How.LEARNED])
def test_with_units_of_one_nothing_changes(how, family):
  alone = np.where(UNITS >= 0, np.arange(8), -1)
  got = run(make(how, family=family), units=alone)[1]
  want = run(make(How.NONE, family=family), units=alone)[1]
  # Sums of one term and zeros; only empty places differ, which none sees.
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_nothing_merged_is_the_transformer_of_the_same_weights():
  model = make(How.NONE)
  plain = transformer.Config.t5(**SIZES).make(nnx.Rngs(0))
  source = base.Source(jnp.asarray(TOKENS), jnp.asarray(UNITS >= 0, jnp.int32))
  want = plain.logits(plain(jnp.asarray(TARGETS), context=source).hidden_btd)
  np.testing.assert_allclose(run(model)[1], want, atol=1e-5)
  again = code_translate.adopt(plain, rngs=nnx.Rngs(1), how=How.NONE)
  np.testing.assert_allclose(run(again)[1], want, atol=1e-5)


@pytest.mark.parametrize('distances', code_translate.DISTANCES)
def test_blocks_after_the_merge_see_means_at_distances_of_units(distances):
  """Each program alone, units by a loop, without padding."""
  model = make(distances=distances)
  stack = model.encoder

  def through(x, layer, places=None):
    n = x.shape[1]
    places = jnp.asarray(range(n) if places is None else places)[None]
    bias = stack.bias(places, places)
    context = block.Context(masks.Full(), masks.Layout(n, n), bias=bias)
    return stack.blocks[layer](x, context)[0]

  encoded = run(model)[0]
  for b, num in enumerate((5, 8)):
    x = model.embed(jnp.asarray(TOKENS[b : b + 1, :num]))
    x = np.asarray(through(x, 0))
    units = UNITS[b, :num]
    z = np.stack([x[0, units == i].mean(0) for i in range(units.max() + 1)])
    first = [list(units).index(i) for i in range(units.max() + 1)]
    places = first if distances == 'first' else None
    want = stack.norm(through(jnp.asarray(z[None]), 1, places))[0]
    got = encoded.hidden_bsd[b, : len(z)]
    np.testing.assert_allclose(got, want, atol=2e-5)
  np.testing.assert_array_equal(encoded.segment_ids_bs.sum(1), [3, 5])


def test_a_distance_of_units_is_not_that_of_their_first_tokens():
  got = {d: run(make(distances=d))[1] for d in code_translate.DISTANCES}
  assert np.abs(got['unit'] - got['first']).max() > 1e-4
  with pytest.raises(ValueError, match="distances='last' must be one of unit"):
    config(distances='last')


@pytest.mark.parametrize('how', list(How))
def test_padding_changes_nothing(how):
  model = make(how)
  noise = np.where(UNITS < 0, 20, TOKENS)
  want = run(model)[1]
  np.testing.assert_array_equal(run(model, tokens=noise)[1], want)
  cut = run(model, TOKENS[:1, :5], UNITS[:1, :5], TARGETS[:1])[1]
  np.testing.assert_allclose(cut, want[:1], atol=1e-5)


def test_a_small_room_that_holds_all_units_changes_nothing():
  capacity = ragged.Capacity(policy='ratio', ratio=5 / 8)
  encoded, logits = run(make(capacity=capacity))
  assert encoded.hidden_bsd.shape == (2, 5, 16)
  np.testing.assert_allclose(logits, run(make())[1], atol=1e-5)
  np.testing.assert_array_equal(encoded.lost_b, [0, 0])
  small = ragged.Capacity(policy='ratio', ratio=3 / 8)
  np.testing.assert_array_equal(run(make(capacity=small))[0].lost_b, [0, 2])


@pytest.mark.parametrize('how', [How.AVERAGE, How.LEARNED])
def test_buckets_change_nothing_but_the_places_that_blocks_see(
  how, monkeypatch
):
  bucket = ragged.Capacity(policy='bucket', multiple=3)
  encoded, logits = run(make(how, capacity=bucket))
  assert encoded.hidden_bsd.shape == (2, 8, 16)
  # Sums over fewer places.
  np.testing.assert_allclose(logits, run(make(how))[1], atol=1e-5)
  np.testing.assert_array_equal(encoded.segment_ids_bs.sum(1), [3, 5])
  np.testing.assert_array_equal(encoded.lost_b, [0, 0])
  widths, call_block = [], block.Block.__call__

  def spy(self, x, *args, **kwargs):
    widths.append(x.shape[1])
    return call_block(self, x, *args, **kwargs)

  monkeypatch.setattr(block.Block, '__call__', spy)
  model = make(how, capacity=bucket)
  tokens, units = jnp.asarray(TOKENS), jnp.asarray(UNITS)
  with jax.disable_jit():  # Only the branch that is taken is seen.
    model.encode(tokens, units_bs=units)
    model.encode(tokens[:1], units_bs=units[:1])
  assert widths == [8, 6, 8, 3]


@pytest.mark.parametrize('how', list(How))
def test_cached_greedy_tokens_are_those_without_a_cache(how):
  model = make(how)
  encoded, _ = run(model)
  prompt = np.ones((2, 1), np.int32)
  got = autoregressive.generate(
    model, prompt, num_tokens=6, context=encoded
  ).tokens
  rows = jnp.asarray(prompt)
  for _ in range(6):
    hidden = model(rows, context=encoded).hidden_btd
    newest = model.logits(hidden)[:, -1].argmax(-1)
    rows = jnp.concatenate([rows, newest[:, None]], axis=1)
  np.testing.assert_array_equal(got, rows[:, 1:])


def test_an_encoder_alone_gets_a_new_decoder():
  encoder = transformer.Config.roberta(
    vocab_size=30, dim=16, num_layers=3, num_heads=2, max_len=16
  ).make(nnx.Rngs(3))
  model = code_translate.adopt(encoder, rngs=nnx.Rngs(0), num_layers=1, layer=3)
  assert (len(model.encoder.blocks), len(model.stack.blocks)) == (3, 1)
  encoded = run(model)[0]
  valid = jnp.asarray(UNITS >= 0, jnp.int32)
  states = encoder(jnp.asarray(TOKENS), segment_ids=valid).hidden_btd
  want = ragged.segment_pool(states, jnp.asarray(UNITS), 8).values_bwd
  np.testing.assert_allclose(encoded.hidden_bsd, want, atol=1e-5)


def test_the_encoder_of_a_classifier_gets_a_new_decoder():
  encoder = transformer.Config.roberta(
    vocab_size=30, dim=16, num_layers=2, num_heads=2, max_len=16
  )
  classifier = code_merge.Config(encoder=encoder).make(nnx.Rngs(3))
  adopt = lambda model: run(code_translate.adopt(model, rngs=nnx.Rngs(0)))[1]
  np.testing.assert_array_equal(adopt(classifier), adopt(classifier.encoder))


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      {'dim': 32, 'dropout': 0.1},
      r'\(\d+, 16\) in the model .* \(\d+, 32\) with dim=32. Leave out dim.',
    ),
    (
      {'num_layers': 1},
      r'stack.blocks.1.* absent with num_layers=1. Leave out',
    ),
    ({'num_layers': 3}, r'stack.blocks.2.* is absent in the model that is ado'),
    ({'num_encoder_layers': 3}, r'Leave out num_encoder_layers'),
  ],
)
def test_fields_that_do_not_fit_the_weights_are_refused(fields, message):
  model = transformer.Config.t5(**SIZES).make(nnx.Rngs(0))
  with pytest.raises(ValueError, match=message):
    code_translate.adopt(model, rngs=nnx.Rngs(0), **fields)


def test_an_encoder_alone_keeps_its_sizes():
  model = transformer.Config.roberta(
    vocab_size=30, dim=16, num_layers=2, num_heads=2, max_len=16
  ).make(nnx.Rngs(0))
  with pytest.raises(
    ValueError, match=r'with num_heads=4\. Leave out num_heads\.'
  ):
    code_translate.adopt(model, rngs=nnx.Rngs(0), num_layers=3, num_heads=4)


def test_gradients_reach_the_weights_of_the_merge():
  model = make(How.LEARNED)

  def loss(model):
    tokens, units, targets = map(jnp.asarray, (TOKENS, UNITS, TARGETS))
    encoded = model.encode(tokens, units_bs=units, rng=jax.random.key(0))
    logits = model.logits(model(targets, context=encoded).hidden_btd)
    return logits[..., 0].sum()

  grads = nnx.jit(nnx.grad(loss))(model)
  for part in ('pool', 'encoder'):
    for path, x in nnx.to_flat_state(grads[part]):
      assert np.isfinite(x.get_raw_value()).all(), path
      assert (np.asarray(x.get_raw_value()) != 0).any(), path


def test_flops_fall_with_the_units_behind_the_merge():
  shape = base.Shape(b=2, t=4, s=8)
  none, half = make(How.NONE).flops(shape), make().flops(shape, units=4)
  blocks = make().config.block_config(False)
  first, second = (sum(blocks.flops(2 * n, n).values()) for n in (8, 4))
  assert none['encoder'] == 2 * first
  assert half['encoder'] == first + second
  assert half['cross'] < none['cross']
  same = ('projections', 'attention', 'mlp', 'head')
  assert [half[k] for k in same] == [none[k] for k in same]
  assert make().flops(shape) == none  # Room for all of them.


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match=r'layer=3 must be in \[0, num_enc'):
    config(layer=3)
  with pytest.raises(ValueError, match='num_encoder_layers=0 must be >= 1'):
    dataclasses.replace(config(), num_encoder_layers=0, layer=0).make(
      nnx.Rngs(0)
    )
  with pytest.raises(
    ValueError, match=r'(?s)units_bs is None, but how=average.*as context\.'
  ):
    make()(jnp.asarray(TARGETS), context=jnp.asarray(TOKENS))

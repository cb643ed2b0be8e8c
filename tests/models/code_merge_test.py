# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merging in an encoder: identity, a loop over units, padding, masks, FLOPs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, code_merge, transformer
from jaxtok.nn import block, ragged

ENCODER = transformer.Config.bert(
  vocab_size=30, dim=16, num_layers=2, num_heads=2, max_len=8
)
TOKENS = np.array([[1, 2, 3, 4, 5, 0, 0, 0], [1, 6, 7, 8, 9, 10, 11, 12]])
UNITS = np.array([[0, 1, 1, 2, 2, -1, -1, -1], [0, 1, 2, 2, 2, 3, 4, 4]])
AVERAGE, LEARNED, NONE = (
  code_merge.How.AVERAGE,
  code_merge.How.LEARNED,
  code_merge.How.NONE,
)


def make(how=AVERAGE, layer=1, **fields):
  config = code_merge.Config(encoder=ENCODER, how=how, layer=layer, **fields)
  return config.make(nnx.Rngs(0))


@nnx.jit
def call(model, tokens, units, visible=None):
  output = model(tokens, units, visible_bts=visible)
  return output.hidden_btd, model.logits(output.hidden_btd), output.aux


def run(model, tokens=TOKENS, units=UNITS, visible=None):
  if visible is not None:
    visible = jnp.asarray(visible)
  tokens, units = (jnp.asarray(x, jnp.int32) for x in (tokens, units))
  return call(model, tokens, units, visible)


@pytest.mark.parametrize('how', [AVERAGE, LEARNED])
@pytest.mark.parametrize('layer', [0, 2])
def test_with_units_of_one_nothing_changes(how, layer):
  alone = np.where(UNITS >= 0, np.arange(8), -1)
  got = run(make(how, layer), units=alone)[0]
  want = run(make(NONE), units=alone)[0]
  is_token = alone >= 0
  np.testing.assert_array_equal(got[is_token], want[is_token])


def test_blocks_after_the_merge_see_means_of_units():
  """Each program alone, units by a loop, without padding or masks."""
  model = make()
  hidden = np.asarray(run(model)[0])

  @functools.partial(nnx.jit, static_argnums=2)
  def block(model, x, layer):
    context = code_merge._context(jnp.ones(x.shape[:2], jnp.int32), None)
    return model.encoder.stack.blocks[layer](x, context)[0]

  for b, num in enumerate((5, 8)):
    x = model.encoder.embed(jnp.asarray(TOKENS[b : b + 1, :num]))
    x = np.asarray(block(model, x, 0))
    units = UNITS[b, :num]
    z = np.stack([x[0, units == i].mean(0) for i in range(units.max() + 1)])
    want = block(model, jnp.asarray(z[None]), 1)
    # Means and sums over units in another order, after a norm.
    np.testing.assert_allclose(hidden[b, : len(z)], want[0], atol=2e-5)


@pytest.mark.parametrize('how', [AVERAGE, LEARNED])
def test_padding_makes_no_unit_and_its_content_changes_nothing(how):
  model = make(how)
  hidden, logits, aux = run(model)
  noise = np.where(UNITS < 0, 20, TOKENS)
  np.testing.assert_array_equal(run(model, tokens=noise)[1], logits)
  np.testing.assert_array_equal(aux['units_b'], [3, 5])
  np.testing.assert_array_equal(aux['tokens_b'], [5, 8])
  assert np.isfinite(hidden).all()


def test_a_small_room_that_holds_all_units_changes_nothing():
  capacity = ragged.Capacity(policy='ratio', ratio=5 / 8)
  hidden, logits, aux = run(make(capacity=capacity))
  assert hidden.shape == (2, 5, 16)
  full = run(make())
  np.testing.assert_allclose(logits, full[1], atol=1e-5)
  np.testing.assert_array_equal(aux['lost_b'], [0, 0])
  small = ragged.Capacity(policy='ratio', ratio=3 / 8)
  np.testing.assert_array_equal(run(make(capacity=small))[2]['lost_b'], [0, 2])


@pytest.mark.parametrize('how', [AVERAGE, LEARNED])
@pytest.mark.parametrize('is_masked', [False, True])
def test_buckets_change_no_unit(how, is_masked):
  visible = np.tri(8, dtype=bool)[None].repeat(2, 0) if is_masked else None
  full, logits, _ = run(make(how), visible=visible)
  capacity = ragged.Capacity(policy='bucket', multiple=3)
  hidden, got, aux = run(make(how, capacity=capacity), visible=visible)
  assert hidden.shape == full.shape == (2, 8, 16)
  # Sums over fewer places.
  np.testing.assert_allclose(got, logits, atol=1e-5)
  is_unit = np.arange(8) < [[3], [5]]
  np.testing.assert_allclose(hidden[is_unit], full[is_unit], atol=1e-5)
  assert not hidden[:, 6:].any()  # 6 places hold 5 units.
  np.testing.assert_array_equal(aux['lost_b'], [0, 0])


@pytest.mark.parametrize('rows, width', [([0], 3), ([1], 6), ([0, 1], 6)])
def test_blocks_behind_the_merge_run_in_the_least_bucket(
  monkeypatch, rows, width
):
  widths, call_block = [], block.Block.__call__

  def spy(self, x, *args, **kwargs):
    widths.append(x.shape[1])
    return call_block(self, x, *args, **kwargs)

  monkeypatch.setattr(block.Block, '__call__', spy)
  model = make(capacity=ragged.Capacity(policy='bucket', multiple=3))
  tokens, units = (jnp.asarray(x[rows], jnp.int32) for x in (TOKENS, UNITS))
  with jax.disable_jit():  # Only the branch that is taken is seen.
    model(tokens, units)
  assert widths == [8, width]


def test_unmerged_nodes_keep_their_edges():
  """GraphCodeBERT: node 7 sees name 2..4 only, and nothing sees node 7 but it.

  What the node's state is depends on the name, whose unit holds tokens 2..4,
  and not on tokens that it does not see.
  """
  model = make(layer=0)
  visible = np.ones((2, 8, 8), bool)
  visible[:, 7, :] = visible[:, :, 7] = False
  visible[:, 7, 7] = visible[:, 7, 2] = True
  units = UNITS.copy()
  units[1] = [0, 1, 2, 2, 2, 3, 4, 5]
  # One block: what is not seen has no influence at all.
  config = dataclasses.replace(
    model.config, encoder=dataclasses.replace(ENCODER, num_layers=1)
  )
  model = config.make(nnx.Rngs(0))
  states = {}
  for name, index in {'same': None, 'in_unit': 4, 'outside': 5}.items():
    tokens = TOKENS.copy()
    if index is not None:
      tokens[1, index] = 25
    states[name] = np.asarray(run(model, tokens, units, visible)[0][1, 5])
  np.testing.assert_array_equal(states['outside'], states['same'])
  assert np.abs(states['in_unit'] - states['same']).max() > 1e-4


def test_gradients_reach_the_weights_of_the_merge():
  model = make(LEARNED)

  @nnx.jit
  def grads(model):
    tokens, units = (jnp.asarray(x, jnp.int32) for x in (TOKENS, UNITS))
    loss = lambda model: model.logits(model(tokens, units).hidden_btd)[
      :, 0
    ].sum()
    return nnx.grad(loss)(model)

  for path, x in nnx.to_flat_state(grads(model)['pool']):
    assert np.isfinite(x.get_raw_value()).all(), path
    assert (np.asarray(x.get_raw_value()) != 0).any(), path


def test_flops_fall_with_the_units_behind_the_merge():
  shape = base.Shape(b=2, t=8)
  none = make(NONE).flops(shape)
  half = make().flops(shape, units=4)
  assert half['before'] == none['before']
  # Projections and MLP by half, attention by a quarter.
  block = ENCODER.block_config(False)
  assert half['after'] == sum(block.flops(8, 4).values())
  assert none['after'] == sum(block.flops(16, 8).values())
  assert make().flops(shape) == none  # Room for all of them.


def test_what_a_classifier_has_is_adopted_and_the_rest_is_new():
  model = make()
  other = code_merge.adopt(model, rngs=nnx.Rngs(1), num_classes=3, how=LEARNED)
  for part in ('encoder', 'dense'):
    want = dict(nnx.to_flat_state(nnx.state(getattr(model, part))))
    for path, x in nnx.to_flat_state(nnx.state(getattr(other, part))):
      np.testing.assert_array_equal(x[...], want[path][...])
  assert other.out.kernel.shape == (16, 3)
  encoder = dataclasses.replace(ENCODER, num_layers=1)
  with pytest.raises(ValueError, match=r'encoder\.stack.*Leave out encoder'):
    code_merge.adopt(model, rngs=nnx.Rngs(1), encoder=encoder)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'layer': 3}, r'layer=3 must be in \[0, num_layers=2\]'),
    ({'num_classes': 1}, 'num_classes=1 must be >= 2'),
    ({'encoder': transformer.Config()}, 'must be an encoder alone'),
    (
      {'encoder': transformer.Config(is_causal=False)},
      "encoder.position='rope' must be learned or none",
    ),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    code_merge.Config(**{'encoder': ENCODER, 'layer': 0} | fields)

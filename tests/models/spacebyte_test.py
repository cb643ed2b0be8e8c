# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""SpaceByte: the promises of all models, and what is its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, spacebyte
from jaxtok.nn import masks, ragged, segmenters
from tests.conformance import greedy, model_suite

SMALL = dict(
  vocab_size=model_suite.VOCAB,
  dim=16,
  head_dim=4,
  num_layers=2,
  num_local_layers=2,
)


@dataclasses.dataclass(frozen=True)
class Every:
  """A unit begins at each id that is a multiple of `size`."""

  size: int = 3

  def __call__(self, tokens_bt, segment_ids_bt=None):
    start_bt = tokens_bt % self.size == 0
    start_bt = start_bt | segmenters.first(tokens_bt, segment_ids_bt)
    return (
      start_bt if segment_ids_bt is None else start_bt & (segment_ids_bt != 0)
    )


class TestConformance(model_suite.CausalSuite):
  case = model_suite.Case(spacebyte.Config(segmenter=Every(), **SMALL))


def make(**fields):
  config = spacebyte.Config(**(SMALL | dict(segmenter=Every()) | fields))
  return config.make(nnx.Rngs(0))


def test_global_blocks_that_do_nothing_leave_the_local_model():
  model = make()
  for blk in model.trunk.stack.blocks:
    blk.attention.out.kernel[...] *= 0
    blk.mlp.down.kernel[...] *= 0
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 24, (2, 9)))
  graph, params = nnx.split(model)

  @jax.jit
  def both(params):
    model = nnx.merge(graph, params)
    x_btd = model.embed(tokens)
    for part in (model.before, model.after):
      x_btd, _ = part(
        x_btd,
        positions_bt=jnp.arange(9)[None],
        segment_ids_bt=None,
        mask=masks.Causal(),
      )
    return model(tokens).hidden_btd, x_btd

  np.testing.assert_allclose(*both(params), atol=1e-6)


def test_training_leaves_out_what_it_has_no_room_for_and_evaluation_does_not():
  """12 units, room for 3: no target from the fourth on is trained."""
  capacity = ragged.Capacity(policy='ratio', ratio=0.25)
  tight, params = nnx.split(make(capacity=capacity))
  wide = nnx.graphdef(make(capacity=ragged.Capacity()))
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 8, (2, 12)) * 3)

  @jax.jit
  def all_three(params):
    model, full = nnx.merge(tight, params), nnx.merge(wide, params)
    return model(tokens, rng=jax.random.key(0)), model(tokens), full(tokens)

  trained, evaluated, want = all_three(params)
  mask = trained.aux['target_mask_bt']
  np.testing.assert_array_equal(mask.sum(axis=1), [3, 3])
  assert not mask[:, 3:].any()
  lost = trained.aux['metrics']['lost_targets']
  np.testing.assert_array_equal(lost.total, [9, 9])
  np.testing.assert_array_equal(lost.weight, [12, 12])
  assert 'target_mask_bt' not in evaluated.aux
  np.testing.assert_allclose(evaluated.hidden_btd, want.hidden_btd, atol=1e-5)
  np.testing.assert_allclose(
    trained.hidden_btd[:, :3], want.hidden_btd[:, :3], atol=1e-5
  )


def test_generation_with_nested_caches_equals_arg_max_without():
  """50 prompts of different lengths, greedily."""
  model = make(embed_std=1.0)
  model.head.out.kernel[...] *= 20
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, 24, n) for n in rng.integers(1, 14, 50)]
  new = greedy.generate(model, rows, 12)
  assert len(np.unique(new)) > 10


def test_flops_follow_the_room_for_units():
  shape = base.Shape(b=2, t=64)
  half = make(capacity=ragged.Capacity(policy='ratio', ratio=0.5))
  full = make(capacity=ragged.Capacity())
  a, b = half.flops(shape), full.flops(shape)
  assert a['local'] == b['local']
  # Projections and MLP halve, attention falls to a quarter.
  rows, d, f = 64, 16, full.trunk.config.mlp_width
  for parts, n in ((a, 32), (b, 64)):
    macs = 2 * 2 * n * (4 * d * d + 3 * d * f + 2 * n * d)
    assert parts['global'] == 2 * macs
  assert b['head'] == 2 * 2 * rows * 8 * 24


def test_flops_agree_with_xlas_count():
  config = spacebyte.Config(
    vocab_size=256, dim=128, head_dim=32, num_layers=2, num_local_layers=2
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  counted = sum(model.flops(base.Shape(b=4, t=64)).values())
  found = model_suite.xla_flops(config, jnp.zeros((4, 64), jnp.int32))
  # XLA also counts norms, softmax and the like.
  assert 1 < found / counted < 1.06


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_local_layers': 3}, 'num_local_layers=3 must be even'),
    ({'local_dim': 32}, 'local_dim=32 must not exceed dim=16'),
    ({'head_dim': 3}, 'must be multiples of head_dim=3'),
    ({'window': -1}, 'window=-1 must be >= 0'),
  ],
)
def test_impossible_configs_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    spacebyte.Config(**(SMALL | fields))


def test_arguments_without_meaning_are_refused():
  with pytest.raises(ValueError, match='takes no context'):
    make()(jnp.zeros((1, 3), jnp.int32), context=jnp.zeros((1, 3), jnp.int32))

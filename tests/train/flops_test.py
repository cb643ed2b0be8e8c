# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxtok.models import blt, patcher, transformer
from jaxtok.models.base import Shape
from jaxtok.objectives import next_token
from jaxtok.train import flops


@pytest.mark.parametrize(
  'dim, t, vocab, changes, low, high',
  [
    # XLA also counts norms, softmax and the like: less, the wider the model.
    (64, 64, 256, {}, 1.0, 1.05),
    (128, 128, 512, {'gated': True}, 1.0, 1.03),
    (256, 32, 64, {'num_kv_heads': 2}, 1.0, 1.02),
    # The last product of a block is not needed again: a tenth of the forward
    # pass here, so a fortieth of the step, and half of the MLP's share.
    (128, 64, 256, {'remat': True}, 0.93, 1.0),
  ],
)
def test_flops_of_a_step_agree_with_xlas_count(
  dim, t, vocab, changes, low, high
):
  config = transformer.Config(
    vocab_size=vocab, dim=dim, num_layers=2, num_heads=4, **changes
  )
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  graph, params = nnx.split(model)
  ids = jnp.zeros((4, t), jnp.int32)
  batch = {
    'tokens_bt': ids,
    'targets_bt': ids,
    'loss_mask_bt': jnp.ones((4, t)),
    'segment_ids_bt': ids + 1,
    'positions_bt': ids + jnp.arange(t),
    'num_bytes_bt': ids,
  }
  # One chunk, as XLA counts the body of a loop once.
  objective = next_token.Config(num_chunks=1).make()

  def sum_nats(params):
    return objective(
      nnx.merge(graph, params), batch, jax.random.key(0)
    ).sum_nats

  lowered = jax.jit(jax.grad(sum_nats)).lower(params)
  counted = flops.per_step(model, flops.batch_shape(batch), remat=config.remat)
  assert low < lowered.cost_analysis()['flops'] / counted < high


def test_a_patcher_costs_a_step_its_forward_pass_only():
  """By XLA's count: what a step costs more with a patcher than without."""
  config = blt.Config(
    vocab_size=256, dim=64, byte_dim=64, num_layers=1, num_parts=1, ngrams=()
  )
  asks = patcher.Entropy(
    model=transformer.Config.llama(
      dim=128, num_layers=2, num_heads=2, is_tied=False
    ),
    window=0,
  )
  tokens = jnp.zeros((4, 64), jnp.int32)

  def count(config):
    model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def total(params, rest):
      model = nnx.merge(graph, params, rest)
      # With an rng: without one there are two programs, for any room.
      output = model(tokens, rng=jax.random.key(0))
      return model.logits(output.hidden_btd).sum()

    lowered = jax.jit(jax.grad(total)).lower(params, rest)
    found = lowered.compile().cost_analysis()['flops']
    return found, flops.per_step(model, Shape(b=4, t=64))

  found, counted = count(config)
  more_found, more_counted = count(dataclasses.replace(config, patcher=asks))
  forward = more_counted - counted
  assert forward > counted / 3  # Or it could not be seen.
  # XLA also counts norms, and the softmax of which the entropy is.
  assert 1 < (more_found - found) / forward < 1.1


@pytest.mark.parametrize('name', flops.FORWARD_ONLY)
@pytest.mark.parametrize('remat', [False, True])
def test_parts_without_a_backward_pass_count_once(name, remat):
  class Model:
    def flops(self, shape):
      return {'blocks': 10.0, 'head': 1.0, name: 100.0}

  found = flops.per_step(Model(), Shape(b=1, t=1), remat=remat)
  assert found == (143 if remat else 133)


def test_the_shape_of_a_batch_includes_its_context():
  ids = jnp.zeros((4, 6), jnp.int32)
  assert flops.batch_shape({'tokens_bt': ids}) == Shape(b=4, t=6)
  shape = flops.batch_shape({'tokens_bt': ids, 'context_bs': ids[:, :5]})
  assert shape == Shape(b=4, t=6, s=5)


def test_remat_adds_a_forward_pass_without_the_head():
  class Model:
    def flops(self, shape):
      return {'blocks': 10.0, 'head': 1.0}

  assert flops.per_step(Model(), Shape(b=1, t=1)) == 33
  assert flops.per_step(Model(), Shape(b=1, t=1), remat=True) == 43


def test_a_budget_is_never_exceeded():
  assert flops.steps_within(100.0, 30.0) == 3
  with pytest.raises(ValueError, match='train_flops=20 is less than one step'):
    flops.steps_within(20, 30.0)

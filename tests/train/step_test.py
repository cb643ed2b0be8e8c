# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxtok.models import transformer
from jaxtok.objectives import next_token
from jaxtok.objectives.base import Loss, Mean
from jaxtok.train import optim, sharding, state, step


class Regression(nnx.Module):
  """A matrix and a counter of calls."""

  def __init__(self, rngs):
    kernel = jax.random.normal(rngs.params(), (4, 8))
    self.kernel = nnx.Param(kernel, axes=('embed', 'mlp'))
    self.calls = nnx.Variable(jnp.zeros((), jnp.int32))


def squares(model, batch, rng):
  """Sum of squares, weighted; rows of weight 0 do not count."""
  model.calls[...] += 1
  y_bf = jnp.tanh(batch['features_btd'][:, 0] @ model.kernel[...])
  weight_b = batch['rewards_b']
  total = (weight_b * (y_bf**2).sum(-1)).sum()
  noise = jax.random.uniform(rng)
  metrics = {'noise': Mean(noise, jnp.ones(()))}
  return Loss(total, weight_b.sum(), metrics)


def rows(num=8):
  rng = np.random.default_rng(0)
  return {
    'features_btd': rng.normal(size=(num, 1, 4)).astype(np.float32),
    'rewards_b': np.float32([0, 5, 0, 0, 1, 2, 0.5, 0][:num]),
  }


def plan(config=None, mesh=None, ema=False, model=Regression):
  return state.plan(
    model,
    optimizer=config or optim.Config(warmup_steps=0, lr=0.1),
    steps=100,
    mesh=(mesh or sharding.Config(data=1)).make(),
    ema=ema,
  )


class GradientDescent(optim.Config):
  """Plain gradient descent: Adam would hide a wrong scale."""

  def make(self, steps, mask=None, scales=None):
    return optax.sgd(1.0)


def run(layout, batch, num_steps=1, objective=squares, **kwargs):
  take = jax.jit(step.make_step(layout, objective, seed=0, **kwargs))
  now = layout.init(0)
  with jax.set_mesh(layout.mesh):
    for _ in range(num_steps):
      now, metrics = take(now, batch)
  return now, metrics


@pytest.mark.parametrize('num_microbatches', [2, 4, 8])
def test_microbatches_of_uneven_weight_equal_the_whole_batch(num_microbatches):
  layout, batch = plan(GradientDescent()), rows()
  whole, want = run(layout, batch)
  parts, got = run(layout, batch, num_microbatches=num_microbatches)
  # The same terms in another order: at most 8 roundings of 6e-8.
  np.testing.assert_allclose(
    parts.params['kernel'], whole.params['kernel'], rtol=1e-6, atol=1e-6
  )
  np.testing.assert_allclose(got.means['loss'].value, want.means['loss'].value)
  assert float(got.means['loss'].weight) == 8.5


class Controlled(Regression):
  """Adds up a metric, as a controller would."""

  def advance(self, metrics):
    self.calls[...] += metrics['seen'].total.astype(jnp.int32)


def seen(model, batch, rng):
  del rng
  total = (model.kernel[...] ** 2).sum()
  rows = jnp.float32(len(batch['rewards_b']))
  return Loss(total, jnp.ones(()), {'seen': Mean(rows, rows)})


@pytest.mark.parametrize('num_microbatches', [1, 4])
def test_controllers_advance_once_per_step_by_the_whole_batch(num_microbatches):
  layout = plan(model=Controlled)
  after, _ = run(
    layout, rows(), 2, objective=seen, num_microbatches=num_microbatches
  )
  assert after.rest['calls'] == 2 * 8


def test_the_gradient_is_that_of_the_weighted_mean():
  layout, batch = plan(), rows()
  start = layout.init(0).params['kernel']

  def mean(kernel):
    y_bf = jnp.tanh(batch['features_btd'][:, 0] @ kernel)
    return (batch['rewards_b'] * (y_bf**2).sum(-1)).sum() / 8.5

  _, metrics = run(layout, batch)
  want = float(jnp.linalg.norm(jax.grad(mean)(start)))
  assert float(metrics.means['grad_norm'].value) == pytest.approx(want, 1e-5)


def test_other_variables_are_updated_in_every_microbatch():
  assert int(run(plan(), rows(), 3)[0].rest['calls']) == 3
  now, _ = run(plan(), rows(), 3, num_microbatches=4)
  assert int(now.rest['calls']) == 12


def test_random_numbers_differ_between_steps_and_microbatches():
  def draw(*numbers):
    key = jax.random.key(0)
    for number in numbers:
      key = jax.random.fold_in(key, number)
    return float(jax.random.uniform(key))

  _, metrics = run(plan(), rows(), 2)
  assert float(metrics.means['noise'].total) == draw(1)
  _, metrics = run(plan(), rows(), 2, num_microbatches=2)
  noise = float(metrics.means['noise'].total)
  assert noise == pytest.approx(draw(1, 0) + draw(1, 1))


def test_averages_follow_their_recurrence():
  layout, batch = plan(ema=True), rows()
  take = jax.jit(step.make_step(layout, squares, seed=0, ema=0.15))
  now = layout.init(0)
  want = np.float64(now.params['kernel'])
  for t in range(4):  # 1/10 and then 0.15, as 2/11 is more.
    now, _ = take(now, batch)
    keep = min(0.15, (1 + t) / (10 + t))
    want = keep * want + (1 - keep) * np.float64(now.params['kernel'])
  np.testing.assert_allclose(now.ema['kernel'], want, rtol=1e-6)
  averaged = layout.model(now).kernel[...]
  np.testing.assert_array_equal(averaged, now.ema['kernel'])
  last = layout.model(now, averaged=False).kernel[...]
  np.testing.assert_array_equal(last, now.params['kernel'])


@pytest.mark.parametrize(
  'spoil, bad',
  [
    (lambda b: b, -1),
    (lambda b: b | {'features_btd': b['features_btd'] * np.nan}, 1),
    (lambda b: b | {'rewards_b': np.full(8, np.inf, np.float32)}, 1),
  ],
)
def test_a_bad_gradient_is_named(spoil, bad):
  batch = spoil(rows())
  assert int(run(plan(), batch)[1].bad) == bad


def test_a_bad_parameter_comes_before_its_gradients():
  layout = plan()
  now = layout.init(0)
  now.params['kernel'] = now.params['kernel'].at[1, 2].set(np.inf)
  take = jax.jit(step.make_step(layout, squares, seed=0))
  batch = rows()
  batch['features_btd'][:, :, 1] = 0  # 0 * inf
  assert int(take(now, batch)[1].bad) == 0


def test_a_loss_that_is_bad_alone_is_told_apart():
  def constant(model, batch, rng):
    loss = squares(model, batch, rng)
    return Loss(loss.sum_nats + jnp.inf, loss.weight, {})

  assert int(run(plan(), rows(), objective=constant)[1].bad) == 3


def text_batch(num_rows=8, t=16):
  rng = np.random.default_rng(0)
  ids = rng.integers(0, 30, (num_rows, t + 1)).astype(np.int32)
  mask = (rng.random((num_rows, t)) < 0.8).astype(np.float32)
  return {
    'tokens_bt': ids[:, :-1],
    'targets_bt': ids[:, 1:],
    'loss_mask_bt': mask,
    'segment_ids_bt': np.ones((num_rows, t), np.int32),
    'positions_bt': np.arange(t, dtype=np.int32)[None].repeat(num_rows, 0),
    'num_bytes_bt': mask.astype(np.int32),
  }


@pytest.fixture(scope='module')
def language_model():
  """Parameters and loss after three steps, as a function of the mesh."""
  config = transformer.Config(
    vocab_size=32, dim=16, num_layers=1, num_heads=4, mlp_dim=32
  )
  objective = next_token.Config(num_chunks=1).make()

  def train(mesh, **kwargs):
    layout = plan(
      optim.Config(warmup_steps=0, lr=1e-2, eps=1e-3),
      mesh,
      model=config.make,
    )
    batch = {
      k: jax.device_put(v, sharding.batch_sharding(layout.mesh, v.ndim))
      for k, v in text_batch().items()
    }
    function = step.make_step(layout, objective, seed=0, **kwargs)
    compiled = step.compile_step(layout, function, batch)
    start = now = layout.init(0)
    for _ in range(3):
      now, metrics = compiled(now, batch)
    return types.SimpleNamespace(
      layout=layout,
      start=start,
      end=now,
      metrics=metrics,
      program=compiled.as_text(),
    )

  return train


def test_eight_devices_give_the_result_of_one(language_model):
  want = language_model(sharding.Config(data=1))
  got = language_model(sharding.Config(data=4, model=2))
  # Sums in another order change gradients, which are below 1, by some 5e-7;
  # divided by eps=1e-3 and times lr=1e-2 that is 5e-6 in each of three steps.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
    got.end.params,
    want.end.params,
  )
  for name, mean in want.metrics.means.items():
    value = float(got.metrics.means[name].value)
    assert value == pytest.approx(float(mean.value), rel=1e-5), name
  assert int(got.metrics.tokens) == 128
  assert int(got.metrics.bytes) == int(text_batch()['num_bytes_bt'].sum())
  # The state stays where the rules put it, moments with their parameters.
  for leaf, split in zip(
    jax.tree.leaves(got.end), jax.tree.leaves(got.layout.shardings), strict=True
  ):
    assert leaf.sharding.is_equivalent_to(split, leaf.ndim)
  moment = got.end.opt_state[1][0].mu['stack']['blocks'][0]['mlp']['up']
  (shape,) = {s.data.shape for s in moment['kernel'].addressable_shards}
  assert shape == (16 // 4, 32 // 2)
  # The state that went in was given up.
  assert all(x.is_deleted() for x in jax.tree.leaves(got.start))
  # No exchange is larger than a device's share of the states (2 rows of 16
  # positions, width 16) or than a matrix: the batch is never gathered.
  sizes = [
    math.prod(map(int, dims.split(',')))
    for line in got.program.splitlines()
    if re.search(r' (all-|reduce-scatter)', line)
    for dims in re.findall(r'f32\[([\d,]+)\]', line.partition('(%')[0])
  ]
  assert max(sizes) == 2 * 16 * 16 == 32 * 16


def test_bfloat16_training_follows_float32_and_keeps_float32_state():
  """Mixed precision: only matmuls and the states between them are rounded."""
  losses = {}
  for dtype in ('float32', 'bfloat16'):
    config = transformer.Config(
      vocab_size=32, dim=16, num_layers=1, num_heads=4, is_tied=False,
      dtype=dtype,
    )  # fmt: skip
    layout = plan(
      optim.Config(warmup_steps=0, lr=1e-2, eps=1e-3), model=config.make
    )
    function = step.make_step(
      layout, next_token.Config(num_chunks=1).make(), seed=0
    )
    compiled = step.compile_step(layout, function, text_batch())
    now, losses[dtype] = layout.init(0), []
    for _ in range(8):
      now, metrics = compiled(now, text_batch())
      losses[dtype].append(float(metrics.means['loss'].value))
    types_found = {x.dtype.name for x in jax.tree.leaves(now)}
    assert types_found == {'float32', 'int32'}
    assert metrics.means['loss'].total.dtype == jnp.float32
  want, got = (np.array(losses[k]) for k in ('float32', 'bfloat16'))
  # A state passes some 15 roundings of 2**-9 on its way through one layer and
  # the head: logits of order 1 are off by 0.03, and so is a loss at most. The
  # gradient is off by as much, so the loss falls by 3 % more or less.
  assert abs(got[0] - want[0]) < 0.03
  fall = want[0] - want
  np.testing.assert_array_less(np.abs(got - want), 0.03 + 0.03 * fall)
  assert fall[-1] > 0.3
  assert (got != want).all()


def test_initial_parameters_do_not_depend_on_the_mesh():
  config = transformer.Config(vocab_size=32, dim=16, num_layers=1, num_heads=4)
  one = plan(model=config.make).init(3)
  eight = plan(mesh=sharding.Config(data=2, model=4), model=config.make).init(3)
  jax.tree.map(np.testing.assert_array_equal, one, eight)

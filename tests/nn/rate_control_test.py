# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Controllers on plants with known answers, and in real training runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok import train
from jaxtok.config import configclass
from jaxtok.data import text
from jaxtok.evals import bpb
from jaxtok.models import base, transformer
from jaxtok.nn import rate_control
from jaxtok.objectives import next_token
from jaxtok.objectives.base import Mean
from jaxtok.tokenizers import bytes as byte_tokenizer
from jaxtok.train import optim, sharding


def states(controller):
  return nnx.to_pure_dict(nnx.split(controller)[1])


def follow(controller, plant, steps):
  """Coefficients of each step while `plant(coef)` is observed."""
  graph, state = nnx.split(controller)

  def step(state, _):
    controller = nnx.merge(graph, state)
    coef = controller.coef()
    controller.update(plant(coef))
    return nnx.split(controller)[1], coef

  return jax.lax.scan(step, state, None, length=steps)[1]


@pytest.mark.parametrize('target', [0.3, 0.5, 0.7])
def test_pi_control_reaches_its_target_on_a_sigmoid_plant(target):
  """With the larger `ki` of the paper's code.

  Linearised at 0.3, the error decays in (1 + 12.6 kp) / (12.6 ki) updates: 58
  thousand with ki = 1e-5, 12 thousand with this one.
  """
  controller = rate_control.PI(target=target, ki=5e-5).make()
  plant = lambda coef: jax.nn.sigmoid(60 * coef - 3)
  coefs = follow(controller, plant, 20_000)
  assert abs(float(plant(coefs[-1])) - target) < 0.02


@pytest.mark.parametrize('two_sided', [False, True])
@pytest.mark.parametrize('ramp', [0, 5])
def test_pi_control_equals_its_recursion(two_sided, ramp):
  controller = rate_control.PI(
    target=0.5, kp=0.4, ki=0.01, delay=2, ramp=ramp, two_sided=two_sided
  ).make()
  rng = np.random.default_rng(0)
  p = i = 0.0
  for step in range(20):
    coef = p + i if two_sided else max(0, p + i)
    # float32 sums of 20 terms below 0.5.
    np.testing.assert_allclose(controller.coef(), coef, atol=1e-6)
    observed = float(rng.random())
    controller.update(jnp.float32(observed))
    if step >= 2:
      target = 0.5 * min((step - 2) / 5, 1) if ramp else 0.5
      error = target - observed
      p, i = 0.9 * p + 0.1 * 0.4 * error, i + 0.01 * error
  assert controller.steps[...] == 20


@pytest.mark.parametrize('two_sided', [False, True])
def test_only_a_two_sided_controller_stops_what_runs_away(two_sided):
  """A plant that rises by itself once past 0.3, as deletion can."""
  config = rate_control.PI(target=0.5, ki=1e-4, two_sided=two_sided)

  def step(carry, _):
    state, share = carry
    controller = nnx.merge(graph, state)
    pull = 0.02 * (share - 0.3) + 0.2 * controller.coef()
    share = jnp.clip(share + pull, 0.0, 1.0)
    controller.update(share)
    return (nnx.state(controller), share), share

  graph, state = nnx.split(config.make())
  start = (state, jnp.float32(0.1))
  shares = jax.lax.scan(step, start, None, length=3000)[1]
  if two_sided:
    np.testing.assert_allclose(shares[-500:], 0.5, atol=0.05)
  else:
    np.testing.assert_array_equal(shares[-500:], 1.0)


def test_the_ratio_loss_is_one_at_its_target_and_pulls_towards_it():
  controller = rate_control.Ratio(length=4.0, weight=0.1, delay=1).make()
  assert controller.coef() == 0
  controller.update(jnp.float32(0))
  np.testing.assert_allclose(controller.coef(), 0.1)
  start = jnp.tile(jnp.array([True, False, False, False]), (2, 3))
  valid = jnp.ones_like(start).at[1, 4:].set(False)
  prob = jnp.full(start.shape, 0.25)
  got = controller.loss(start, prob, valid, by_row=True)
  np.testing.assert_allclose(got, [1, 1], rtol=1e-6)
  # More beginnings than wanted: less probability lowers the loss.
  slope = jax.grad(lambda p: controller.loss(start | True, p, valid).sum())
  assert (slope(prob)[valid] > 0).all()
  slope = jax.grad(lambda p: controller.loss(start & False, p, valid).sum())
  assert (slope(prob)[valid] < 0).all()
  n, f, g = 4, 5 / 12, 0.3  # The closed form elsewhere.
  start = start.at[0, 1:3].set(True)
  want = n / (n - 1) * ((n - 1) * f * g + (1 - f) * (1 - g))
  got = controller.loss(start, jnp.full(start.shape, g), valid, by_row=True)
  np.testing.assert_allclose(got[0], want, rtol=1e-6)


def test_the_ratio_loss_is_of_the_batch_not_of_its_rows():
  controller = rate_control.Ratio(length=3.0).make()
  rng = np.random.default_rng(0)
  start = jnp.asarray(rng.random((3, 8)) < 0.4)
  prob = jnp.asarray(rng.random((3, 8)), jnp.float32)
  # Rows of 8, 6 and no positions.
  valid = jnp.arange(8) < jnp.array([[8], [6], [0]])
  f, g = start[valid].mean(), prob[valid].mean()
  want = 3 / 2 * (2 * f * g + (1 - f) * (1 - g))
  got = controller.loss(start, prob, valid)
  np.testing.assert_allclose(got, [want], rtol=1e-6)
  # Each position pulls alike, whatever its row holds.
  slope = jax.grad(lambda p: controller.loss(start, p, valid)[0])(prob)
  np.testing.assert_allclose(slope[valid], slope[0, 0], rtol=1e-5)
  assert not slope[~valid].any()


def test_random_targets_depend_on_the_step_only_and_follow_their_law():
  controller = rate_control.Random(seed=3, delay=1).make()
  assert controller.shares == pytest.approx((0.4, 0.45, 0.5, 0.55, 0.6))
  assert controller.coef() == 0.5
  coefs = np.asarray(follow(controller, lambda coef: coef, 2000))
  again = rate_control.Random(seed=3, delay=1).make()
  np.testing.assert_array_equal(
    coefs, follow(again, lambda coef: jnp.float32(0), 2000)
  )
  # Normal(0.5, 0.05) rounded to 0.5: within half a standard deviation, 0.383;
  # 5 standard errors of 2000 draws are 0.054.
  share = np.isclose(coefs, 0.5).mean()
  assert abs(share - 0.383) < 0.054
  np.testing.assert_allclose(np.unique(coefs), controller.shares, rtol=1e-6)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: rate_control.PI(decay=1.0), r'decay=1.0 must be in \[0, 1\)'),
    (lambda: rate_control.PI(delay=-1), 'delay=-1 must be >= 0'),
    (lambda: rate_control.PI(ramp=-1), 'ramp=-1 must be >= 0'),
    (
      lambda: rate_control.Ratio(length=1.0),
      'length=1.0 positions per unit must',
    ),
    (lambda: rate_control.Random(low=0.7), 'shares must satisfy 0 < low=0.7'),
    (lambda: rate_control.Random(std=-1.0), r'std=-1.0 >= 0'),
  ],
)
def test_impossible_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@configclass
class Gated:
  """A small model whose states are damped by a gate under PI control."""

  inner: transformer.Config
  vocab_size: int = 0
  control: rate_control.PI

  def make(self, rngs):
    return GatedModel(self, rngs)


class GatedModel(nnx.Module):
  def __init__(self, config, rngs):
    self.inner = config.inner.make(rngs)
    self.bias = nnx.Param(jnp.full((), -1.0), axes=())
    self.control = config.control.make()

  def __call__(self, tokens_bt, **kwargs):
    output = self.inner(tokens_bt, **kwargs)
    open_bt = jax.nn.sigmoid(output.hidden_btd[..., 0] + self.bias[...])
    count_b = jnp.full(tokens_bt.shape[:1], float(tokens_bt.shape[1]))
    aux = {
      'penalty_bt': -self.control.coef() * open_bt,
      'metrics': {'open': Mean(open_bt.sum(axis=1), count_b)},
    }
    hidden_btd = output.hidden_btd * open_bt[..., None]
    return base.Output(hidden_btd, output.cache, aux)

  def logits(self, hidden_btd):
    return self.inner.logits(hidden_btd)

  def flops(self, shape):
    return self.inner.flops(shape)

  def advance(self, metrics):
    self.control.update(metrics['open'].value)


def make_config(**changes):
  inner = transformer.Config(vocab_size=259, dim=8, num_layers=1, num_heads=1)
  control = rate_control.PI(target=0.9, kp=4.0, ki=0.5)
  fields = dict(
    data=text.Config(source=text.Stdlib(max_bytes=60_000), seq_len=16),
    tokenizer=byte_tokenizer.Config(),
    model=Gated(inner=inner, control=control),
    objective=next_token.Config(num_chunks=1),
    optim=optim.Config(lr=1e-2, warmup_steps=0),
    mesh=sharding.Config(data=1),
    evals={'val': bpb.Config(every_steps=2, max_bytes=300)},
    steps=6,
    batch_size=4,
    log_every=1,
    checkpoint_every=3,
  )
  return train.Config(**(fields | changes))


def state_of(run):
  return jax.device_get(states(run.model.control))


@pytest.mark.slow  # Three compilations of a training step.
def test_training_steps_alone_advance_a_controller_and_checkpoints_keep_it(
  tmp_path,
):
  run = train.run(make_config(steps=3), tmp_path)
  assert state_of(run)['steps'] == 3  # The evals have advanced nothing.
  run = train.run(make_config(), tmp_path)  # Goes on from the checkpoint.
  state = state_of(run)
  assert state['steps'] == 6
  # The recursion over what both parts have logged gives the same state.
  p = i = 0.0
  for row in run.metrics('train'):
    error = 0.9 - row['open']
    p, i = 0.9 * p + 0.1 * 4 * error, i + 0.5 * error
    assert row['penalty'] <= 0
  np.testing.assert_allclose(state['proportional'], p, rtol=1e-5)
  np.testing.assert_allclose(state['integral'], i, rtol=1e-5)


@pytest.mark.slow
def test_microbatches_advance_a_controller_once(tmp_path):
  one = train.run(make_config(steps=2), tmp_path / 'one')
  two = train.run(make_config(steps=2, num_microbatches=2), tmp_path / 'two')
  a, b = state_of(one), state_of(two)
  assert a['steps'] == b['steps'] == 2
  # Sums over half batches, in another order.
  np.testing.assert_allclose(a['integral'], b['integral'], rtol=1e-5)

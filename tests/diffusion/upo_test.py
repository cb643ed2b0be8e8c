# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One token per call, near a rule: against enumeration of all orders."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from jaxtok.diffusion import policy, rl, rollout, samplers, selectors, upo

T, MASK = 3, 5
ORDERS = np.asarray(list(itertools.permutations(range(T))))
SMALL = policy.Config(hidden=8, mlp_dim=8, time_dim=8)
ONE = policy.OneToken()
TABLE = jax.random.normal(jax.random.key(1), (T, MASK))


def denoiser(tokens_bt):
  """Logits that depend on what is revealed, so that orders differ."""
  known_b1 = (tokens_bt != MASK).sum(-1, keepdims=True)
  other_bt = known_b1 - (tokens_bt != MASK)
  return TABLE * (1 + 0.7 * other_bt[..., None])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InOrder:
  """Reveals the positions of each row in a given order."""

  order_bt: jax.Array

  def __call__(self, view):
    step_b = (~view.is_masked_bt).sum(-1)
    at_b = jnp.take_along_axis(self.order_bt, step_b[:, None], axis=1)[:, 0]
    return jax.nn.one_hot(at_b, T, dtype=bool)


@pytest.fixture(scope='module')
def every_order():
  """A record in which row i takes the i-th order."""
  model = SMALL.make(nnx.Rngs(0))
  model.head.kernel[...] = 8 * model.head.kernel[...]  # Far from uniform.
  masked_bt = jnp.ones(ORDERS.shape, bool)
  played = jax.jit(
    lambda: rollout.play(
      denoiser,
      samplers.start(jnp.zeros_like(ORDERS), masked_bt, MASK),
      model,
      samplers.row_rngs(jax.random.key(0), len(ORDERS)),
      prompt_len=0,
      mask_id=MASK,
      actions=ONE,
      expert=InOrder(jnp.asarray(ORDERS)),
      is_expert_b=jnp.ones(len(ORDERS), bool),
    )
  )()
  np.testing.assert_array_equal(
    np.asarray(played.canvas.reveal_step_bt).argsort(-1), ORDERS
  )
  return model, played


def log_orders(model, played):
  """Log-probability of each order under a policy, [b]."""
  at = lambda step: rollout.log_probs(model, played, step, ONE)[0]
  return sum(at(step) for step in range(T))


def log_references(played, reference, temperature):
  """The same of a rule, in NumPy, from its definition."""
  total_b = np.zeros(len(ORDERS))
  for row, order in enumerate(ORDERS):
    for step, place in enumerate(order):
      left = list(order[step:])
      confidence_t = np.asarray(played.confidence_sbtp[step, row, :, 0])
      score = confidence_t[left] / temperature
      if reference is upo.Reference.TOP_K:
        score = 0 * score
      total_b[row] += score[left.index(place)] - np.log(np.exp(score).sum())
  return total_b


def test_orders_are_as_probable_as_said(every_order):
  model, played = every_order
  log_p_b = log_orders(model, played)
  assert float(jnp.exp(log_p_b).sum()) == pytest.approx(1, abs=1e-5)
  np.testing.assert_allclose(log_p_b, played.log_prob_sb.sum(0), atol=1e-5)


@pytest.mark.parametrize(
  'reference', [upo.Reference.TOP_K, upo.Reference.SOFTMAX]
)
def test_the_gradient_is_that_of_the_divergence_of_orders(
  reference, every_order
):
  model, played = every_order
  near = upo.Config(
    kl=1.0, reference=reference, temperature=0.3, num_candidates=T
  )
  log_q_b = log_references(played, reference, 0.3)
  log_p_b = played.log_prob_sb.sum(0)
  excess_b = near.excess(played)
  np.testing.assert_allclose(excess_b, log_p_b - log_q_b, atol=1e-5)
  graphdef, params = nnx.split(model)

  def divergence(params):
    log_b = log_orders(nnx.merge(graphdef, params), played)
    return (jnp.exp(log_b) * (log_b - log_q_b)).sum()

  # Each order stands in the batch once, so its advantage has to hold its
  # probability, and undo the means over rows and over steps.
  config = rl.Config(
    likelihood=rl.Likelihood.ONE_TOKEN, alpha=0.0, num_prompts=1, group=6
  )
  p_b = jnp.exp(log_p_b)
  advantage_sb = jnp.tile(-excess_b * p_b * len(ORDERS) * T, (T, 1))
  none_b = jnp.zeros(len(ORDERS), bool)
  _, got = rl.loss_and_gradient(
    graphdef, params, played, advantage_sb, none_b, config
  )
  want = jax.grad(divergence)(params)
  # Float32 sums over six orders of terms of at most 4 nats.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, want
  )
  assert max(abs(x).max() for x in jax.tree.leaves(want)) > 1e-2


def test_updates_without_a_reward_lead_to_the_reference(every_order):
  model, played = every_order
  near = upo.Config(kl=1.0, temperature=0.3)
  config = rl.Config(
    likelihood=rl.Likelihood.ONE_TOKEN,
    alpha=0.0,
    near=near,
    steps=60,
    num_prompts=8,
    lr=1e-2,
  )
  frozen = jax.tree_util.Partial(denoiser)
  all_right = lambda rows: np.ones(len(rows), bool)
  trainer = rl.Trainer(config, frozen, all_right, 0, MASK, model)
  log_q_b = log_references(played, upo.Reference.SOFTMAX, 0.3)

  def divergence():
    log_b = np.asarray(log_orders(trainer.current(), played), float)
    return float((np.exp(log_b) * (log_b - log_q_b)).sum())

  before = divergence()
  rows = np.zeros((8, T), np.int32)
  for step in range(60):
    trainer.update(rows, jax.random.key(step))
  # Every answer is right: the reference is all there is to learn.
  assert divergence() < 0.3 * before


def test_the_cross_entropy_is_that_of_the_most_confident_position():
  logits_bt = jnp.asarray([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
  confidence_bt = jnp.asarray([[0.9, 0.3, 0.5], [0.9, 0.5, 0.5], [0.9, 0, 0]])
  allowed_bt = jnp.asarray(
    [[True, True, True], [False, True, True], [False, False, False]]
  )
  got = upo.cross_entropy(logits_bt, confidence_bt, allowed_bt)
  of_all = np.log(1 + np.e + np.e**2)
  of_two = np.log(np.e + np.e**2)
  # The second row has two that are as confident: half of each.
  np.testing.assert_allclose(got, [of_all, of_two - 1.5, 0], atol=1e-6)


def test_cross_entropy_alone_ends_at_the_most_confident_position(every_order):
  model, played = every_order
  config = rl.Config(
    likelihood=rl.Likelihood.ONE_TOKEN,
    alpha=0.0,
    near=upo.Config(kl=1.0, reference=upo.Reference.CONFIDENCE),
  )
  graphdef, params = nnx.split(model)
  zero_sb = jnp.zeros((T, len(ORDERS)))
  step = jax.jit(
    lambda params: rl.loss_and_gradient(
      graphdef, params, played, zero_sb, jnp.zeros(len(ORDERS), bool), config
    )
  )
  before, _ = step(params)
  for _ in range(150):
    _, grads = step(params)
    params = jax.tree.map(lambda x, g: x - 0.3 * g, params, grads)
  after, _ = step(params)
  assert after < 0.3 * before
  assert config.near.excess(played) == 0.0


def test_one_token_is_drawn_from_the_softmax_of_what_is_allowed():
  logits_t = jnp.asarray([1.0, -1.0, 0.5, 3.0])
  allowed_t = jnp.asarray([True, True, True, False])
  num = 4000
  tile = lambda x: jnp.broadcast_to(x, (num, 4))
  rngs_b = samplers.row_rngs(jax.random.key(0), num)
  args = tile(logits_t), tile(allowed_t), rngs_b
  for temperature in (1.0, 2.0):
    drawn_bt = np.asarray(ONE.reveal(*args, temperature))
    assert (drawn_bt.sum(-1) == 1).all()
    p = np.asarray(jax.nn.softmax(logits_t[:3] / temperature), float)
    found = drawn_bt.sum(0)
    assert found[3] == 0
    test = stats.chisquare(found[:3], num * p / p.sum())
    assert test.pvalue > 1e-3
  nothing = ONE.sample(tile(logits_t), tile(jnp.zeros(4, bool)), rngs_b)
  assert not nothing.any()
  log_p = ONE.log_prob(tile(logits_t), nothing, tile(jnp.zeros(4, bool)))
  np.testing.assert_array_equal(log_p, 0)


def test_candidates_are_the_most_confident_of_what_is_allowed():
  p_t = jnp.asarray([0.9, 0.6, 0.8, 0.7])
  view = selectors.View(
    probs_btv=jnp.stack([p_t, 1 - p_t], -1)[None],
    tokens_bt=jnp.zeros((1, 4), int),
    is_masked_bt=jnp.ones((1, 4), bool),
    allowed_bt=jnp.asarray([[False, True, True, True]]),
    progress_b=jnp.zeros(1),
    rngs_b=samplers.row_rngs(jax.random.key(0), 1),
  )
  got = rollout.candidates(view, 2).allowed_bt
  np.testing.assert_array_equal(got, [[False, False, True, True]])
  assert rollout.candidates(view, 0) is view
  inside = rollout.OfMostConfident(lambda view: view.allowed_bt, 2)
  np.testing.assert_array_equal(inside(view), got)


@pytest.mark.parametrize(
  ('fields', 'match'),
  [
    (dict(kl=-1.0), r'upo\.kl=-1\.0'),
    (dict(temperature=0.0), 'temperature=0.0 > 0'),
    (
      dict(kl=0.1, reference=upo.Reference.TOP_K),
      r'num_candidates=0 must be >= 1',
    ),
  ],
)
def test_references_that_cannot_be_are_refused(fields, match):
  with pytest.raises(ValueError, match=match):
    upo.Config(**fields)


def test_a_reference_needs_one_token_and_no_pressure():
  with pytest.raises(ValueError, match=r"must be 0 with rl\.likelihood='bern"):
    rl.Config(near=upo.Config(kl=0.1))
  with pytest.raises(ValueError, match=r'alpha=2\.0 must be 0'):
    rl.Config(likelihood=rl.Likelihood.ONE_TOKEN)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The policy's size, and its action distributions by enumeration."""

import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import policy, selectors

LOGITS = np.array([0.7, -1.1, 2.0, 0.3], np.float32)


def test_the_published_size_has_331265_parameters():
  shape = nnx.eval_shape(lambda: policy.Config().make(nnx.Rngs(0)))
  leaves = jax.tree.leaves(nnx.state(shape, nnx.Param))
  assert sum(np.prod(x.shape, dtype=int) for x in leaves) == 331_265


def reference(model, confidence, is_masked, progress):
  """The published network at its published size, in NumPy float64."""
  full = lambda x: np.asarray(x[...], np.float64)
  linear = lambda layer, x: x @ full(layer.kernel) + full(layer.bias)
  b, t, _ = confidence.shape
  width, heads = 128, 2

  def normal(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * full(layer.scale) + full(layer.bias)

  def rotated(x):
    """Pairs (i, i + 32) as complex numbers, turned by their position."""
    pairs = x[..., :32] + 1j * x[..., 32:]
    turn = np.arange(t)[:, None] / 10_000.0 ** (np.arange(32) / 32)
    pairs = pairs * np.exp(1j * turn)[:, None]
    return np.concatenate([pairs.real, pairs.imag], axis=-1)

  # With a period of 1 all 64 frequencies are 1.
  wave = np.repeat([np.cos(progress), np.sin(progress)], 64, axis=0).T
  time = linear(model.time_in, wave)
  time = linear(model.time_out, time / (1 + np.exp(-time)))
  cond = full(model.mask_embed.embedding)[is_masked.astype(int)]
  parts = linear(model.modulation, cond + time[:, None])
  parts = np.moveaxis(parts.reshape(b, t, 6, width), 2, 0)
  x = linear(model.confidence, confidence.astype(np.float64))

  z = normal(model.norm_1, x) * (1 + parts[0]) + parts[1]
  split = lambda layer: linear(layer, z).reshape(b, t, heads, -1)
  q, k = rotated(split(model.query)), rotated(split(model.key))
  v = split(model.value)
  mixed = np.zeros((b, t, heads, 64))
  for row, i, head in np.ndindex(b, t, heads):
    score = k[row, :, head] @ q[row, i, head] / 8
    weight = np.exp(score - score.max())
    mixed[row, i, head] = weight / weight.sum() @ v[row, :, head]
  x = x + (1 + parts[2]) * linear(model.out, mixed.reshape(b, t, width))

  z = normal(model.norm_2, x) * (1 + parts[3]) + parts[4]
  up = linear(model.mlp_up, z)
  gelu = up * (1 + np.vectorize(math.erf)(up / math.sqrt(2))) / 2
  x = x + (1 + parts[5]) * linear(model.mlp_down, gelu)
  return linear(model.head, normal(model.norm_out, x))[..., 0]


def test_the_published_network_equals_one_in_numpy():
  model, rng = policy.Config().make(nnx.Rngs(0)), np.random.default_rng(0)
  # Zero at the start: gates, scales and biases would not be seen.
  noisy = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
  nnx.update(model, jax.tree.map(noisy, nnx.state(model, nnx.Param)))
  b, t = 3, 9
  confidence = rng.random((b, t, 1)).astype(np.float32)
  is_masked = rng.random((b, t)) < 0.5
  progress = rng.random(b).astype(np.float32)
  got = model(*map(jnp.asarray, (confidence, is_masked, progress)))
  want = reference(model, confidence, is_masked, progress)
  assert want.std() > 0.1
  # Each float32 sum rounds by eps / 2; up to 512 of them in each of ten layers,
  # independent of each other, so that their squares add.
  size = np.abs(want).max()
  atol = math.sqrt(10 * 512) * np.finfo(np.float32).eps / 2 * size
  np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize('zeroed', list(policy.Zeroed), ids=lambda z: z.value)
def test_an_input_that_is_zeroed_changes_nothing(zeroed):
  config = policy.Config(hidden=8, mlp_dim=8, time_dim=8, zeroed=zeroed)
  model, rng = config.make(nnx.Rngs(0)), np.random.default_rng(0)
  # Time and mask come in through what is zero at the start.
  noisy = lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32)
  nnx.update(model, jax.tree.map(noisy, nnx.state(model, nnx.Param)))
  confidence = jnp.asarray(rng.random((2, 5, 1)), jnp.float32)
  mask, time = jnp.asarray(rng.random((2, 5)) < 0.5), jnp.full(2, 0.75)
  got = model(confidence, mask, time)
  same = lambda other: np.allclose(got, other, atol=1e-6)
  assert same(model(confidence, mask, time / 3)) == (
    zeroed is policy.Zeroed.TIME
  )
  assert same(model(confidence, ~mask, time)) == (zeroed is policy.Zeroed.MASK)
  assert not same(model(1 - confidence, mask, time))


@pytest.mark.parametrize('allowed', [(1, 1, 1, 1), (1, 0, 1, 1)])
def test_bernoulli_probabilities_sum_to_one(allowed):
  allowed = np.array(allowed, bool)
  actions = np.array(list(itertools.product([0, 1], repeat=4)), bool)
  actions = np.unique(actions & allowed, axis=0)
  n = len(actions)
  got = policy.bernoulli_log_prob(
    jnp.tile(LOGITS, (n, 1)), jnp.asarray(actions), jnp.tile(allowed, (n, 1))
  )
  p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
  want = np.where(allowed, np.where(actions, p, 1 - p), 1).prod(-1)
  np.testing.assert_allclose(np.exp(got), want, rtol=1e-5)
  assert np.exp(np.asarray(got, np.float64)).sum() == pytest.approx(1, abs=1e-5)


def ordered_sets(allowed):
  places = np.flatnonzero(allowed)
  orders = [
    order
    for k in range(1, len(places) + 1)
    for order in itertools.permutations(places, k)
  ]
  padded = [[*order, *([-1] * (len(allowed) - len(order)))] for order in orders]
  return np.array(padded)


def dpls_oracle(order, allowed):
  """The definition, in float64."""
  weight = np.exp(LOGITS.astype(np.float64)) * allowed
  drawn = [i for i in order if i >= 0]
  p = weight[drawn[0]] / weight.sum()
  left = weight.copy()
  left[drawn[0]] = 0
  for i in drawn[1:]:
    p *= left[i] / (left.sum() + 1)
    left[i] = 0
  return p / (left.sum() + 1)


@pytest.mark.parametrize('allowed', [(1, 1, 1, 1), (1, 0, 1, 1)])
def test_plackett_luce_probabilities_sum_to_one(allowed):
  allowed = np.array(allowed, bool)
  orders = ordered_sets(allowed)
  n = len(orders)
  got = policy.dpls_log_prob(
    jnp.tile(LOGITS, (n, 1)), jnp.asarray(orders), jnp.tile(allowed, (n, 1))
  )
  want = [dpls_oracle(order, allowed) for order in orders]
  np.testing.assert_allclose(np.exp(got), want, rtol=1e-5)
  assert np.exp(np.asarray(got, np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_plackett_luce_samples_follow_their_probabilities():
  n, allowed = 20_000, np.array([True, False, True, True])
  rngs = jax.random.split(jax.random.key(0), n)
  drawn = np.asarray(
    policy.dpls_sample(
      jnp.tile(LOGITS, (n, 1)), jnp.tile(allowed, (n, 1)), rngs
    )
  )
  counts = collections.Counter(map(tuple, drawn.tolist()))
  orders = ordered_sets(allowed)
  want = n * np.array([dpls_oracle(order, allowed) for order in orders])
  got = np.array([counts.pop(tuple(order), 0) for order in orders.tolist()])
  assert not counts
  assert want.min() > 5
  chi2 = ((got - want) ** 2 / want).sum()
  # 15 outcomes: the 0.999 quantile of chi-square with 14 degrees is 36.1.
  assert len(want) == 15
  assert chi2 < 36.1


@pytest.mark.parametrize('top_p', [5, 6])
def test_more_probabilities_than_tokens_are_refused_by_name(top_p):
  config = policy.Config(hidden=8, mlp_dim=8, time_dim=8, top_p=top_p)
  probs = jax.nn.softmax(jnp.arange(10.0).reshape(1, 2, 5))
  view = selectors.View(
    probs_btv=probs,
    tokens_bt=probs.argmax(-1),
    is_masked_bt=jnp.ones((1, 2), bool),
    allowed_bt=jnp.ones((1, 2), bool),
    progress_b=jnp.zeros(1),
    rngs_b=jax.random.split(jax.random.key(0), 1),
  )
  selector = policy.Policy(config.make(nnx.Rngs(0)))
  if top_p == 5:
    assert selector(view).any()
    return
  with pytest.raises(
    ValueError, match=r'policy\.model\.top_p=6 must be at most 5, the size of'
  ):
    selector(view)


def test_rows_without_choice_draw_nothing_at_no_cost():
  none = jnp.zeros((1, 4), bool)
  logits = jnp.asarray(LOGITS)[None]
  order = policy.dpls_sample(
    logits, none, jax.random.split(jax.random.key(0), 1)
  )
  assert order.tolist() == [[-1] * 4]
  assert policy.dpls_log_prob(logits, order, none).tolist() == [0]
  assert policy.bernoulli_log_prob(logits, none, none).tolist() == [0]


@pytest.mark.parametrize('actions', [policy.Bernoulli(), policy.PlackettLuce()])
def test_a_policy_is_a_selector(actions):
  b, t, v = 40, 6, 5
  keys = jax.random.split(jax.random.key(2), 3)
  allowed = jax.random.bernoulli(keys[0], 0.4, (b, t))
  probs = jax.nn.softmax(3 * jax.random.normal(keys[1], (b, t, v)))
  view = selectors.View(
    probs_btv=probs,
    tokens_bt=probs.argmax(-1),
    is_masked_bt=allowed,
    allowed_bt=allowed,
    progress_b=jnp.full(b, 0.5),
    rngs_b=jax.random.split(keys[2], b),
  )
  config = policy.Config(hidden=8, mlp_dim=8, time_dim=8, top_p=2)
  model = config.make(nnx.Rngs(0))
  got = np.asarray(policy.Policy(model, actions=actions)(view))
  assert not (got & ~np.asarray(allowed)).any()
  np.testing.assert_array_equal(got.any(-1), np.asarray(allowed).any(-1))
  alone = policy.Policy(model, actions=actions)(
    jax.tree.map(lambda x: x[3:4], view)
  )
  np.testing.assert_array_equal(np.asarray(alone), got[3:4])
  # Weights of 1e9 against 1: STOP comes before another in 1e-8 of the rows.
  every = policy.Policy(model, scale=1e9, actions=actions)(view)
  np.testing.assert_array_equal(np.asarray(every), np.asarray(allowed))

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which tokens are hidden, how often, and what is charged for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base
from jaxtok.objectives import masked_lm

B, T, V, FIRST, MASK = 4, 16, 20, 5, 4


class Probe(nnx.Module):
  """States are free parameters; remembers nothing of its input."""

  class config:
    vocab_size = V

  def __init__(self):
    key = jax.random.key(0)
    self.states = nnx.Param(jax.random.normal(key, (B, T, V)))

  def __call__(self, tokens_bt, **kwargs):
    del tokens_bt, kwargs
    return base.Output(self.states[...])

  def logits(self, hidden):
    return hidden


def make_batch(b=B, t=T):
  rng = np.random.default_rng(0)
  tokens = rng.integers(FIRST, V, (b, t))
  tokens[:, 0], tokens[:, 7] = 1, 2  # Special.
  segments = np.ones((b, t), np.int32)
  segments[:, 8:], segments[:, -3:] = 2, 0
  return {
    'tokens_bt': jnp.asarray(tokens, jnp.int32),
    'targets_bt': jnp.zeros((b, t), jnp.int32),
    'loss_mask_bt': jnp.ones((b, t)),
    'segment_ids_bt': jnp.asarray(segments),
    'positions_bt': jnp.broadcast_to(jnp.arange(t), (b, t)),
    'num_bytes_bt': jnp.asarray(rng.integers(1, 6, (b, t)), jnp.int32),
  }


def near(count, num, probability):
  """Within 4.5 standard errors: a false alarm in 150 thousand tests."""
  error = np.sqrt(probability * (1 - probability) / num)
  assert abs(count / num - probability) < 4.5 * error


def test_a_share_is_chosen_and_of_it_most_are_masked():
  config = masked_lm.Config(first_id=FIRST)
  batch = make_batch(200, 200)
  found = config.make().corrupt(batch, V, jax.random.key(1))
  before, after = np.asarray(batch['tokens_bt']), np.asarray(found.tokens_bt)
  chosen = np.asarray(found.is_chosen_bt)
  can = (before >= FIRST) & (np.asarray(batch['segment_ids_bt']) > 0)
  assert not (chosen & ~can).any()
  np.testing.assert_array_equal(before[~chosen], after[~chosen])
  near(chosen.sum(), can.sum(), 0.15)
  num = chosen.sum()
  near((after[chosen] == MASK).sum(), num, 0.8)
  # A random token is the old one in 1 of 15 cases.
  near((after[chosen] == before[chosen]).sum(), num, 0.1 + 0.1 / 15)
  drawn = after[chosen & (after != MASK) & (after != before)]
  assert (drawn >= FIRST).all()
  assert set(drawn) == set(range(FIRST, V))


@pytest.mark.parametrize('span', [2, 6])
def test_spans_choose_the_same_share_in_runs(span):
  can = jnp.ones((64, 500), bool)
  chosen = np.asarray(masked_lm.choose(can, 0.15, span, jax.random.key(0)))
  # Places a span apart are independent: their number is the sample size.
  near(chosen.mean() * chosen.size / span, chosen.size / span, 0.15)
  edge = np.diff(chosen[:, span:-span].astype(int), axis=1)
  for row in range(64):
    begins, ends = (
      np.flatnonzero(edge[row] == 1),
      np.flatnonzero(edge[row] == -1),
    )
    if len(begins) and len(ends):
      ends = ends[ends > begins[0]]
      lengths = ends - begins[: len(ends)]
      assert (lengths >= span).all()


def test_the_loss_is_the_cross_entropy_of_the_chosen_tokens():
  batch, model, rng = make_batch(), Probe(), jax.random.key(3)
  objective = masked_lm.Config(first_id=FIRST, rate=0.5).make()
  loss = nnx.jit(objective)(model, batch, rng)
  chosen = np.asarray(
    objective.corrupt(batch, V, jax.random.split(rng)[0]).is_chosen_bt
  )
  x = np.asarray(model.states[...], np.float64)
  nats = np.log(np.exp(x).sum(-1))
  tokens = np.asarray(batch['tokens_bt'])
  nats -= np.take_along_axis(x, tokens[..., None], -1)[..., 0]
  assert loss.weight == chosen.sum() > 0
  np.testing.assert_allclose(loss.sum_nats, nats[chosen].sum(), rtol=1e-5)
  # A token is charged where it is a target, one place before; the first one of
  # a row or document is not.
  segments = np.asarray(batch['segment_ids_bt'])
  charges = np.zeros((B, T))
  for b in range(B):
    for t in range(1, T):
      if segments[b, t] == segments[b, t - 1]:
        charges[b, t] = batch['num_bytes_bt'][b, t - 1]
  bits = loss.metrics['bits_per_masked_base']
  assert bits.weight == charges[chosen].sum()
  known = chosen & (charges > 0)
  np.testing.assert_allclose(
    bits.total, nats[known].sum() / np.log(2), rtol=1e-5
  )
  assert loss.metrics['mask_rate'].weight == (segments > 0).sum()


def test_tokens_that_are_not_chosen_have_no_gradient():
  batch, rng = make_batch(), jax.random.key(3)
  objective = masked_lm.Config(first_id=FIRST, rate=0.5).make()
  graph, params = nnx.split(Probe())
  loss = lambda p: objective(nnx.merge(graph, p), batch, rng).sum_nats
  grad = jax.jit(jax.grad(loss))(params)
  chosen = objective.corrupt(batch, V, jax.random.split(rng)[0]).is_chosen_bt
  norms = np.abs(grad.states.get_value()).max(-1)
  np.testing.assert_array_equal(norms > 0, chosen)


def test_rows_add_up_over_samples():
  batch, model = make_batch(), Probe()
  objective = masked_lm.Config(first_id=FIRST, rate=0.5, eval_samples=3).make()
  rng = jax.random.key(5)
  rows = objective.per_row(model, batch, rng)
  num = sum(
    objective.corrupt(batch, V, key).is_chosen_bt.sum(1)
    for key in jax.random.split(rng, 3)
  )
  np.testing.assert_array_equal(rows['nats'].weight, num)
  assert rows['nats'].total.shape == (B,)


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(rate=0.0), 'rate=0.0 must be in'),
    (dict(mask_share=0.95), 'sum to at most 1'),
    (dict(mask_id=5), 'mask_id=5 must be in'),
    (dict(span=0), 'span=0'),
  ],
)
def test_impossible_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    masked_lm.Config(**fields)

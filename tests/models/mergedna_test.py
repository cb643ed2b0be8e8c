# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MergeDNA: counts of tokens, owners, gradients, what reaches the decoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, mergedna
from jaxtok.nn import rate_control
from jaxtok.objectives import merged_tokens
from jaxtok.train import flops
from tests.conformance import model_suite

B, T = 2, 48
SMALL = dict(
  vocab_size=10,
  dim=16,
  num_heads=2,
  num_local=2,
  num_latent=2,
  num_latent_decoder=1,
  num_local_decoder=1,
  window=8,
  group_dim=8,
)


def make_batch():
  rng = np.random.default_rng(0)
  tokens = rng.integers(5, 9, (B, T))
  tokens[:, 0] = 1  # Special.
  segments = np.ones((B, T), np.int32)
  segments[1, 40:] = 0
  return {
    'tokens_bt': jnp.asarray(tokens, jnp.int32),
    'segment_ids_bt': jnp.asarray(segments),
  }


SUITE = SMALL | dict(
  vocab_size=model_suite.VOCAB, mask_id=2, max_offset=4, window=16
)


class TestMerging(model_suite.ModelSuite):
  # Pairs are counted per row. Which they are does not depend on states, so
  # that what else a document could depend on is seen.
  case = model_suite.Case(
    mergedna.Config(**SUITE, learns_groups=False), is_causal=False
  )

  def test_documents_of_a_row_do_not_see_each_other(self, subject):
    """Other tokens in one document change nothing in the other."""
    tokens = subject.tokens % 20 + 4  # All may be merged.
    documents = jnp.repeat(jnp.asarray([[1, 2]]), 6, axis=1)
    both = jnp.broadcast_to(documents, tokens.shape)
    other = tokens.at[:, 6:].set(tokens[:, 6:] % 19 + 5)
    want = subject.logits(subject.params, tokens, None, both)
    got = subject.logits(subject.params, other, None, both)
    np.testing.assert_allclose(got[:, :6], want[:, :6], atol=1e-5)
    assert np.abs(got[:, 6:] - want[:, 6:]).max() > 0.01


class TestWithoutMerges(model_suite.ModelSuite):
  # What is left when nothing is shared: documents are as alone.
  case = model_suite.Case(
    mergedna.Config(
      **SUITE,
      learns_groups=False,
      target=rate_control.Random(mean=1.0, low=1.0, high=1.0),
    ),
    is_causal=False,
  )


@pytest.mark.slow  # As above, by learned scores.
class TestLearnedGroups(TestMerging):
  case = model_suite.Case(mergedna.Config(**SUITE), is_causal=False)

  def test_documents_of_a_row_do_not_see_each_other(self, subject):
    pytest.skip('The best pairs are those of a row.')


class Subject:
  """A model, and its calls compiled once."""

  def __init__(self, **fields):
    self.config = mergedna.Config(**SMALL | fields)
    self.model = self.config.make(nnx.Rngs(0))
    self.graph, self.params, self.rest = nnx.split(self.model, nnx.Param, ...)
    self.objective = merged_tokens.Config().make()
    self.grad = jax.jit(jax.grad(self._loss, has_aux=True))

  def _loss(self, params, batch, rng):
    model = nnx.merge(self.graph, params, self.rest)
    loss = self.objective(model, batch, rng)
    return loss.sum_nats, loss

  def encode(self, batch, share):
    @nnx.jit
    def run(model, share):
      return model.encode(batch['tokens_bt'], batch['segment_ids_bt'], share)

    return run(self.model, share)


@pytest.fixture(scope='module')
def subject():
  return Subject()


@pytest.mark.parametrize('share', [0.5, 0.55, 0.6])
def test_as_many_tokens_are_left_as_asked_for(subject, share):
  batch = make_batch()
  local = subject.encode(batch, share)
  lengths = np.asarray(batch['segment_ids_bt']).sum(1)
  removed = np.round((1 - np.float32(share)) * lengths)
  np.testing.assert_array_equal(local.tokens.num_b, lengths - removed)
  assert not np.asarray(local.overflow_b).any()
  owner = np.asarray(local.owner_bt)
  for b, length in enumerate(lengths):
    # Tokens are runs of bases, in order, and their sizes count them.
    assert (owner[b, length:] == -1).all()
    assert set(np.diff(owner[b, :length])) <= {0, 1}
    counts = np.bincount(owner[b, :length])
    np.testing.assert_array_equal(
      counts, np.asarray(local.tokens.size_bw)[b, : len(counts)]
    )
    assert counts[0] == 1  # A special token stays alone.
    firsts = np.flatnonzero(np.diff(owner[b, :length], prepend=-1))
    np.testing.assert_array_equal(
      firsts, np.asarray(local.tokens.first_bw)[b, : len(counts)]
    )


def test_every_parameter_learns(subject):
  grads, loss = subject.grad(subject.params, make_batch(), jax.random.key(1))
  for path, x in nnx.to_flat_state(grads):
    value = x.get_value()
    assert jnp.isfinite(value).all(), path
    assert (value != 0).any(), path
  metrics = {name: float(mean.value) for name, mean in loss.metrics.items()}
  assert 0 < metrics['mask_rate'] < 1
  assert metrics['overflow'] == metrics['latent_overflow'] == 0
  assert 0.35 < metrics['tokens_per_base'] < 0.65


@pytest.mark.slow  # Compiles a program of its own.
def test_every_parameter_learns_by_soft_top_k():
  subject = Subject(relaxation='top_k')
  grads, loss = subject.grad(subject.params, make_batch(), jax.random.key(1))
  for path, x in nnx.to_flat_state(grads):
    value = x.get_value()
    assert jnp.isfinite(value).all(), path
    assert (value != 0).any(), path
  assert float(loss.metrics['overflow'].value) == 0


@pytest.mark.slow  # Compiles programs of its own.
def test_the_second_pass_gives_the_local_encoder_no_gradient(subject):
  batch = make_batch()

  def loss(params, merges):
    model = nnx.merge(subject.graph, params, subject.rest)
    tokens, segments = batch['tokens_bt'], batch['segment_ids_bt']
    local = model.encode(tokens, segments, 0.5)
    if merges:
      fixed = jax.lax.stop_gradient(local.tokens)
      local = local._replace(tokens=fixed)
    states = model.latent(local.tokens, merges=merges).states_bwd
    return model.decode(states, local, segments).sum()

  grad = jax.jit(jax.grad(loss), static_argnums=1)
  norm = lambda g: float(
    sum(jnp.abs(x).sum() for x in jax.tree.leaves(g['local_encoder']))
  )
  assert norm(grad(subject.params, False)) > 0
  assert norm(grad(subject.params, True)) == 0


def test_only_latent_states_reach_the_decoder(subject):
  """The states of the local encoder are not read, only owners are."""
  batch = make_batch()
  local = subject.encode(batch, 0.5)
  states = jax.random.normal(jax.random.key(0), local.tokens.x_bwd.shape)
  moved = dataclasses.replace(local.tokens, x_bwd=local.tokens.x_bwd + 1)
  decode = nnx.jit(lambda m, *args: m.decode(*args, batch['segment_ids_bt']))
  want = decode(subject.model, states, local)
  got = decode(subject.model, states, local._replace(tokens=moved))
  np.testing.assert_array_equal(got, want)


def test_padding_changes_nothing(subject):
  batch = make_batch()
  noise = batch['tokens_bt'].at[1, 40:].set(7)
  call = nnx.jit(lambda m, t: m(t, segment_ids=batch['segment_ids_bt']))
  want = call(subject.model, batch['tokens_bt']).hidden_btd
  got = call(subject.model, noise).hidden_btd
  np.testing.assert_array_equal(got[:, :40], want[:, :40])


@pytest.mark.parametrize(
  'scope', ['window', pytest.param('sequence', marks=pytest.mark.slow)]
)
def test_a_cold_soft_top_k_merges_as_the_hard_choice_does(scope):
  """Its rounds rank the pairs that the choice ranks, and are enough."""
  batch = make_batch()
  fields = dict(scope=scope, window=16, num_local=1)
  hard = Subject(**fields).encode(batch, 0.8)
  fields |= dict(relaxation='top_k', temperature=1e-6)
  soft = Subject(**fields).encode(batch, 0.8)
  np.testing.assert_array_equal(soft.owner_bt, hard.owner_bt)
  np.testing.assert_allclose(soft.tokens.x_bwd, hard.tokens.x_bwd, atol=1e-4)


def test_rounds_of_soft_top_k_are_the_pairs_that_are_to_go_by_then():
  config = mergedna.Config(**SMALL | dict(num_local=4, window=16))
  # 60 % of 64 may go, a quarter of them in each layer; half of the 52 and 46
  # tokens that the last two layers have room for.
  most = [config.most_pairs(64, i) for i in range(4)]
  assert most == [9, 19, 26, 23]
  config = dataclasses.replace(config, scope='window')
  assert [config.most_pairs(64, i) for i in range(4)] == [8] * 4


@pytest.mark.slow  # Compiles programs of its own.
def test_soft_weights_and_random_pairs_are_other_models(subject):
  batch = make_batch()
  hard = subject.encode(batch, 0.5)
  soft = Subject(relaxation='top_k').encode(batch, 0.5)
  # The same pairs of the first layer, other averages.
  differ = np.abs(np.asarray(hard.tokens.x_bwd - soft.tokens.x_bwd))
  assert differ.max() > 1e-4
  chance = Subject(learns_groups=False)
  owner = np.asarray(chance.encode(batch, 0.5).owner_bt)
  assert not np.array_equal(owner, np.asarray(hard.owner_bt))
  names = ['.'.join(map(str, p)) for p, _ in nnx.to_flat_state(chance.params)]
  assert not any('group' in name for name in names)


def test_training_draws_the_share_and_evaluation_takes_the_mean(subject):
  model = subject.config.make(nnx.Rngs(0))
  shares = set()
  for _ in range(40):
    shares.add(round(float(model.share(True)), 3))
    model.advance({})
  assert {0.45, 0.5, 0.55} <= shares <= {0.4, 0.45, 0.5, 0.55, 0.6}
  assert float(model.share(False)) == 0.5


@pytest.mark.slow  # Compiles programs of its own.
def test_rows_report_what_the_batch_does(subject):
  rows = nnx.jit(subject.objective.per_row)(
    subject.model, make_batch(), jax.random.key(0)
  )
  assert rows['accuracy'].total.shape == (B,)
  np.testing.assert_array_equal(rows['nats'].weight, [T - 1, 39])
  np.testing.assert_allclose(rows['tokens_per_base'].value, 0.5, atol=0.02)


def test_flops_are_those_that_xla_counts():
  config = mergedna.Config(
    **SMALL | dict(vocab_size=64, dim=64, window=16, vocab_multiple=1)
  )
  tokens = jnp.full((4, 128), 6)
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  ours = sum(model.flops(base.Shape(b=4, t=128)).values())
  theirs = model_suite.xla_flops(config, tokens)
  # XLA counts norms, softmax, sorts and averages too.
  assert 1 <= theirs / ours <= 1.1


def test_flops_of_a_step_are_those_of_its_three_passes():
  config = mergedna.Config(
    **SMALL | dict(vocab_size=64, dim=64, window=16, vocab_multiple=1)
  )
  objective = merged_tokens.Config().make()
  graph, state = nnx.split(nnx.eval_shape(lambda: config.make(nnx.Rngs(0))))
  batch = {
    'tokens_bt': jnp.full((4, 128), 6),
    'segment_ids_bt': jnp.ones((4, 128), jnp.int32),
  }

  def loss(state):
    model = nnx.merge(graph, state)
    return objective(model, batch, jax.random.key(0)).sum_nats

  theirs = jax.jit(loss).lower(state).cost_analysis()['flops']
  model, shape = nnx.merge(graph, state), base.Shape(b=4, t=128)
  parts = objective.flops(model, shape)
  # XLA counts norms, softmax, sorts and averages too.
  assert 1 <= theirs / sum(parts.values()) <= 1.15
  one = model.flops(shape)
  assert 2 < sum(parts.values()) / sum(one.values()) < 3
  assert parts['local'] == 2 * one['local']
  assert parts['head'] == 3 * one['head']
  assert flops.per_step(model, shape, objective=objective) == pytest.approx(
    3 * sum(parts.values())
  )


def test_the_defaults_have_the_published_number_of_parameters():
  config = mergedna.Config(vocab_size=261)
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  num = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
  assert 375e6 < num < 385e6  # "380M".


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(window=7), 'window=7 must be even'),
    (dict(scope='row'), "scope='row' must be one of"),
    (dict(latent_share=0.4), 'latent_share=0.4 must be in'),
    (dict(num_latent=0), 'num_latent=0 must be >= 1'),
    (dict(temperature=0.0), 'temperature=0.0 must be > 0'),
    (dict(relaxation='hard'), "relaxation='hard' must be one of straight"),
  ],
)
def test_impossible_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    mergedna.Config(**SMALL | fields)

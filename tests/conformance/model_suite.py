# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every sequence model promises, as classes to inherit.

  class TestConformance(model_suite.CausalSuite):
    case = model_suite.Case(my_model.Config(vocab_size=model_suite.VOCAB, ...))

Configs must be tiny: each model is compiled about six times.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base

B, T, VOCAB = 2, 12, 24


@dataclasses.dataclass(frozen=True)
class Case:
  """A model of the protocol `models.base.SequenceModel`.

  Attributes:
    config: Its config; `vocab_size` must be `VOCAB`.
    is_causal: Whether position t may depend on tokens 0..t only.
    has_context: Whether a call needs `context`.
    lookback: Tokens that a position reads, itself included.
  """

  config: Any
  is_causal: bool = True
  has_context: bool = False
  lookback: int = T


class Subject:
  """A model with random parameters and its compiled calls."""

  def __init__(self, case: Case):
    self.case = case
    abstract = nnx.eval_shape(lambda: case.config.make(nnx.Rngs(0)))
    self.graph, params = nnx.split(abstract)
    rng = np.random.default_rng(0)
    self.params = jax.tree.map(lambda x: _random(rng, x), params)
    ids = lambda low, shape: jnp.asarray(rng.integers(low, VOCAB, shape))
    self.tokens = ids(0, (B, T))
    # Tokens 0..T-1 are the decoder's alone: see the test of causality.
    self.context = ids(T, (B, 5)) if case.has_context else None
    self.logits = jax.jit(self._logits)
    self.step = jax.jit(self._step)

  @property
  def model(self):
    return nnx.merge(self.graph, self.params)

  def _logits(self, params, tokens, positions=None, segment_ids=None):
    model = nnx.merge(self.graph, params)
    output = model(
      tokens,
      positions=positions,
      segment_ids=segment_ids,
      context=self.context,
    )
    return model.logits(output.hidden_btd)

  def _step(self, params, tokens, cache):
    model = nnx.merge(self.graph, params)
    output = model(tokens, context=self.context, cache=cache)
    return model.logits(output.hidden_btd), output.cache


def _random(rng, x):
  """Parameters away from zero and one, made without compiling anything."""
  value = rng.normal(size=x.shape) * (0.1 if len(x.shape) == 1 else 0.25)
  return jnp.asarray(value + (len(x.shape) == 1), x.dtype)


@functools.cache
def _subject(suite: type) -> Subject:
  """Compiled once per class."""
  return Subject(suite.case)


def _packed(subject, tokens, lengths):
  """Logits of rows that hold documents of the given lengths, then padding."""
  padding = T - sum(lengths)
  segments = [i + 1 for i, n in enumerate(lengths) for _ in range(n)]
  positions = [i for n in lengths for i in range(n)]
  rows = lambda x: jnp.broadcast_to(
    jnp.asarray(x + [0] * padding, jnp.int32), (B, T)
  )
  return subject.logits(subject.params, tokens, rows(positions), rows(segments))


def xla_flops(config: Any, tokens: Any) -> float:
  """What XLA counts in a forward pass as in training, by its analysis."""
  model = nnx.eval_shape(lambda: config.make(nnx.Rngs(0)))
  graph, params = nnx.split(model)

  def logits(params):
    model = nnx.merge(graph, params)
    output = model(tokens, rng=jax.random.key(0))
    return model.logits(output.hidden_btd)

  return jax.jit(logits).lower(params).cost_analysis()['flops']


class ModelSuite:
  """The promises of all models; set `case` in a class called `Test...`."""

  case: Case

  @pytest.fixture
  def subject(self):
    return _subject(type(self))

  def test_logits_are_float32_of_the_vocabulary(self, subject):
    logits = subject.logits(subject.params, subject.tokens)
    assert logits.shape == (B, T, VOCAB)
    assert logits.dtype == jnp.float32

  @pytest.mark.slow  # Without jit each operation is compiled by itself.
  def test_jit_changes_nothing(self, subject):
    jitted = subject.logits(subject.params, subject.tokens)
    with jax.disable_jit():
      plain = subject._logits(subject.params, subject.tokens)
    # Fused and unfused float32 of order 1 differ by some roundings per layer.
    np.testing.assert_allclose(jitted, plain, atol=1e-5)

  def test_padding_and_its_content_change_nothing(self, subject):
    noise = (subject.tokens + 7) % VOCAB
    padded = subject.tokens.at[:, 8:].set(noise[:, 8:])
    got = _packed(subject, subject.tokens, [8])
    np.testing.assert_array_equal(
      got[:, :8], _packed(subject, padded, [8])[:, :8]
    )
    assert np.isfinite(got).all()
    if subject.case.is_causal:
      full = subject.logits(subject.params, subject.tokens)
      np.testing.assert_allclose(got[:, :8], full[:, :8], atol=1e-5)

  def test_documents_of_a_row_do_not_see_each_other(self, subject):
    first, second = subject.tokens[:, :5], subject.tokens[:, 5:]
    packed = _packed(subject, subject.tokens, [5, 7])
    alone = _packed(subject, subject.tokens, [5])
    swapped = _packed(subject, jnp.concatenate([second, first], 1), [7, 5])
    # The same sums with zeros at other places: a few float32 roundings.
    np.testing.assert_allclose(packed[:, :5], alone[:, :5], atol=1e-5)
    np.testing.assert_allclose(packed[:, 5:], swapped[:, :7], atol=1e-5)

  def test_all_parameters_get_finite_gradients_that_are_not_zero(self, subject):
    weights = jnp.asarray(
      np.random.default_rng(1).normal(size=(B, T, VOCAB)), jnp.float32
    )
    params, rest = nnx.split_state(subject.params, nnx.Param, ...)
    loss = lambda params: (
      subject._logits(nnx.merge_state(params, rest), subject.tokens) * weights
    ).sum()
    for path, x in nnx.to_flat_state(jax.jit(jax.grad(loss))(params)):
      grad = x.get_raw_value()
      assert jnp.isfinite(grad).all(), path
      assert (grad != 0).any(), path

  def test_flops_are_counted_for_each_part(self, subject):
    parts = subject.model.flops(base.Shape(b=B, t=T, s=5))
    twice = subject.model.flops(base.Shape(b=2 * B, t=T, s=5))
    assert all(value > 0 for value in parts.values())
    assert twice == {name: 2 * value for name, value in parts.items()}


class CausalSuite(ModelSuite):
  """The promises of models that generate: causality and exact caches."""

  def test_gradients_flow_from_a_position_to_the_tokens_it_may_read(
    self, subject
  ):
    """Each token has its own row of the table, so rows tell positions apart."""
    tokens = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    flat = nnx.to_flat_state(subject.params)
    [path] = [
      p for p, x in flat if x.get_metadata().get('axes') == ('vocab', 'embed')
    ]

    def summary_t(table):
      state = nnx.from_flat_state(
        [(p, x.replace(table) if p == path else x) for p, x in flat]
      )
      output = nnx.merge(subject.graph, state)(tokens, context=subject.context)
      width = output.hidden_btd.shape[-1]
      return output.hidden_btd[0] @ jnp.linspace(-1.0, 1.0, width)

    [table] = [x.get_raw_value() for p, x in flat if p == path]
    influence = np.abs(jax.jit(jax.jacrev(summary_t))(table)[:, :T]).max(-1)
    distance = np.arange(T)[:, None] - np.arange(T)
    is_read = (distance >= 0) & (distance < subject.case.lookback)
    assert (influence[~is_read] == 0).all()
    assert (influence[is_read] > 0).all()

  def test_cached_steps_equal_the_uncached_row(self, subject):
    want = subject.logits(subject.params, subject.tokens)
    cache = subject.model.init_cache(B, T)
    got, cache = subject.step(subject.params, subject.tokens[:, :6], cache)
    parts = [got]
    for t in range(6, T):
      step, cache = subject.step(
        subject.params, subject.tokens[:, t : t + 1], cache
      )
      parts.append(step)
    got = jnp.concatenate(parts, axis=1)
    # Logits of order 1 after 2 layers; sums over 16 slots in another order.
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_array_equal(cache.length_b, [T, T])
    assert not cache.overflow_b.any()

  def test_rows_of_a_cache_can_be_rolled_back_on_their_own(self, subject):
    want = subject.logits(subject.params, subject.tokens)
    cache = subject.model.init_cache(B, T)
    wrong = (subject.tokens[:, :6] + 1) % VOCAB
    wrong = wrong.at[:, :2].set(subject.tokens[:, :2])
    wrong = wrong.at[1, :4].set(subject.tokens[1, :4])
    _, cache = subject.step(subject.params, wrong, cache)
    cache = cache.truncate(jnp.array([2, 4]))
    for i in range(3):
      tokens = jnp.stack([subject.tokens[0, 2 + i], subject.tokens[1, 4 + i]])
      got, cache = subject.step(subject.params, tokens[:, None], cache)
      np.testing.assert_allclose(got[0, 0], want[0, 2 + i], atol=1e-5)
      np.testing.assert_allclose(got[1, 0], want[1, 4 + i], atol=1e-5)

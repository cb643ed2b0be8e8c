# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every sequence model promises.

A model joins with one line in `MODELS`. Configs must be tiny: each model is
compiled about six times.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import base, transformer

B, T, VOCAB = 2, 12, 24


@dataclasses.dataclass(frozen=True)
class Case:
  """A model of the protocol `models.base.SequenceModel`.

  Attributes:
    config: Its config; `vocab_size` must be `VOCAB`.
    is_causal: Whether position t may depend on tokens 0..t only.
    has_context: Whether a call needs `context`.
  """

  config: Any
  is_causal: bool = True
  has_context: bool = False


SMALL = dict(vocab_size=VOCAB, dim=16, num_layers=2, num_heads=4)
Config = transformer.Config
MODELS = {
  'decoder': Case(Config(num_kv_heads=2, gated=True, qk_norm=True, **SMALL)),
  'gpt2': Case(Config.gpt2(max_len=16, **SMALL)),
  'bert': Case(Config.bert(max_len=16, **SMALL), is_causal=False),
  't5': Case(
    Config.t5(num_buckets=8, max_distance=9, **SMALL), has_context=True
  ),
}


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
def _subject(name):
  return Subject(MODELS[name])


@pytest.fixture(params=MODELS)
def subject(request):
  return _subject(request.param)


@pytest.fixture(params=[n for n, c in MODELS.items() if c.is_causal])
def causal(request):
  return _subject(request.param)


def test_logits_are_float32_of_the_vocabulary(subject):
  logits = subject.logits(subject.params, subject.tokens)
  assert logits.shape == (B, T, VOCAB)
  assert logits.dtype == jnp.float32


@pytest.mark.slow  # Without jit each operation is compiled by itself.
def test_jit_changes_nothing(subject):
  jitted = subject.logits(subject.params, subject.tokens)
  with jax.disable_jit():
    plain = subject._logits(subject.params, subject.tokens)
  # Fused and unfused float32 of order 1 differ by some roundings per layer.
  np.testing.assert_allclose(jitted, plain, atol=1e-5)


def test_no_gradient_flows_from_a_position_to_later_tokens(causal):
  """Each token has its own row of the table, so rows tell positions apart."""
  tokens = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  flat = nnx.to_flat_state(causal.params)
  [path] = [
    p for p, x in flat if x.get_metadata().get('axes') == ('vocab', 'embed')
  ]

  def summary_t(table):
    state = nnx.from_flat_state(
      [(p, x.replace(table) if p == path else x) for p, x in flat]
    )
    output = nnx.merge(causal.graph, state)(tokens, context=causal.context)
    width = output.hidden_btd.shape[-1]
    return output.hidden_btd[0] @ jnp.linspace(-1.0, 1.0, width)

  [table] = [x.get_raw_value() for p, x in flat if p == path]
  influence = np.abs(jax.jit(jax.jacrev(summary_t))(table)[:, :T]).max(-1)
  late = np.triu(np.ones((T, T), bool), 1)
  assert (influence[late] == 0).all()
  assert (influence[~late] > 0).all()


def _packed(subject, tokens, lengths):
  """Logits of rows that hold documents of the given lengths, then padding."""
  padding = T - sum(lengths)
  segments = [i + 1 for i, n in enumerate(lengths) for _ in range(n)]
  positions = [i for n in lengths for i in range(n)]
  rows = lambda x: jnp.broadcast_to(
    jnp.asarray(x + [0] * padding, jnp.int32), (B, T)
  )
  return subject.logits(subject.params, tokens, rows(positions), rows(segments))


def test_padding_and_its_content_change_nothing(subject):
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


def test_documents_of_a_row_do_not_see_each_other(subject):
  first, second = subject.tokens[:, :5], subject.tokens[:, 5:]
  packed = _packed(subject, subject.tokens, [5, 7])
  alone = _packed(subject, subject.tokens, [5])
  swapped = _packed(subject, jnp.concatenate([second, first], 1), [7, 5])
  # The same sums with zeros at other places: a few float32 roundings.
  np.testing.assert_allclose(packed[:, :5], alone[:, :5], atol=1e-5)
  np.testing.assert_allclose(packed[:, 5:], swapped[:, :7], atol=1e-5)


def test_cached_steps_equal_the_uncached_row(causal):
  want = causal.logits(causal.params, causal.tokens)
  cache = causal.model.init_cache(B, T)
  got, cache = causal.step(causal.params, causal.tokens[:, :6], cache)
  parts = [got]
  for t in range(6, T):
    step, cache = causal.step(causal.params, causal.tokens[:, t : t + 1], cache)
    parts.append(step)
  got = jnp.concatenate(parts, axis=1)
  # Logits of order 1 after 2 layers; sums over 16 slots in another order.
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(cache.length_b, [T, T])
  assert not cache.overflow_b.any()


def test_rows_of_a_cache_can_be_rolled_back_on_their_own(causal):
  want = causal.logits(causal.params, causal.tokens)
  cache = causal.model.init_cache(B, T)
  wrong = (causal.tokens[:, :6] + 1) % VOCAB
  wrong = wrong.at[:, :2].set(causal.tokens[:, :2])
  wrong = wrong.at[1, :4].set(causal.tokens[1, :4])
  _, cache = causal.step(causal.params, wrong, cache)
  cache = cache.truncate(jnp.array([2, 4]))
  for i in range(3):
    tokens = jnp.stack([causal.tokens[0, 2 + i], causal.tokens[1, 4 + i]])
    got, cache = causal.step(causal.params, tokens[:, None], cache)
    np.testing.assert_allclose(got[0, 0], want[0, 2 + i], atol=1e-5)
    np.testing.assert_allclose(got[1, 0], want[1, 4 + i], atol=1e-5)


def test_all_parameters_get_finite_gradients_that_are_not_zero(subject):
  weights = jnp.asarray(
    np.random.default_rng(1).normal(size=(B, T, VOCAB)), jnp.float32
  )
  loss = lambda params: (
    subject._logits(params, subject.tokens) * weights
  ).sum()
  for path, x in nnx.to_flat_state(jax.jit(jax.grad(loss))(subject.params)):
    grad = x.get_raw_value()
    assert jnp.isfinite(grad).all(), path
    assert (grad != 0).any(), path


def test_flops_are_counted_for_each_part(subject):
  parts = subject.model.flops(base.Shape(b=B, t=T, s=5))
  twice = subject.model.flops(base.Shape(b=2 * B, t=T, s=5))
  assert all(value > 0 for value in parts.values())
  assert twice == {name: 2 * value for name, value in parts.items()}

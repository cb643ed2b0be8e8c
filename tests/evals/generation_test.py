# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from jaxtok.evals import generation
from jaxtok.models import base


class Bigram:
  """Logits that are a table's row for the newest token."""

  def __init__(self, table):
    self.table = jnp.asarray(table, jnp.float32)

  def __call__(self, tokens_bt):
    return base.Output(hidden_btd=self.table[tokens_bt])

  def logits(self, hidden_btd):
    return hidden_btd


def test_entropy_of_repetition_is_zero_and_of_all_different_ln_t():
  tokens = jnp.array([[3, 3, 3, 3], [0, 1, 2, 3], [0, 0, 0, 1]])
  got = generation.unigram_entropy(tokens, vocab_size=7)
  p = np.array([0.75, 0.25])
  want = [0, np.log(4), -(p * np.log(p)).sum()]
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_samples_are_scored_by_the_chain_rule():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(5, 5))
  log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
  tokens = rng.integers(0, 4, (3, 6))
  want = []
  for row in tokens:
    before = [4, *row[:-1]]
    want += [-np.sum(log_probs[before, row])]
  got = generation.generative_nats(Bigram(table), jnp.asarray(tokens), bos=4)
  np.testing.assert_allclose(got, want, rtol=1e-5)

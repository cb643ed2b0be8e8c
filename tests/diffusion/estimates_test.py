# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of answers against one call for each token, in NumPy.

That the mean field is exact where answers factorise: `diffu_grpo_test`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import estimates

P, S, V, MASK = 2, 3, 3, 3  # Prompt, answer, real tokens, the mask.
TOKENS = np.array([[0, 1, 2, 0, 1], [2, 2, 1, 1, 0], [1, 0, 0, 2, 2]])
HIDDEN = np.array([[True, False], [False, False], [False, True]])
FIRST = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
TABLE = np.float32(
  1.5 * np.random.default_rng(0).normal(size=((V + 1) ** (P + S), P + S, V + 1))
)


def denoiser(tokens_bt, width=P + S):
  """Logits by the first tokens of the input, by all of them if not told."""
  place = (V + 1) ** jnp.arange(width)
  return jnp.asarray(TABLE)[(tokens_bt[:, :width] * place).sum(-1)]


def of_prompts(tokens_bt):
  return denoiser(tokens_bt, P)


def want(masked, token, place):
  """Log-probability of a real token at one input, double precision."""
  x_v = np.asarray(denoiser(jnp.asarray(masked)[None]), np.float64)
  x_v = x_v[0, place, :V]
  return x_v[token] - np.log(np.exp(x_v).sum())


def mean_field(denoiser):
  return estimates.mean_field_log_prob(
    denoiser, jnp.asarray(TOKENS), jnp.asarray(HIDDEN), MASK
  )


def coupled(denoiser, first=FIRST):
  return estimates.coupled_log_prob(
    denoiser, jnp.asarray(TOKENS), jnp.asarray(HIDDEN), jnp.asarray(first), MASK
  )


def test_coupled_tokens_are_scored_beside_those_of_the_other_call():
  got = coupled(denoiser)
  for b, i in np.ndindex(got.shape):
    together = np.append(HIDDEN[b], FIRST[b] == FIRST[b, i])
    masked = np.where(together, MASK, TOKENS[b])
    exact = want(masked, TOKENS[b, P + i], P + i)
    # Logits of about 5, so sums in float32 are off by a few 1e-7 each.
    np.testing.assert_allclose(got[b, i], exact, atol=5e-6)
  assert np.abs(got - mean_field(denoiser)).max() > 0.1


def test_coupled_is_the_mean_field_if_nothing_is_seen_or_matters():
  for first in (np.ones((3, S), bool), np.zeros((3, S), bool)):
    np.testing.assert_array_equal(
      coupled(denoiser, first), mean_field(denoiser)
    )
  np.testing.assert_array_equal(coupled(of_prompts), mean_field(of_prompts))


def test_answers_are_split_at_every_share():
  share = estimates.split_answers(jax.random.key(0), 4000, 64).mean(axis=1)
  # The share is uniform: five deviations of 4,000 draws in each tenth.
  counts, _ = np.histogram(share, bins=10, range=(0, 1))
  assert np.abs(counts - 400).max() < 5 * np.sqrt(4000 * 0.1 * 0.9)


def test_prompts_are_hidden_at_the_rate():
  rng = jax.random.key(0)
  got = estimates.hide_prompts(rng, 400, 50, 0.15)
  # Five deviations of the mean of 20,000 draws.
  assert float(got.mean()) == pytest.approx(0.15, abs=0.013)
  assert not estimates.hide_prompts(rng, 400, 50, 0.0).any()

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds on log-likelihoods against the sum over all orders."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from jaxtok.diffusion import likelihood
from jaxtok.models import transformer
from tests.diffusion import enumerable

ROWS = 6000
PROMPT, ANSWER = enumerable.X[:1], enumerable.X[1:]
N = len(ANSWER)


def values_of_orders(guidance=0.0, shift=False):
  """Log-likelihood of the answer for each order of revealing it."""
  model = enumerable.Lookup()

  def logits(tokens):
    out = np.asarray(model(jnp.asarray(tokens)[None]).hidden_btd[0], np.float64)
    if shift:
      out = np.concatenate([out[:1], out[:-1]])
    return out[:, : enumerable.V]

  values = []
  for order in itertools.permutations(range(1, 1 + N)):
    tokens, total = enumerable.X.copy(), 0.0
    tokens[1:] = enumerable.V
    for place in order:
      x = logits(tokens)[place]
      if guidance:
        free = tokens.copy()
        free[0] = enumerable.V
        u = logits(free)[place]
        x = u + (guidance + 1) * (x - u)
      total += x[enumerable.X[place]] - np.log(np.exp(x).sum())
      tokens[place] = enumerable.X[place]
    values.append(total)
  return np.array(values)


def estimate(how, rows=ROWS, **options):
  """Many equal rows, which draw independently."""
  tile = lambda x: jnp.asarray(np.tile(x, (rows, 1)), jnp.int32)
  run = functools.partial(how, mask_id=enumerable.V, **options)
  return jax.jit(
    lambda rng: run(enumerable.Lookup(), tile(PROMPT), tile(ANSWER), rng=rng)
  )(jax.random.key(0))


@pytest.mark.parametrize('num_samples', [2, 6])
@pytest.mark.parametrize(
  'options', [{}, dict(guidance=1.5), dict(guidance=0.5, shift=True)]
)
def test_the_estimate_is_the_mean_over_all_orders(num_samples, options):
  got = estimate(likelihood.log_likelihood, num_samples=num_samples, **options)
  values = np.asarray(got.lower_bound_b, np.float64)
  want = values_of_orders(**options).mean()
  error = values.std() / np.sqrt(ROWS)
  assert error < 0.02 * abs(want)
  assert abs(values.mean() - want) < 4 * error
  assert (got.num_tokens_b == N).all()


def test_guidance_and_shift_change_the_likelihood():
  cases = ({}, dict(guidance=1.5), dict(guidance=0.5, shift=True))
  means = [values_of_orders(**options).mean() for options in cases]
  assert np.ptp(means) > 0.5
  assert min(np.abs(np.diff(means))) > 0.2


def test_the_standard_error_covers_the_error_of_spread_counts():
  num_samples = 4 * N
  got = estimate(likelihood.log_likelihood, num_samples=num_samples)
  true = np.var(got.lower_bound_b)
  claimed = np.mean(np.square(got.standard_error_b))
  # The claim is that of independent samples, by enumeration of the masks.
  sizes, second = range(1, N + 1), 0.0
  for k in sizes:
    of_size = [
      N
      / k
      * enumerable.log_probs(enumerable.Lookup(), masked(places))[
        list(places), enumerable.X[list(places)]
      ].sum()
      for places in itertools.combinations(range(1, 1 + N), k)
    ]
    second += np.mean(np.square(of_size)) / N
  independent = (second - values_of_orders().mean() ** 2) / num_samples
  # Relative error of a mean of 6,000 variances of 12 numbers: about 0.6 %. They
  # hold each k equally often, so that they are larger than those of independent
  # ones, by at most 12/11.
  assert 0.97 * independent < claimed < 1.03 * 12 / 11 * independent
  assert true < 0.9 * claimed


def masked(places):
  tokens = enumerable.X.copy()
  tokens[list(places)] = enumerable.V
  return tokens


@pytest.mark.parametrize('guidance', [0.0, 1.5])
def test_a_random_order_is_one_of_all_equally_likely(guidance):
  got = estimate(likelihood.log_likelihood_by_orders, guidance=guidance)
  values = np.asarray(got.lower_bound_b, np.float64)
  want = values_of_orders(guidance)
  gap = np.abs(values[:, None] - want)
  nearest = gap.argmin(-1)
  # Sums of three log-probabilities of a few nats in float32.
  assert gap.min(-1).max() < 1e-5
  assert np.diff(np.sort(want)).min() > 1e-3, 'orders cannot be told apart'
  counted = np.bincount(nearest, minlength=len(want))
  assert stats.chisquare(counted).pvalue > 1e-3
  assert np.isnan(got.standard_error_b).all()


def test_more_orders_have_a_standard_error():
  got = estimate(likelihood.log_likelihood_by_orders, rows=2000, num_orders=5)
  claimed = np.mean(np.square(got.standard_error_b))
  # Relative error of a variance of 2,000 numbers: about 3 %.
  np.testing.assert_allclose(np.var(got.lower_bound_b), claimed, rtol=0.15)


@pytest.mark.parametrize(('n', 'samples'), [(1, 3), (4, 12), (5, 128), (7, 3)])
def test_counts_are_uniform_and_evenly_spread(n, samples):
  rngs = jax.random.split(jax.random.key(0), 500)
  draw = jax.vmap(likelihood.counts, (None, 0, None))
  count = np.asarray(draw(jnp.int32(n), rngs, samples))
  for row in count[:20]:
    k = row[0] - 1 + np.round(np.arange(samples) * n / samples)
    np.testing.assert_array_equal(row, k % n + 1)
    times = np.bincount(row, minlength=n + 1)[1:]
    assert np.ptp(times) <= (0 if samples % n == 0 else 1)
  last = np.bincount(count[:, -1], minlength=n + 1)[1:]
  assert n == 1 or stats.chisquare(last).pvalue > 1e-3
  assert (draw(jnp.int32(0), rngs, samples) == 0).all()


def test_padding_before_prompts_and_behind_answers_is_not_seen():
  vocab, mask_id = 12, 11
  config = transformer.Config.llama(
    vocab_size=vocab, dim=16, num_layers=1, num_heads=2, is_causal=False
  )
  model = config.make(nnx.Rngs(0))
  model.head.out.kernel[...] *= 10
  prompt = jnp.array([[1, 2, 3], [0, 4, 5]])
  answer = jnp.array([[6, 7], [8, 0]])
  score = functools.partial(
    likelihood.log_likelihood,
    model,
    mask_id=mask_id,
    num_samples=2,
    guidance=0.5,
    rng=jax.random.key(0),
  )
  # One token has one mask: no chance is left.
  together = score(
    prompt,
    answer,
    is_prompt_bt=jnp.array([[True] * 3, [False, True, True]]),
    is_answer_bt=jnp.array([[True, True], [True, False]]),
  )
  alone = score(prompt[1:, 1:], answer[1:, :1])
  np.testing.assert_allclose(
    together.lower_bound_b[1:], alone.lower_bound_b, atol=1e-5
  )
  assert together.num_tokens_b.tolist() == [2, 1]
  seen = score(prompt[1:], answer[1:, :1])
  assert abs(seen.lower_bound_b - alone.lower_bound_b)[0] > 1e-3


@pytest.mark.parametrize(
  ('how', 'name'),
  [
    (likelihood.log_likelihood, 'num_samples'),
    (likelihood.log_likelihood_by_orders, 'num_orders'),
  ],
)
def test_what_cannot_be_estimated_is_refused(how, name):
  tokens = jnp.zeros((1, 2), jnp.int32)
  call = functools.partial(
    how, enumerable.Lookup(), mask_id=3, rng=jax.random.key(0)
  )
  with pytest.raises(ValueError, match=f'{name}=0 must be >= 1'):
    call(tokens, tokens, **{name: 0})
  with pytest.raises(ValueError, match='Begin with the BOS token'):
    call(tokens[:, :0], tokens, shift=True)
  with pytest.raises(ValueError, match='in row 0 has padding behind prompt'):
    call(tokens, tokens, is_prompt_bt=jnp.array([[True, False]]))
  for mask_id in (-1, enumerable.V + 1):
    rule = rf'mask_id={mask_id} must be in \[0, {enumerable.V + 1}\)'
    with pytest.raises(ValueError, match=rule):
      call(tokens, tokens, mask_id=mask_id)

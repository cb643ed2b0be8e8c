# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sampling: exact distributions, draws, bans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxtok.decoding import sampling

draw = jax.jit(sampling.sample, static_argnames='config')
filter_logits = jax.jit(
  sampling.filter_logits, static_argnames=('config', 'is_top_p_first')
)

CONFIGS = [
  sampling.Config(),
  sampling.Config(temperature=0.3),
  sampling.Config(temperature=2.5, top_k=7),
  sampling.Config(top_p=0.6),
  sampling.Config(top_p=1e-6),
  sampling.Config(min_p=0.2),
  sampling.Config(min_p=1.0),
  sampling.Config(temperature=0.7, top_k=20, top_p=0.8, min_p=0.05),
  sampling.Config(top_k=10_000),
  sampling.Config(temperature=1e-4, top_p=0.9),
]


def oracle(logits, config, banned=None, *, is_top_p_first=False):
  """The filtered distribution of one row in float64, one token at a time."""
  logits = np.asarray(logits, np.float64)
  allowed = [i for i in range(len(logits)) if banned is None or not banned[i]]
  order = sorted(allowed, key=lambda i: (-logits[i], i))
  if config.temperature == 0:
    return np.eye(len(logits))[order[0]]
  if config.top_k and not is_top_p_first:
    order = order[: config.top_k]
  weight = lambda i: np.exp((logits[i] - logits[order[0]]) / config.temperature)
  total, mass, kept = sum(map(weight, order)), 0.0, []
  for i in order:
    if config.top_p < 1 and mass >= config.top_p * total:
      break
    mass += weight(i)
    kept.append(i)
  if config.top_k and is_top_p_first:
    kept = kept[: config.top_k]
  kept = [i for i in kept if weight(i) >= config.min_p * weight(order[0])]
  probs = np.zeros(len(logits))
  probs[kept] = [weight(i) for i in kept]
  return probs / probs.sum()


@pytest.mark.parametrize('config', CONFIGS)
@pytest.mark.parametrize('is_banning', [False, True])
def test_filtered_distribution_equals_float64(config, is_banning):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 40)).astype(np.float32) * 3
  banned = rng.random(40) < 0.4 if is_banning else None
  got = jax.nn.softmax(filter_logits(jnp.asarray(logits), config, banned))
  want = np.stack([oracle(row, config, banned) for row in logits])
  np.testing.assert_array_equal(got > 0, want > 0)
  # Logits up to 12 divided by the temperature: rounding of the quotient
  # (2**-24 * 12 / t, about 2.4e-6 at t=0.3) is the relative error of exp. At
  # t=1e-4 one token has all the mass.
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_top_p_before_top_k_counts_the_mass_of_all_tokens():
  logits = jnp.log(jnp.asarray([[0.4, 0.35, 0.25]]))
  config = sampling.Config(top_k=2, top_p=0.5)
  kept = lambda **order: filter_logits(logits, config, **order)[0] > -jnp.inf
  # Of the first two, the first has 0.53; of all three, 0.4.
  assert kept().tolist() == [True, False, False]
  assert kept(is_top_p_first=True).tolist() == [True, True, False]
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(200, 40)).astype(np.float32) * 2
  config = sampling.Config(temperature=1.4, top_k=6, top_p=0.6)
  got = jax.nn.softmax(filter_logits(logits, config, is_top_p_first=True))
  want = [oracle(row, config, is_top_p_first=True) for row in logits]
  # Rounding of logits up to 8, see above.
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
  num_kept = (np.stack(want) > 0).sum(-1)
  assert (num_kept < 6).any()  # Top-p decides.
  assert (num_kept == 6).any()  # Top-k does.


@pytest.mark.parametrize('k', [1, 2, 3, 5])
def test_ties_go_to_lower_ids_and_exactly_k_survive(k):
  logits = jnp.asarray([[1.0, 2.0, 2.0, 0.0, 2.0]])
  kept = filter_logits(logits, sampling.Config(top_k=k)) > -jnp.inf
  assert sorted(np.flatnonzero(kept[0])) == sorted([1, 2, 4, 0, 3][:k])


def test_top_p_of_equal_tokens_keeps_the_fewest_lowest_ids():
  # Of four tokens with probability 1/4 (exact in binary), two make 0.5.
  logits = jnp.zeros((1, 4))
  kept = filter_logits(logits, sampling.Config(top_p=0.5)) > -jnp.inf
  np.testing.assert_array_equal(kept, [[True, True, False, False]])


def test_greedy_takes_the_first_of_equal_tokens_and_ignores_the_key():
  logits = jnp.asarray([[0.0, 5.0, 5.0], [7.0, 1.0, 7.0]])
  for seed in range(3):
    got = draw(logits, jax.random.key(seed), sampling.Config(temperature=0.0))
    np.testing.assert_array_equal(got.token, [1, 0])
    np.testing.assert_array_equal(got.filtered_logprob, [0, 0])


@pytest.mark.parametrize('config', [CONFIGS[0], CONFIGS[7]])
def test_draws_follow_the_filtered_distribution(config):
  # Chi-square over cells with expectation >= 5; a right sampler fails with
  # probability 1e-4 per case (fixed seeds: it never does).
  rng = np.random.default_rng(1)
  logits = jnp.asarray(rng.normal(size=30).astype(np.float32) * 2)
  banned = np.arange(30) % 7 == 3
  num = 20_000
  tokens = draw(
    jnp.broadcast_to(logits, (num, 30)), jax.random.key(2), config, banned
  ).token
  want = oracle(logits, config, banned) * num
  counts = np.bincount(tokens, minlength=30)
  assert (counts[want == 0] == 0).all()
  is_large = want >= 5
  observed = [*counts[is_large], counts[~is_large].sum()]
  expected = [*want[is_large], want[~is_large].sum()]
  if expected[-1] == 0:
    observed, expected = observed[:-1], expected[:-1]
  assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_logprobs_are_those_of_the_model_and_of_the_filtered_distribution():
  rng = np.random.default_rng(3)
  logits = rng.normal(size=(50, 12)).astype(np.float32)
  config = sampling.Config(temperature=0.5, top_k=4)
  got = draw(jnp.asarray(logits), jax.random.key(0), config)
  for i, row in enumerate(logits):
    model = np.log(oracle(row, sampling.Config())[got.token[i]])
    filtered = np.log(oracle(row, config)[got.token[i]])
    np.testing.assert_allclose(got.logprob[i], model, atol=1e-5)
    np.testing.assert_allclose(got.filtered_logprob[i], filtered, atol=1e-5)


def test_other_rows_do_not_change_what_a_row_draws():
  rng = np.random.default_rng(4)
  logits = jnp.asarray(rng.normal(size=(6, 50)).astype(np.float32))
  config = sampling.Config(top_p=0.9)
  key = jax.random.key(5)
  alone = draw(logits[:2], key, config)
  among = draw(logits.at[2:].multiply(-3.0), key, config)
  np.testing.assert_array_equal(alone.token, among.token[:2])
  np.testing.assert_array_equal(alone.logprob, among.logprob[:2])


def test_bans_cover_specials_and_ids_beyond_the_vocabulary():
  banned = sampling.ban(8, [0, 2], num_real=6)
  np.testing.assert_array_equal(np.flatnonzero(banned), [0, 2, 6, 7])
  logits = jnp.zeros((500, 8)).at[:, 7].set(50.0)
  tokens = draw(logits, jax.random.key(0), sampling.Config(), banned).token
  assert set(np.asarray(tokens).tolist()) == {1, 3, 4, 5}


def test_impossible_bans_are_refused():
  with pytest.raises(ValueError, match=r'9 cannot be banned.*0 to 7'):
    sampling.ban(8, [9])
  with pytest.raises(ValueError, match=r'num_real=9 must be in 0\.\.8'):
    sampling.ban(8, num_real=9)
  with pytest.raises(ValueError, match='all 2 ids are banned'):
    sampling.ban(2, [0, 1])


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('temperature', -0.1),
    ('temperature', float('inf')),
    ('temperature', float('nan')),
    ('top_k', -1),
    ('top_p', 0.0),
    ('top_p', 1.1),
    ('min_p', -0.1),
    ('min_p', 1.5),
  ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
  with pytest.raises(ValueError, match=f'{field}={value} must be'):
    sampling.Config(**{field: value})

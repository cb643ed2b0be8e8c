# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Samplers that run time backwards, against enumeration on a Markov chain.

Rows of L symbols of a stationary chain; the exact denoiser is known in closed
form, so whatever deviates is the sampler's.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.decoding import sampling
from jaxtok.diffusion import (
  ancestral,
  first_hitting,
  genmd4,
  remdm,
  samplers,
  schedules,
)

L, V, ROWS = 3, 2, 8000
CHAIN = np.array([[0.9, 0.1], [0.3, 0.7]])
START = np.array([0.75, 0.25])  # START @ CHAIN == START.


def exact_tables():
  """Logits [(V + 1)**L, L, V + 1] of the exact denoiser; joint [V**L]."""
  rows = list(itertools.product(range(V), repeat=L))
  joint = np.array(
    [
      START[x[0]] * np.prod([CHAIN[a, b] for a, b in itertools.pairwise(x)])
      for x in rows
    ]
  )
  table = np.full(((V + 1,) * L + (L, V + 1)), -1e9)
  for z in itertools.product(range(V + 1), repeat=L):
    agrees = np.array(
      [all(c in (V, a) for a, c in zip(x, z, strict=True)) for x in rows]
    )
    for place, v in itertools.product(range(L), range(V)):
      has_v = np.array([x[place] == v for x in rows])
      p = (joint * agrees * has_v).sum() / (joint * agrees).sum()
      table[(*z, place, v)] = np.log(p) if p > 0 else -1e9
  return table.reshape(-1, L, V + 1), joint


TABLE, JOINT = exact_tables()


def denoiser(tokens_bt):
  place = (V + 1) ** jnp.arange(L - 1, -1, -1)
  return jnp.asarray(TABLE, jnp.float32)[(tokens_bt * place).sum(-1)]


def start(rows=ROWS):
  tokens = jnp.zeros((rows, L), jnp.int32)
  return samplers.start(tokens, jnp.ones((rows, L), bool), V)


def counts(canvas):
  assert not canvas.is_masked_bt.any()
  place = V ** np.arange(L - 1, -1, -1)
  codes = (np.asarray(canvas.tokens_bt) * place).sum(-1)
  return np.bincount(codes, minlength=V**L)


def chi2(found):
  want = found.sum() * JOINT
  return ((found - want) ** 2 / want).sum()


@functools.cache
def run(num_steps, remask=None, rows=ROWS, seed=0):
  alphas = schedules.Linear().alpha(schedules.grid(num_steps))
  rngs = samplers.row_rngs(jax.random.key(seed), rows)
  rule = ancestral.never if remask is None else remask
  decode = jax.jit(
    lambda canvas: ancestral.decode(
      denoiser, canvas, alphas, rngs, mask_id=V, remask=rule
    )
  )
  return decode(start(rows))


# The 0.999 quantile of chi-square with 7 degrees of freedom.
LIMIT = 24.3


def softmax(x):
  return np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True))


def expected_at(num_steps, probs=None):
  """The ancestral sampler's own distribution, by enumeration.

  All masked positions fall independently into one of the steps; those of one
  step are drawn independently of each other.
  """
  probs = softmax(TABLE) if probs is None else probs
  total = np.zeros(V**L)
  for steps in itertools.product(range(num_steps), repeat=L):
    for i, x in enumerate(itertools.product(range(V), repeat=L)):
      p = 1.0
      for place in range(L):
        z = [
          a if s < steps[place] else V for a, s in zip(x, steps, strict=True)
        ]
        code = np.ravel_multi_index(z, (V + 1,) * L)
        p *= probs[code, place, x[place]]
      total[i] += p / num_steps**L
  return total


def test_few_steps_give_the_error_that_enumeration_predicts():
  want = ROWS * expected_at(2)
  found = counts(run(2))
  assert ((found - want) ** 2 / want).sum() < LIMIT
  assert chi2(found) > 2 * LIMIT  # Two steps are visibly not exact.


def test_many_steps_sample_the_data():
  assert chi2(counts(run(100))) < LIMIT


@pytest.mark.parametrize(
  'rule',
  [remdm.Cap(0.02), remdm.Rescale(0.05)],
  ids=repr,
)
def test_remasking_keeps_the_distribution(rule):
  canvas = run(100, rule)
  assert chi2(counts(canvas)) < LIMIT
  assert canvas.num_calls_b.mean() > 1.02 * run(100).num_calls_b.mean()


def test_remasking_by_confidence_finishes_and_takes_more_calls():
  """Its choice depends on the tokens, so samples are not exact."""
  canvas = run(100, remdm.Confidence(0.3))
  assert not canvas.is_masked_bt.any()
  assert canvas.num_calls_b.mean() > 1.02 * run(100).num_calls_b.mean()


def test_calls_are_steps_in_which_a_row_revealed_something():
  canvas = run(100)
  steps = np.asarray(canvas.reveal_step_bt)
  assert (steps >= 0).all()
  want = [len(set(row)) for row in steps.tolist()]
  np.testing.assert_array_equal(canvas.num_calls_b, want)


def test_reveals_of_a_step_are_binomial():
  steps = np.asarray(run(2).reveal_step_bt)
  found = np.bincount((steps == 0).sum(-1), minlength=L + 1)
  want = ROWS * np.array([1, 3, 3, 1]) / 8
  assert ((found - want) ** 2 / want).sum() < 16.3  # 0.999, 3 degrees.


def test_a_row_does_not_depend_on_the_others():
  whole, part = run(20, rows=64), run(20, rows=8)
  for name in ('tokens_bt', 'num_calls_b', 'reveal_step_bt'):
    np.testing.assert_array_equal(
      getattr(whole, name)[:8], getattr(part, name), err_msg=name
    )


def test_given_tokens_are_never_changed():
  tokens = jnp.tile(jnp.array([[1, 0, 1]]), (200, 1))
  is_masked = jnp.tile(jnp.array([[True, False, True]]), (200, 1))
  canvas = ancestral.decode(
    denoiser,
    samplers.start(tokens, is_masked, V),
    schedules.Linear().alpha(schedules.grid(30)),
    samplers.row_rngs(jax.random.key(0), 200),
    mask_id=V,
    remask=remdm.Rescale(0.9),
  )
  assert (canvas.tokens_bt[:, 1] == 0).all()
  assert not canvas.is_masked_bt.any()
  assert (canvas.reveal_step_bt[:, 1] == -1).all()


def test_first_hitting_samples_the_data_at_uniform_order_statistics():
  rngs = samplers.row_rngs(jax.random.key(1), ROWS)
  decode = jax.jit(
    lambda canvas: first_hitting.decode(
      lambda tokens, t: denoiser(tokens), canvas, rngs, mask_id=V
    )
  )
  canvas, times = decode(start())
  assert chi2(counts(canvas)) < LIMIT
  assert (canvas.num_calls_b == L).all()
  # Each position's time is uniform; of three, the latest has mean 3/4.
  times = np.asarray(times, np.float64)
  error = np.sqrt(1 / 12 / ROWS)
  np.testing.assert_allclose(times.mean(0), np.full(L, 0.5), atol=4 * error)
  assert abs(times.max(-1).mean() - 0.75) < 4 * error
  order = np.argsort(-times, axis=-1)
  steps = np.take_along_axis(np.asarray(canvas.reveal_step_bt), order, -1)
  np.testing.assert_array_equal(steps, np.tile(np.arange(L), (ROWS, 1)))


def test_too_few_times_are_refused():
  rngs = samplers.row_rngs(jax.random.key(0), 1)
  with pytest.raises(ValueError, match='needs 2 or more'):
    ancestral.decode(denoiser, start(1), jnp.zeros(1), rngs, mask_id=V)


SAMPLERS = {
  'samplers': lambda denoiser, canvas, rngs: samplers.decode(
    denoiser,
    canvas,
    lambda view: view.allowed_bt,
    rngs,
    prompt_len=0,
    mask_id=V,
    temperature=1.0,
  ),
  'ancestral': lambda denoiser, canvas, rngs: ancestral.decode(
    denoiser, canvas, jnp.array([0.0, 1.0]), rngs, mask_id=V
  ),
  'first_hitting': lambda denoiser, canvas, rngs: first_hitting.decode(
    lambda tokens, times: denoiser(tokens), canvas, rngs, mask_id=V
  )[0],
  'genmd4': lambda denoiser, canvas, rngs: genmd4.decode(
    denoiser, jnp.ones(V), canvas, jnp.array([1.0, 0.0]), rngs
  ),
}


@pytest.mark.parametrize('name', SAMPLERS)
def test_samplers_draw_by_the_one_function_that_has_the_tail(name, monkeypatch):
  rngs = samplers.row_rngs(jax.random.key(0), 4)
  last = lambda logits, rngs: jnp.full(logits.shape[:2], V - 1)
  monkeypatch.setattr(samplers, 'draw', last)
  canvas = SAMPLERS[name](denoiser, start(4), rngs)
  assert (canvas.tokens_bt == V - 1).all()


def expected_one_by_one(probs):
  """The law of drawing one token at a time, mean over all orders."""
  total = np.zeros(V**L)
  for order in itertools.permutations(range(L)):
    for i, x in enumerate(itertools.product(range(V), repeat=L)):
      z, p = [V] * L, 1.0
      for place in order:
        code = np.ravel_multi_index(z, (V + 1,) * L)
        p *= probs[code, place, x[place]]
        z[place] = x[place]
      total[i] += p / 6
  return total


def cold(probs):
  """At temperature 1/2."""
  return probs**2 / (probs**2).sum(-1, keepdims=True)


def nucleus(probs):
  """Of two tokens, the second is left out where the first has 0.8."""
  most = probs.max(-1, keepdims=True)
  kept = np.where((most >= 0.8) & (probs < most), 0.0, probs)
  return kept / kept.sum(-1, keepdims=True)


def greedy(probs):
  return (probs == probs.max(-1, keepdims=True)).astype(float)


FILTERS = {
  'temperature': (sampling.Config(temperature=0.5), cold),
  'top_p': (sampling.Config(top_p=0.8), nucleus),
  'both': (
    sampling.Config(temperature=0.5, top_p=0.8),
    lambda probs: nucleus(cold(probs)),
  ),
  'greedy': (sampling.Config(temperature=0.0), greedy),
}
FILTERED = {
  'ancestral': lambda canvas, rngs, filters: ancestral.decode(
    denoiser,
    canvas,
    jnp.array([0.0, 0.5, 1.0]),
    rngs,
    mask_id=V,
    filters=filters,
  ),
  'first_hitting': lambda canvas, rngs, filters: first_hitting.decode(
    lambda tokens, times: denoiser(tokens),
    canvas,
    rngs,
    mask_id=V,
    filters=filters,
  )[0],
  'genmd4': lambda canvas, rngs, filters: genmd4.decode(
    denoiser,
    jnp.ones(V),
    canvas,
    jnp.array([1.0, 0.5, 0.0]),
    rngs,
    filters=filters,
  ),
}


@pytest.mark.parametrize('kind', FILTERS)
@pytest.mark.parametrize('name', FILTERED)
def test_filters_change_the_law_as_enumeration_says(name, kind):
  filters, change = FILTERS[kind]
  probs = change(softmax(TABLE)[..., :V])
  one_by_one = name == 'first_hitting'
  law = expected_one_by_one(probs) if one_by_one else expected_at(2, probs)
  rngs = samplers.row_rngs(jax.random.key(2), ROWS)
  decode = jax.jit(lambda canvas: FILTERED[name](canvas, rngs, filters))
  canvas = decode(start())
  found, want = counts(canvas), ROWS * law
  can = law > 1e-12
  assert not found[~can].any()
  assert ((found - want)[can] ** 2 / want[can]).sum() < LIMIT
  # The unfiltered law is another one.
  assert np.abs(law - expected_at(2)).sum() > 0.1
  # What is stored of a token is the denoiser's own probability.
  is_first = np.asarray(canvas.reveal_step_bt) == 0
  own = softmax(TABLE)[-1][np.arange(L), np.asarray(canvas.tokens_bt)]
  np.testing.assert_allclose(
    np.asarray(canvas.psi_bt)[is_first], own[is_first], rtol=1e-5
  )


def test_noise_is_that_of_high_range():
  rngs, logits = jax.random.split(jax.random.key(0), 8), jnp.zeros((8, 32, 9))
  noisy = lambda mode: jax.vmap(
    lambda rng, x: (x + jax.random.gumbel(rng, x.shape, mode=mode)).argmax(-1)
  )(rngs, logits)
  got = samplers.draw(logits, rngs)
  np.testing.assert_array_equal(got, noisy('high'))
  assert (got != noisy('low')).any()


@pytest.mark.slow
def test_tokens_of_probability_1e_8_are_drawn():
  """8.3 of 6e8 expected; 1 to 21 all but 5e-4. The default noise has 0.01."""
  shape = (1, 1_000_000)
  canvas = samplers.start(jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), V)
  logits = jnp.broadcast_to(jnp.array([0.0, -18.1]), (*shape, V))
  rare = jax.jit(
    lambda rng: SAMPLERS['samplers'](
      lambda tokens: logits, canvas, rng[None]
    ).tokens_bt.sum()
  )
  rngs = jax.random.split(jax.random.key(0), 600)
  assert 1 <= jax.lax.map(rare, rngs).sum() <= 21

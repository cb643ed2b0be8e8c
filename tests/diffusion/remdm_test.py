# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Remasking: rates against their definitions, steps against enumeration.

That samples keep their distribution is tested in `ancestral_test`.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

from experiments.claims import remdm as claim
from jaxtok.diffusion import ancestral, remdm, samplers, schedules, selectors
from jaxtok.tasks import markov_chain


def canvas(psi, is_masked):
  is_masked = jnp.asarray(is_masked)
  return samplers.Canvas(
    tokens_bt=jnp.zeros(is_masked.shape, jnp.int32),
    is_masked_bt=is_masked,
    num_calls_b=jnp.zeros(is_masked.shape[0], jnp.int32),
    reveal_step_bt=jnp.zeros(is_masked.shape, jnp.int32),
    psi_bt=jnp.asarray(psi),
  )


RULES = [
  remdm.Cap(0.3),
  remdm.Rescale(0.5),
  remdm.Confidence(),
  remdm.Loop(0.2),
]


def name_of(rule):
  """The same in every process, unlike the repr of a function."""
  return getattr(rule, '__name__', None) or repr(rule)


@pytest.mark.parametrize('rule', RULES, ids=name_of)
@pytest.mark.parametrize('alphas', [(0.0, 0.1), (0.4, 0.5), (0.9, 1.0)])
def test_rates_and_reveals_are_probabilities(rule, alphas):
  alpha_t, alpha_s = map(jnp.float32, alphas)
  rows = canvas(
    [[0.9, 0.2, 1.0], [0.5, 0.5, 0.5]],
    [[False, False, True], [True, True, True]],
  )
  free = jnp.ones((2, 3), bool)
  sigma = np.asarray(rule(rows, free, alpha_t, alpha_s))
  assert (sigma >= 0).all()
  # 1 - 0.9 in float32 is off by 3e-8.
  assert (sigma <= float(remdm.sigma_max(alpha_t, alpha_s)) + 1e-6).all()
  reveal = (alphas[1] - (1 - sigma) * alphas[0]) / (1 - alphas[0])
  assert (reveal >= 0).all()
  assert (reveal <= 1 + 1e-5).all()


def test_the_share_of_masks_is_the_schedules():
  """One step by the kernel: alpha_t of the positions clean before it."""
  alpha_t, alpha_s = 0.4, 0.5
  for sigma in (0.0, 0.3, 1.0):
    reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
    after = alpha_t * (1 - sigma) + (1 - alpha_t) * reveal
    assert after == pytest.approx(alpha_s)
  bound = lambda a, b: float(remdm.sigma_max(jnp.float32(a), jnp.float32(b)))
  assert bound(0.0, 0.1) == 1
  # 1 - 0.9 in float32 is off by 2.4e-8.
  assert bound(0.8, 0.9) == pytest.approx(0.125, rel=1e-6)


# A denoiser of two positions and two symbols; 2 is the mask.
V, MASK = 2, 2
STATES = list(itertools.product(range(V + 1), repeat=2))
LOGITS = np.random.default_rng(0).normal(size=(V + 1, V + 1, 2, V + 1))


def denoiser(tokens_bt):
  return jnp.asarray(LOGITS, jnp.float32)[tokens_bt[:, 0], tokens_bt[:, 1]]


def softmax(x):
  return np.exp(x) / np.exp(x).sum()


def sigma_of(rule, state, psi, alpha_t, alpha_s):
  """Of both positions, from the paper's formulas."""
  most = min(1.0, (1 - alpha_s) / alpha_t) if alpha_t else 1.0
  if rule is ancestral.never:
    return np.zeros(2)
  if isinstance(rule, remdm.Confidence):
    weight = np.exp(-np.asarray(psi)) * (np.asarray(state) != MASK)
    return rule.eta * most * weight / max(weight.sum(), 1e-9)
  if isinstance(rule, remdm.Rescale):
    return np.full(2, rule.eta * most)
  if isinstance(rule, remdm.Loop) and alpha_t != alpha_s:
    return np.zeros(2)
  return np.full(2, min(rule.eta, most))


def kernel(rule, state, psi, alpha_t, alpha_s, is_last):
  """Probability of each of the states after one step, in that order."""
  sigma = sigma_of(rule, state, psi, alpha_t, alpha_s) * (not is_last)
  law = np.ones(1)
  for place, token in enumerate(state):
    to = np.zeros(V + 1)
    if token == MASK:
      reveal = (alpha_s - (1 - sigma[place]) * alpha_t) / (1 - alpha_t)
      reveal = 1.0 if is_last else reveal
      to[:V] = reveal * softmax(LOGITS[(*state, place)][:V])
      to[MASK] = 1 - reveal
    else:
      to[token], to[MASK] = 1 - sigma[place], sigma[place]
    law = np.outer(law, to).reshape(-1)
  return law


@pytest.mark.parametrize(
  'rule, alpha_t, alpha_s, is_last',
  [
    (ancestral.never, 0.6, 0.7, False),
    (remdm.Cap(0.2), 0.6, 0.7, False),
    (remdm.Cap(0.9), 0.6, 0.7, False),  # sigma_max is 0.5.
    (remdm.Rescale(0.4), 0.6, 0.7, False),
    (remdm.Rescale(1.0), 0.6, 0.7, False),
    (remdm.Rescale(1.0), 0.0, 0.3, False),  # All that is revealed is masked.
    (remdm.Confidence(), 0.6, 0.7, False),
    (remdm.Confidence(0.5), 0.3, 0.7, False),
    (remdm.Loop(0.2), 0.6, 0.7, False),
    (remdm.Loop(0.2), 0.7, 0.7, False),
    (remdm.Rescale(1.0), 0.6, 0.7, True),
  ],
)
def test_a_step_has_the_law_that_enumeration_gives(
  rule, alpha_t, alpha_s, is_last
):
  """From each of the nine states of two positions; false alarms 1e-3 each."""
  num = 4000
  tokens = np.repeat(STATES, num, axis=0).astype(np.int32)
  psi = np.random.default_rng(1).uniform(0.05, 1, (len(STATES), 2))
  before = samplers.Canvas(
    tokens_bt=jnp.asarray(tokens),
    is_masked_bt=jnp.asarray(tokens == MASK),
    num_calls_b=jnp.zeros(len(tokens), jnp.int32),
    reveal_step_bt=jnp.zeros(tokens.shape, jnp.int32),
    psi_bt=jnp.asarray(np.repeat(psi, num, axis=0), jnp.float32),
  )
  after = jax.jit(
    lambda canvas: ancestral.step(
      denoiser,
      canvas,
      jnp.float32(alpha_t),
      jnp.float32(alpha_s),
      7,
      rngs_b=samplers.row_rngs(jax.random.key(0), len(tokens)),
      is_free_bt=jnp.ones(tokens.shape, bool),
      mask_id=MASK,
      remask=rule,
      is_last=is_last,
    )
  )(before)
  found = np.asarray(after.tokens_bt)
  np.testing.assert_array_equal(after.is_masked_bt, found == MASK)
  is_new = (tokens == MASK) & (found != MASK)
  np.testing.assert_array_equal(after.num_calls_b, is_new.any(-1))
  chi2 = freedom = 0
  for i, state in enumerate(STATES):
    law = kernel(rule, state, psi[i], alpha_t, alpha_s, is_last)
    assert law.sum() == pytest.approx(1)
    codes = found[i * num : (i + 1) * num] @ [V + 1, 1]
    counts = np.bincount(codes, minlength=len(law))
    can = law > 1e-9
    assert not counts[~can].any()
    chi2 += ((counts - num * law)[can] ** 2 / (num * law[can])).sum()
    freedom += can.sum() - 1
  assert stats.chi2.sf(chi2, freedom) > 1e-3


@pytest.mark.parametrize('rule', [*RULES, remdm.Rescale(1.0)], ids=name_of)
def test_calls_are_steps_that_reveal_and_prompts_are_never_masked(rule):
  rows, steps = 64, 12
  alphas = schedules.Linear().alpha(schedules.grid(steps))
  if isinstance(rule, remdm.Loop):
    alphas = remdm.loop_alphas(steps)
  rngs = samplers.row_rngs(jax.random.key(0), rows)
  free = np.tile([True, False], (rows, 1))
  free[::2] = True  # Every second row has no prompt.
  begin = samplers.start(
    jnp.ones((rows, 2), jnp.int32), jnp.asarray(free), MASK
  )
  one = jax.jit(
    functools.partial(
      ancestral.step,
      denoiser,
      rngs_b=rngs,
      is_free_bt=jnp.asarray(free),
      mask_id=MASK,
      remask=rule,
    )
  )
  now, calls, dropped = begin, np.zeros(rows, int), 0
  for i in range(steps):
    last = jnp.asarray(i == steps - 1)
    new = one(now, alphas[i], alphas[i + 1], i, is_last=last)
    was, is_ = np.asarray(now.is_masked_bt), np.asarray(new.is_masked_bt)
    assert not is_[~free].any()
    assert (np.asarray(new.tokens_bt)[~free] == 1).all()
    calls += (was & ~is_).any(-1)
    dropped += (~was & is_).sum()
    now = new
  assert dropped > 0
  decode = functools.partial(
    ancestral.decode, denoiser, mask_id=MASK, remask=rule
  )
  out = jax.jit(decode)(begin, alphas, rngs)
  np.testing.assert_array_equal(out.num_calls_b, calls)
  np.testing.assert_array_equal(out.tokens_bt, now.tokens_bt)
  assert not out.is_masked_bt.any()
  # More than one call for a token, which never happens without remasking.
  assert (calls > free.sum(-1)).any()


def test_confidence_prefers_tokens_that_were_unlikely():
  rows = canvas([[0.9, 0.1, 0.5, 0.3]], [[False, False, True, False]])
  free = jnp.array([[True, True, True, False]])
  rate = remdm.Confidence(1.0)
  got = np.asarray(rate(rows, free, jnp.float32(0.5), jnp.float32(0.6)))[0]
  share = np.exp([-0.9, -0.1]) / np.exp([-0.9, -0.1]).sum()
  np.testing.assert_allclose(got, [*(0.8 * share), 0, 0], rtol=1e-5)


def test_the_loop_stands_still_between_its_times():
  alphas = np.asarray(remdm.loop_alphas(100))
  assert alphas[0] == 0
  assert alphas[-1] == 1
  assert (np.diff(alphas) >= -1e-7).all()
  assert (alphas[46:95] == np.float32(0.9)).all()
  rows, free = canvas([[0.5]], [[False]]), jnp.ones((1, 1), bool)
  rule = remdm.Loop(0.02)
  moving = rule(rows, free, jnp.float32(0.1), jnp.float32(0.2))
  standing = rule(rows, free, jnp.float32(0.9), jnp.float32(0.9))
  assert moving.item() == 0
  assert standing.item() == pytest.approx(0.02)
  with pytest.raises(ValueError, match='t_off'):
    remdm.loop_alphas(10, t_on=0.01)


def test_a_config_makes_the_rule_and_its_alphas():
  assert remdm.Config().make() == remdm.Rescale(0.015)
  assert remdm.Config(kind='cap').make() == remdm.Cap(0.008)
  assert remdm.Config(kind='confidence').make() == remdm.Confidence(1.0)
  assert remdm.Config(kind='loop', eta=0.5).make() == remdm.Loop(0.5)
  np.testing.assert_allclose(
    remdm.Config(kind='cap').alphas(4), [0, 0.25, 0.5, 0.75, 1], atol=1e-6
  )
  loop = remdm.Config(kind='loop', alpha_on=0.5, t_on=0.8, t_off=0.2)
  want = [0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75, 1]
  np.testing.assert_allclose(loop.alphas(10), want, atol=1e-5)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: remdm.Config(kind='conf'), "kind='conf' must be one of cap, resc"),
    (lambda: remdm.Config(eta=1.5), r'eta=1.5 must be in \[0, 1\]'),
    (lambda: remdm.Config(eta=float('nan')), 'eta=nan must be'),
    (lambda: remdm.Config(alpha_on=1.0), r'alpha_on=1.0 must be in \(0, 1\)'),
    (lambda: remdm.Config(t_on=0.01), 't_off=0.05 < t_on=0.01'),
    (
      lambda: remdm.Config(kind='loop').alphas(2),
      'num_steps=2 has no step between .* Take more than 4 steps',
    ),
  ],
)
def test_settings_that_cannot_be_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def lowest(psi, is_open, num):
  """The open positions of lowest psi, first ones first, by a loop."""
  places = [i for i in range(len(psi)) if is_open[i]]
  places.sort(key=lambda i: (psi[i], i))
  return [i in places[: max(num, 0)] for i in range(len(psi))]


def test_the_least_probable_are_dropped_but_fewer_than_were_new():
  rng = np.random.default_rng(0)
  rows = 300
  psi = rng.choice([0.1, 0.2, 0.3, 0.4], (rows, 6)).astype(np.float32)
  masked, free = (rng.random((2, rows, 6)) < 0.6).astype(bool)
  new = rng.integers(0, 5, rows)
  found = remdm.Lowest(2)(
    canvas(psi, masked), jnp.asarray(free), jnp.asarray(new)
  )
  want = [
    lowest(psi[b], free[b] & ~masked[b], min(2, new[b] - 1))
    for b in range(rows)
  ]
  np.testing.assert_array_equal(found, want)


LENGTH = 6
WIDE = np.random.default_rng(2).normal(size=(LENGTH, V + 1, LENGTH, V))


def wide(tokens_bt):
  """Logits that depend on all tokens of the row."""
  hot = jax.nn.one_hot(tokens_bt, V + 1)
  return jnp.einsum('btv,tvsw->bsw', hot, jnp.asarray(WIDE, jnp.float32))


def decoded(selector, remask, prompt_len=0, rows=16, **options):
  masked = jnp.tile(jnp.arange(LENGTH) >= prompt_len, (rows, 1))
  begin = samplers.start(jnp.ones((rows, LENGTH), jnp.int32), masked, MASK)
  decode = functools.partial(
    samplers.decode, wide, prompt_len=prompt_len, mask_id=MASK, **options
  )
  rngs = samplers.row_rngs(jax.random.key(3), rows)
  return jax.jit(decode)(begin, selector, rngs, remask=remask)


def by_hand(k, num, prompt_len):
  """`TopK(k)` with `Lowest(num)` on one row, in NumPy; tokens and calls."""
  tokens = np.full(LENGTH, MASK)
  tokens[:prompt_len] = 1
  psi, calls = np.ones(LENGTH), 0
  while (tokens == MASK).any():
    logits = sum(WIDE[t, tokens[t]] for t in range(LENGTH))
    probs = np.apply_along_axis(softmax, 1, logits)
    hidden = [i for i in range(LENGTH) if tokens[i] == MASK]
    chosen = sorted(hidden, key=lambda i: -probs[i].max())[:k]
    for i in chosen:
      tokens[i], psi[i] = probs[i].argmax(), probs[i].max()
    seen = [i for i in range(prompt_len, LENGTH) if tokens[i] != MASK]
    worst = sorted(seen, key=lambda i: psi[i])[: min(num, len(chosen) - 1)]
    tokens[worst] = MASK
    calls += 1
  return tokens, calls


@pytest.mark.parametrize('prompt_len', [0, 2])
@pytest.mark.parametrize('k, num', [(2, 1), (3, 1), (3, 2), (4, 9)])
def test_decoding_with_a_selector_masks_again_as_by_hand(k, num, prompt_len):
  got = decoded(selectors.TopK(k), remdm.Lowest(num), prompt_len, rows=2)
  tokens, calls = by_hand(k, num, prompt_len)
  np.testing.assert_array_equal(got.tokens_bt, np.tile(tokens, (2, 1)))
  assert got.num_calls_b.tolist() == [calls] * 2
  assert not got.is_masked_bt.any()


def test_two_new_tokens_less_one_take_a_call_per_token():
  got = decoded(selectors.Random(2), remdm.Lowest(1))
  assert got.num_calls_b.tolist() == [LENGTH] * 16
  assert (decoded(selectors.Random(2), None).num_calls_b == LENGTH // 2).all()
  # In blocks, what is masked again is decoded before what lies behind.
  got = decoded(selectors.Random(2), remdm.Lowest(1), block=2)
  assert not got.is_masked_bt.any()
  assert (got.num_calls_b >= LENGTH // 2).all()
  assert (got.num_calls_b <= LENGTH).all()


def test_where_one_token_is_new_none_is_masked_again():
  plain = decoded(selectors.Random(1), None)
  same = decoded(selectors.Random(1), remdm.Lowest(3))
  for name in ('tokens_bt', 'num_calls_b', 'reveal_step_bt', 'psi_bt'):
    np.testing.assert_array_equal(getattr(same, name), getattr(plain, name))


def test_a_row_is_masked_again_alone_as_in_a_batch():
  rule = selectors.Threshold(0.55)
  whole, part = (decoded(rule, remdm.Lowest(1), rows=n) for n in (16, 3))
  np.testing.assert_array_equal(whole.tokens_bt[:3], part.tokens_bt)
  np.testing.assert_array_equal(whole.num_calls_b[:3], part.num_calls_b)


CHAIN = markov_chain.MarkovChain(
  num_symbols=2, length=3, seed=2, num_forbidden=0
)


def test_moments_of_the_claim_are_those_of_all_rows():
  task = CHAIN
  rows = np.array(list(itertools.product(range(2), repeat=3)))
  steps = task.transitions[rows[:, :-1], rows[:, 1:]].prod(-1)
  prob = task.stationary[rows[:, 0]] * steps
  x = claim.features(task, rows)
  np.testing.assert_array_equal(x[3], [1, 2, 0, 1, 0, 1])  # The row 0 1 1.
  mean, covariance = claim.moments(task)
  np.testing.assert_allclose(mean, prob @ x, atol=1e-12)
  want = (x * prob[:, None]).T @ x - np.outer(mean, mean)
  np.testing.assert_allclose(covariance, want, atol=1e-12)


def test_p_values_of_the_claim_are_uniform_for_rows_of_the_chain():
  rng = np.random.default_rng(0)
  rows = np.array(list(itertools.product(range(2), repeat=3)))
  steps = CHAIN.transitions[rows[:, :-1], rows[:, 1:]].prod(-1)
  prob = CHAIN.stationary[rows[:, 0]] * steps
  draw = lambda p: claim.p_value(CHAIN, rows[rng.choice(8, 500, p=p)])
  found = [draw(prob / prob.sum()) for _ in range(400)]
  # Ten bins of 40 expected; 27.9 is the 0.999 quantile with 9 degrees.
  counts = np.histogram(found, 10, (0, 1))[0]
  assert ((counts - 40) ** 2 / 40).sum() < 27.9
  assert draw(np.full(8, 1 / 8)) < 1e-6


@pytest.mark.parametrize(
  'rule', [remdm.Rescale(0.5), remdm.Confidence()], ids=name_of
)
def test_the_law_of_the_claim_is_that_of_the_sampler(rule):
  rows, alphas = 8000, remdm.Config().alphas(5)
  law = claim.law(CHAIN, rule, np.asarray(alphas, np.float64))
  assert law.sum() == pytest.approx(1, abs=1e-5)
  shape = (rows, CHAIN.length)
  begin = samplers.start(
    jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), CHAIN.mask_id
  )
  decode = functools.partial(
    ancestral.decode, CHAIN.exact_denoiser, mask_id=CHAIN.mask_id, remask=rule
  )
  rngs = samplers.row_rngs(jax.random.key(0), rows)
  tokens = np.asarray(jax.jit(decode)(begin, alphas, rngs).tokens_bt)
  counts = np.bincount(tokens @ [4, 2, 1], minlength=8)
  want = rows * law.reshape(-1)
  chi2 = ((counts - want) ** 2 / want).sum()
  assert chi2 < 24.3  # The 0.999 quantile with 7 degrees of freedom.


class Independent(markov_chain.MarkovChain):
  """Symbols that say nothing of each other: drawn together or not, all one."""

  transitions = np.array([[0.9, 0.1], [0.9, 0.1]])
  stationary = np.array([0.9, 0.1])


@pytest.mark.parametrize(
  'rule', [*RULES, remdm.Rescale(1.0), ancestral.never], ids=name_of
)
def test_only_confidence_changes_the_law_of_independent_symbols(rule):
  task = Independent(num_symbols=2, length=3, num_forbidden=0)
  kind = 'loop' if isinstance(rule, remdm.Loop) else 'cap'
  ones = []
  for steps in (64, 256):
    alphas = np.asarray(remdm.Config(kind=kind).alphas(steps), np.float64)
    law = claim.law(task, rule, alphas)
    ones += [law[1].sum(), law[:, 1].sum(), law[:, :, 1].sum()]
  if isinstance(rule, remdm.Confidence):
    # The rare symbol gets rarer, and not less so with more steps.
    assert max(ones[:3]) < 0.097
    assert max(ones[3:]) < min(ones[:3])
  else:
    # Probabilities are rounded to six digits.
    np.testing.assert_allclose(ones, 0.1, atol=2e-6)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Selectors against loops in NumPy, and what all of them promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.diffusion import selectors

B, T, V = 250, 7, 5
ALL = {
  'random': selectors.Random(2),
  'top_k': selectors.TopK(2),
  'margin': selectors.Margin(3),
  'entropy': selectors.Entropy(2),
  'threshold': selectors.Threshold(0.5),
  'factor': selectors.Factor(1.3),
  'entropy_bound': selectors.EntropyBound(0.8),
  'confidence_bound': selectors.EntropyBound(0.8, proxy='confidence'),
  'margin_bound': selectors.EntropyBound(0.8, proxy='margin'),
}


@pytest.fixture(scope='module')
def view():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(B, T, V)) * rng.choice([0.5, 2, 6], (B, T, 1))
  probs = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
  masked = rng.random((B, T)) < 0.7
  allowed = masked & (rng.random((B, T)) < 0.8)
  return selectors.View(
    probs_btv=jnp.asarray(probs),
    tokens_bt=jnp.asarray(rng.integers(0, V, (B, T))),
    is_masked_bt=jnp.asarray(masked),
    allowed_bt=jnp.asarray(allowed),
    progress_b=jnp.zeros(B),
    rngs_b=jax.random.split(jax.random.key(1), B),
  )


def scores(name, p, token):
  ordered = np.sort(p)[::-1]
  return {
    'top_k': p[token],
    'margin': ordered[0] - ordered[1],
    'margin_bound': ordered[0] - ordered[1],
    'confidence_bound': ordered[0],
    'threshold': ordered[0],
    'factor': ordered[0],
  }.get(name, np.sum(p * np.log(p)))  # Entropy rules.


def brute_force(name, probs, tokens, allowed):
  """The set of one row, by the definition."""
  order = sorted(
    np.flatnonzero(allowed),
    key=lambda i: (-scores(name, probs[i], tokens[i]), i),
  )
  if not order:
    return set()
  conf = probs.max(-1)
  if name in ('top_k', 'entropy'):
    return set(order[:2])
  if name == 'margin':
    return set(order[:3])
  if name == 'threshold':
    return {order[0]} | {i for i in order if conf[i] >= 0.5}
  best = 1
  for n in range(1, len(order) + 1):
    if name == 'factor':
      if conf[order[n - 1]] < 1 - 1.3 / (n + 1):
        break
      best = n
    else:
      h = [-np.sum(probs[i] * np.log(probs[i])) for i in order[:n]]
      best = n if sum(h) - max(h) <= 0.8 else best
  return set(order[:best])


@pytest.mark.parametrize('name', [n for n in ALL if n != 'random'])
def test_sets_are_those_of_the_definition(name, view):
  got = np.asarray(jax.jit(ALL[name])(view))
  probs = np.asarray(view.probs_btv, np.float64)
  for row in range(B):
    want = brute_force(
      name,
      probs[row],
      np.asarray(view.tokens_bt[row]),
      np.asarray(view.allowed_bt[row]),
    )
    assert set(np.flatnonzero(got[row])) == want, row


@pytest.mark.parametrize('name', ALL)
def test_reveals_allowed_positions_at_least_one_and_row_by_row(name, view):
  got = np.asarray(ALL[name](view))
  allowed = np.asarray(view.allowed_bt)
  assert not (got & ~allowed).any()
  np.testing.assert_array_equal(got.any(-1), allowed.any(-1))
  assert not allowed.any(-1).all()  # Rows without a choice are covered.
  turned = np.random.default_rng(3).permutation(B)
  moved = jax.tree.map(lambda x: x[turned], view)
  np.testing.assert_array_equal(np.asarray(ALL[name](moved)), got[turned])


def test_ties_go_to_the_lowest_index():
  score = jnp.asarray([[1.0, 2.0, 2.0, 1.0]])
  allowed = jnp.asarray([[True, True, True, False]])
  assert selectors.ranks(score, allowed).tolist() == [[2, 0, 1, 3]]


@pytest.mark.parametrize('proxy', selectors.PROXIES)
def test_entropy_bound_has_its_limits(proxy, view):
  everything = selectors.EntropyBound(jnp.inf, proxy=proxy)(view)
  np.testing.assert_array_equal(everything, view.allowed_bt)
  one = np.asarray(selectors.EntropyBound(0.0, proxy=proxy)(view)).sum(-1)
  np.testing.assert_array_equal(one, np.asarray(view.allowed_bt).any(-1))


def test_error_proxies_choose_different_sets(view):
  found = [
    np.asarray(ALL[name](view))
    for name in ('entropy_bound', 'confidence_bound', 'margin_bound')
  ]
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert (found[i] != found[j]).any(), (i, j)


def test_an_unknown_error_proxy_is_refused():
  with pytest.raises(ValueError, match="proxy='top' must be one of entropy"):
    selectors.EntropyBound(0.5, proxy='top')


def test_the_oracle_prefers_what_is_right():
  probs = jnp.asarray([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
  state = selectors.View(
    probs_btv=probs,
    tokens_bt=probs.argmax(-1),
    is_masked_bt=jnp.ones((1, 3), bool),
    allowed_bt=jnp.ones((1, 3), bool),
    progress_b=jnp.zeros(1),
    rngs_b=jax.random.split(jax.random.key(0), 1),
  )
  oracle = selectors.OracleMargin(jnp.asarray([[1, 1, 1]]))
  assert oracle(state).tolist() == [[False, True, False]]


def test_a_sweep_compiles_once(view):
  select = jax.jit(lambda selector, view: selector(view))
  for threshold in (0.2, 0.5, 0.9):
    select(selectors.Threshold(threshold), view)
  assert select._cache_size() == 1

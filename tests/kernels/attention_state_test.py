# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jaxtok_kernels import AttentionState, merge, state


def random_parts(seed, num_keys, cuts, scale=1.0):
  """States over the parts of `num_keys` keys between `cuts`, float64."""
  rng = np.random.default_rng(seed)
  logits = scale * rng.normal(size=(2, 3, 2, num_keys))
  values = rng.normal(size=(num_keys, 4))

  def attend(lo, hi):
    s = logits[..., lo:hi]
    if lo == hi:
      return np.zeros((2, 3, 2, 4)), np.full((2, 3, 2), -np.inf)
    top = s.max(-1, keepdims=True)
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    return p / total @ values[lo:hi], (top + np.log(total))[..., 0]

  edges = [0, *cuts, num_keys]
  parts = [attend(a, b) for a, b in itertools.pairwise(edges)]
  as_state = lambda x: AttentionState(
    jnp.asarray(x[0], jnp.float32), jnp.asarray(x[1], jnp.float32)
  )
  return [as_state(x) for x in parts], attend(0, num_keys)


# One float32 rounding of a log-sum-exp of size x moves weights by x * 6e-8.
@pytest.mark.parametrize(
  ('scale', 'atol'), [(1.0, 1e-6), (1e4, 2e4 * 6e-8 * 4)]
)
@pytest.mark.parametrize('cuts', [(5,), (0, 3, 3, 11), (16, 16)])
def test_merge_of_parts_is_attention_over_all_keys(cuts, scale, atol):
  parts, (out, lse) = random_parts(0, 16, cuts, scale)
  for order in (parts, parts[::-1]):
    got = merge(order)
    np.testing.assert_allclose(got.out, out, atol=atol)
    np.testing.assert_allclose(got.lse, lse, rtol=1e-6, atol=1e-6)


def test_merge_is_associative_and_has_the_empty_state_as_identity():
  parts, _ = random_parts(1, 12, (4, 8))
  a = merge([merge(parts[:2]), parts[2]])
  b = merge([parts[0], merge(parts[1:])])
  np.testing.assert_allclose(a.out, b.out, atol=1e-6)
  none = state.empty(parts[0].out.shape)
  same = merge([none, parts[0], none])
  np.testing.assert_array_equal(same.out, parts[0].out)
  np.testing.assert_allclose(same.lse, parts[0].lse, rtol=1e-7)


def test_merge_of_empty_states_is_empty_and_has_zero_gradients():
  none = state.empty((1, 2, 1, 3))
  got = merge([none, none])
  assert not got.out.any()
  assert np.isneginf(got.lse).all()
  grads = jax.grad(lambda x: merge([x, none]).out.sum())(none)
  assert np.isfinite(grads.out).all()
  assert not grads.lse.any()


def test_gradient_of_merge_equals_finite_differences():
  parts, _ = random_parts(2, 8, (3,))
  fn = lambda a, b: jnp.concatenate(
    [merge([a, b]).out.ravel(), merge([a, b]).lse.ravel()]
  )
  jax.test_util.check_grads(fn, tuple(parts), order=1, modes=['rev'], rtol=2e-2)


def test_merge_names_what_is_wrong_with_its_argument():
  with pytest.raises(ValueError, match='states is empty'):
    merge([])
  with pytest.raises(ValueError, match='all must be the same'):
    merge([state.empty((1, 2, 1, 3)), state.empty((1, 3, 1, 3))])

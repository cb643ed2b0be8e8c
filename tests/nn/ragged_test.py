# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The four primitives of ragged units against loops in NumPy."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtok.nn import ragged

B, T, D = 3, 9, 4


def case(seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(B, T, D)).astype(np.float32)
  keep = rng.random((B, T)) < 0.5
  keep[0] = False  # A row with nothing,
  keep[1] = True  # and one with everything.
  return x, keep


@pytest.fixture(params=['jitted', 'eager'])
def run(request):
  """Calls a function with static keywords, jitted or not."""

  def call(function, *args, **static):
    function = functools.partial(function, **static)
    args = [jnp.asarray(x) for x in args]
    if request.param == 'jitted':
      return jax.jit(function)(*args)
    with jax.disable_jit():
      return function(*args)

  return call


@pytest.mark.parametrize('capacity', [1, 4, T, T + 2])
def test_compact_equals_a_loop(run, capacity):
  x, keep = case()
  got = run(ragged.compact, jnp.asarray(x), keep, capacity=capacity)
  for b in range(B):
    places = np.flatnonzero(keep[b])
    fit = places[:capacity]
    values = np.zeros((capacity, D), np.float32)
    values[: len(fit)] = x[b, fit]
    np.testing.assert_array_equal(got.values_bwd[b], values)
    index = np.full(capacity, T)
    index[: len(fit)] = fit
    np.testing.assert_array_equal(got.index_bw[b], index)
    np.testing.assert_array_equal(
      got.valid_bw[b], np.arange(capacity) < len(fit)
    )
    assert got.overflow_b[b] == len(places) - len(fit)


def test_segment_ids_count_starts(run):
  start = np.array([[0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 1]], bool)
  want = [[-1, -1, 0, 0, 1, 2], [0, 0, 0, 0, 0, 1]]
  np.testing.assert_array_equal(run(ragged.segment_ids, start), want)


@pytest.mark.parametrize('how', ragged.POOLS)
@pytest.mark.parametrize('capacity', [2, T])
def test_pools_equal_a_loop(run, how, capacity):
  x, start = case(1)
  unit = np.cumsum(start, axis=1).astype(np.int32) - 1
  got = run(
    ragged.segment_pool, jnp.asarray(x), unit, capacity=capacity, how=how
  )
  pool = {
    'mean': lambda v: v.astype(np.float64).mean(0),
    'sum': lambda v: v.astype(np.float64).sum(0),
    'max': lambda v: v.max(0),
    'last': lambda v: v[-1],
    'first': lambda v: v[0],
  }[how]
  for b in range(B):
    for w in range(capacity):
      members = x[b, unit[b] == w]
      want = pool(members) if len(members) else np.zeros(D)
      # Sums of at most 9 float32 numbers of order 1.
      np.testing.assert_allclose(got.values_bwd[b, w], want, atol=1e-5)
      assert got.valid_bw[b, w] == (len(members) > 0)
    num = unit[b].max() + 1
    assert got.overflow_b[b] == max(0, num - capacity)


# Half a unit in the last place of the result, relative.
ROUNDING = {'bfloat16': 2**-8, 'float16': 2**-11, 'float64': 2**-50}


def long_units(dtype):
  """Units of 600, 1, 300 and 99 positions with states around 1, float64."""
  rng = np.random.default_rng(4)
  x = rng.normal(1.0, 0.5, size=(1, 1000, 3)).astype(dtype).astype(np.float64)
  return x, np.repeat(np.arange(4, dtype=np.int32), (600, 1, 300, 99))[None]


def assert_rounded_once(got, members, want, dtype):
  # 600 additions in float32, and one rounding to the type of the states; the
  # sum of magnitudes bounds what the additions round.
  added = 2**-53 if dtype == 'float64' else 2**-24
  bound = len(members) * added * np.abs(members).sum(0) * np.abs(want)
  bound = bound / np.abs(members.sum(0)) + ROUNDING[dtype] * np.abs(want)
  assert (np.abs(np.asarray(got, np.float64) - want) <= bound).all()


@pytest.mark.parametrize('dtype', ROUNDING)
@pytest.mark.parametrize('how', ['mean', 'sum'])
def test_sums_of_long_units_are_rounded_once(dtype, how):
  with jax.enable_x64(dtype == 'float64'):
    x, unit = long_units(dtype)
    got = _pool(jnp.asarray(x, dtype), jnp.asarray(unit), 4, how).values_bwd
    assert got.dtype == dtype
    for w in range(4):
      members = x[0, unit[0] == w]
      want = members.mean(0) if how == 'mean' else members.sum(0)
      assert_rounded_once(got[0, w], members, want, dtype)


@pytest.mark.parametrize('dtype', ROUNDING)
def test_gradients_of_expanded_units_are_rounded_once(dtype):
  with jax.enable_x64(dtype == 'float64'):
    x, unit = long_units(dtype)
    unit[0, -1] = 7  # Found no room.

    @jax.jit
    def grad(u_bwd, x_btd, unit_bt):
      y_btd, vjp = jax.vjp(lambda u: ragged.expand(u, unit_bt), u_bwd)
      return y_btd, vjp(x_btd)[0]

    u = jnp.arange(12, dtype=dtype).reshape(1, 4, 3)
    y, du = grad(u, jnp.asarray(x, dtype), jnp.asarray(unit))
    assert y.dtype == du.dtype == dtype
    assert (y[0, :-1] == u[0, unit[0, :-1]]).all()
    assert not y[0, -1].any()
    for w in range(4):
      members = x[0, unit[0] == w]
      assert_rounded_once(du[0, w], members, members.sum(0), dtype)


def test_expand_repeats_units_and_is_zero_elsewhere(run):
  u = np.arange(12, dtype=np.float32).reshape(1, 3, 4) + 1
  unit = np.array([[-1, 0, 0, 2, 1, 3, 7]], np.int32)
  got = run(ragged.expand, jnp.asarray(u), unit)[0]
  want = [np.zeros(4) if not 0 <= j < 3 else u[0, j] for j in unit[0]]
  np.testing.assert_array_equal(got, want)


def test_scatter_add_puts_back_what_compact_took(run):
  x, keep = case(2)
  kept = ragged.compact(jnp.asarray(x), jnp.asarray(keep), T)
  got = run(ragged.scatter_add, jnp.asarray(x), kept.index_bw, kept.values_bwd)
  np.testing.assert_array_equal(got, np.where(keep[..., None], 2 * x, x))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
  keep=hnp.arrays(bool, (2, 7)), capacity=st.sampled_from([1, 3, 7])
)
def test_no_overflow_is_silent(keep, capacity):
  """Each kept position is in a slot or counted; likewise each unit."""
  x = np.arange(1.0, 15.0, dtype=np.float32).reshape(2, 7, 1)
  x, keep = jnp.asarray(x), jnp.asarray(keep)
  kept = _compact(x, keep, capacity)
  unit = ragged.segment_ids(keep)
  pooled = _pool(x, unit, capacity)
  back = np.asarray(_expand(pooled.values_bwd, unit))
  inside = np.asarray(ragged.within(unit, capacity))
  for b in range(2):
    held = np.asarray(kept.index_bw[b])[np.asarray(kept.valid_bw[b])]
    assert len(held) + kept.overflow_b[b] == keep[b].sum()
    assert set(held) <= set(np.flatnonzero(keep[b]))
    np.testing.assert_array_equal(
      kept.values_bwd[b, : len(held)], x[b, np.sort(held)]
    )
    assert pooled.valid_bw[b].sum() + pooled.overflow_b[b] == keep[b].sum()
    # What a lost unit leaves behind is zero, and `within` says where.
    assert (back[b, ~inside[b]] == 0).all()
    assert (back[b, inside[b]] > 0).all()
    lost = np.asarray(unit[b]) >= capacity
    assert (pooled.overflow_b[b] > 0) == lost.any()


_compact = jax.jit(ragged.compact, static_argnums=2)
_pool = jax.jit(ragged.segment_pool, static_argnums=(2, 3))
_expand = jax.jit(ragged.expand)


def test_gradients_reach_kept_positions_only():
  x, keep = case(3)
  total = lambda x: ragged.compact(x, jnp.asarray(keep), 4).values_bwd.sum()
  grad = jax.grad(total)(jnp.asarray(x))
  is_held = keep & (np.cumsum(keep, axis=1) <= 4)
  np.testing.assert_array_equal(grad[..., 0], is_held.astype(np.float32))


def test_policies_give_their_sizes():
  full = ragged.Capacity()
  ratio = ragged.Capacity(policy='ratio', ratio=0.3)
  bucket = ragged.Capacity(policy='bucket', multiple=16)
  assert full.sizes(40) == (40,)
  assert ratio.sizes(40) == (12,)
  assert ratio.sizes(1) == (1,)
  assert bucket.sizes(40) == (16, 32, 40)
  assert [bucket.choose(40, n) for n in (0, 16, 17, 33, 99)] == [
    *(16, 16, 32, 40, 40)
  ]


@pytest.mark.parametrize('num, want', [(0, 2), (2, 2), (3, 4), (9, 5)])
def test_dispatch_runs_the_least_size_that_holds_all_rows(run, num, want):
  got = run(
    lambda num_b: ragged.dispatch(jnp.float32, (2, 4, 5), num_b),
    jnp.array([1, num]) if num else jnp.array([0, 0]),
  )
  assert got == want


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'policy': 'some'}, "policy='some' must be one of full, ratio, bucket"),
    ({'ratio': 0.0}, r'ratio=0.0 must be in \(0, 1\]'),
    ({'multiple': 0}, 'multiple=0 must be >= 1'),
  ],
)
def test_impossible_capacities_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    ragged.Capacity(**fields)


def test_other_bad_arguments_are_refused():
  x, keep = map(jnp.asarray, case())
  with pytest.raises(ValueError, match='capacity=0 must be >= 1'):
    ragged.compact(x, keep, 0)
  with pytest.raises(ValueError, match="how='median' must be one of mean"):
    ragged.segment_pool(x, ragged.segment_ids(keep), 2, 'median')

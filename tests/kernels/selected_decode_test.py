# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Selected, blocked and paged decoding against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels.selected_decode import (
  block_decode,
  cost,
  gather_decode,
  paged_decode,
)

from tests.kernels import kernel_oracle

ATOL = 2e-5  # As in flash_attention_test.
B, T, N, K, H = 3, 2, 4, 2, 16
IMPLEMENTATIONS = ('reference', 'xla')


@pytest.fixture(autouse=True)
def short_steps(monkeypatch):
  """Eight tokens per step, so that lists take several steps."""
  monkeypatch.setattr(
    cost, 'units_per_step', lambda size, unit: max(1, min(size, 8 // unit))
  )


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def lists(num, size, heads, counts, seed=0):
  """Ascending random lists, -1 padded."""
  rng = np.random.default_rng(seed)
  ids = np.full((B, heads, size), -1, np.int32)
  for b, k in np.ndindex(B, heads):
    count = counts[(b + k) % len(counts)]
    ids[b, k, :count] = np.sort(rng.permutation(num)[:count])
  return jnp.asarray(ids), jnp.asarray((ids >= 0).sum(-1), jnp.int32)


def oracle(q, keys, values, tokens, positions=None, limit=None, **extra):
  """Attention per sequence and key head over explicit token lists."""
  b, t, n, _ = q.shape
  group = n // K
  out, lse = np.zeros(q.shape), np.zeros(q.shape[:3])
  for i, k in np.ndindex(b, K):
    ids = tokens[i][k]
    heads = slice(k * group, (k + 1) * group)
    seen = np.ones((t, len(ids)), bool)
    if limit is not None:
      seen = np.asarray(positions[i][k])[None] < limit[i][:, None]
    pick = lambda x, i=i, k=k, ids=ids: np.asarray(x(i, k, ids))[None, :, None]
    one = kernel_oracle.attention(
      q[i : i + 1, :, heads],
      pick(keys),
      pick(values),
      seen[None, None],
      **extra,
    )
    out[i, :, heads], lse[i, :, heads] = one[0][0], one[1][0]
  return out, lse


def compare(got, want):
  np.testing.assert_allclose(got.out, want[0], atol=ATOL)
  np.testing.assert_allclose(got.lse, want[1], atol=ATOL)


@pytest.mark.parametrize('heads', [1, K])
def test_selected_tokens_equal_float64_attention_over_them(heads):
  q, rows = draw(B, T, N, H), draw(50, 2 * K, H, seed=1)
  ids, count = lists(50, 21, heads, (0, 21, 5))
  tokens = [
    [np.asarray(ids[b, k % heads, : count[b, k % heads]]) for k in range(K)]
    for b in range(B)
  ]
  want = oracle(
    q,
    lambda i, k, x: rows[x, 2 * k],
    lambda i, k, x: rows[x, 2 * k + 1],
    tokens,
    softcap=1.5,
  )
  rows = rows.at[np.setdiff1d(np.arange(50), np.asarray(ids))].set(jnp.nan)
  for name in IMPLEMENTATIONS:
    fn = functools.partial(gather_decode, softcap=1.5, implementation=name)
    got = jax.jit(fn)(q, rows, ids, count)
    compare(got, want)
    assert np.isneginf(np.asarray(got.lse)).any()  # Some list is empty.


def test_rotation_at_read_equals_rotated_keys():
  q, rows = draw(B, T, N, H), draw(50, 2 * K, H, seed=1)
  ids, count = lists(50, 12, 1, (12, 7, 12))
  angle = np.arange(12)[:, None] * 0.3 ** np.arange(H // 2)
  cos, sin = (jnp.asarray(f(angle), jnp.float32) for f in (np.cos, np.sin))

  def keys(i, k, x):
    rotor = (
      np.asarray(rows[x, 2 * k, : H // 2], np.float64)
    ) + 1j * np.asarray(rows[x, 2 * k, H // 2 :])
    rotor = rotor * np.exp(1j * angle[: len(x)])
    return np.concatenate([rotor.real, rotor.imag], -1)

  tokens = [[np.asarray(ids[b, 0, : count[b, 0]])] * K for b in range(B)]
  want = oracle(q, keys, lambda i, k, x: rows[x, 2 * k + 1], tokens)
  for name in IMPLEMENTATIONS:
    fn = functools.partial(gather_decode, implementation=name)
    got = jax.jit(lambda *x, fn=fn: fn(*x, rope=(cos, sin)))(
      q, rows, ids, count
    )
    compare(got, want)


@pytest.mark.parametrize('heads', [1, K])
def test_selected_blocks_equal_float64_attention_over_them(heads):
  q = draw(B, T, N, H)
  k, v = draw(B, 24, K, H, seed=1), draw(B, 24, K, H, seed=2)
  ids, count = lists(6, 4, heads, (3, 0, 4))
  length = np.array([23, 24, 14])
  position = [
    [
      np.concatenate(
        [4 * x + np.arange(4) for x in np.asarray(ids[b, j % heads]) if x >= 0]
        or [np.zeros(0, int)]
      )
      for j in range(K)
    ]
    for b in range(B)
  ]
  limit = length[:, None] - T + 1 + np.arange(T)
  want = oracle(
    q,
    lambda i, j, x: k[i, x, j],
    lambda i, j, x: v[i, x, j],
    position,
    position,
    limit,
  )
  for name in IMPLEMENTATIONS:
    fn = functools.partial(block_decode, block=4, implementation=name)
    got = jax.jit(lambda *x, fn=fn: fn(*x, length_b=jnp.asarray(length)))(
      q, k, v, ids, count
    )
    compare(got, want)


def paged_case():
  rng = np.random.default_rng(0)
  pages = draw(20, 4, 2 * K, H, seed=1)
  table = jnp.asarray(rng.permutation(20)[:18].reshape(B, 6), jnp.int32)
  return draw(B, T, N, H), pages, table, np.array([23, 2, 13])


def test_paged_decoding_equals_float64_attention_over_the_sequence():
  q, pages, table, length = paged_case()
  flat = np.asarray(pages)[np.asarray(table)].reshape(B, 24, 2 * K, H)
  position = [[np.arange(length[b])] * K for b in range(B)]
  limit = length[:, None] - T + 1 + np.arange(T)
  want = oracle(
    q,
    lambda i, k, x: flat[i, x, 2 * k],
    lambda i, k, x: flat[i, x, 2 * k + 1],
    position,
    position,
    limit,
  )
  for name in IMPLEMENTATIONS:
    fn = functools.partial(paged_decode, implementation=name)
    compare(jax.jit(fn)(q, pages, table, jnp.asarray(length)), want)


def test_a_selection_of_all_pages_equals_paged_decoding():
  q, pages, table, length = paged_case()
  fn = functools.partial(paged_decode, implementation='xla')
  everything = jnp.broadcast_to(jnp.arange(6), (B, K, 6))
  whole = jax.jit(fn)(q, pages, table, jnp.asarray(length))
  chosen = jax.jit(
    lambda *x: fn(*x, block_idx=everything, count=jnp.full((B, K), 6))
  )(q, pages, table, jnp.asarray(length))
  np.testing.assert_allclose(chosen.out, whole.out, atol=1e-6)


@pytest.mark.parametrize('heads', [pytest.param(1, marks=pytest.mark.slow), K])
def test_gradients_equal_those_of_dense_attention(heads):
  with jax.enable_x64(True):
    q = draw(B, T, N, H, dtype=jnp.float64)
    rows = draw(50, 2 * K, H, seed=1, dtype=jnp.float64)
    ids, count = lists(50, 21, heads, (0, 21, 5))
    angle = jnp.arange(21.0)[:, None] * 0.3 ** jnp.arange(H // 2)

    def loss(name, q, rows):
      state = gather_decode(
        q,
        rows,
        ids,
        count,
        rope=(jnp.cos(angle), jnp.sin(angle)),
        softcap=2.0,
        implementation=name,
      )
      lse = jnp.where(jnp.isfinite(state.lse), state.lse, 0)
      return jnp.sin(state.out).sum() + jnp.sin(lse).sum()

    got, want = (
      jax.jit(jax.grad(functools.partial(loss, x), argnums=(0, 1)))(q, rows)
      for x in ('xla', 'reference')
    )
    for x, y in zip(got, want, strict=True):
      np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.parametrize('heads', [1, K])
def test_the_pool_is_not_copied(heads):
  """Else time would follow the cache, not the selection."""
  shape = jax.ShapeDtypeStruct
  q, pool = shape((1, 1, N, H), jnp.float32), shape((8192, 2 * K, H), 'float32')
  ids = shape((1, heads, 40), jnp.int32)
  count = shape((1, heads), jnp.int32)
  fn = jax.jit(functools.partial(gather_decode, implementation='xla'))
  compiled = fn.lower(q, pool, ids, count).compile()
  stats = compiled.memory_analysis()
  assert stats.temp_size_in_bytes < stats.argument_size_in_bytes / 8


def test_bytes_follow_the_selection():
  sizes = dict(b=1, t=1, num_heads=8, num_kv_heads=2, head_dim=64)
  few = cost.forward(tokens_read=1000, **sizes)
  many = cost.forward(tokens_read=2000, **sizes)
  assert many.num_bytes - few.num_bytes == 1000 * 2 * 2 * 64 * 2
  assert few.flops == 4 * 8 * 64 * 1000


@pytest.mark.parametrize('implementation', [*IMPLEMENTATIONS, 'tpu', 'triton'])
def test_empty_lists_give_the_empty_state(implementation):
  q, rows = draw(B, T, N, H), draw(50, 2 * K, H)
  ids, count = jnp.zeros((B, 1, 0), jnp.int32), jnp.zeros((B, 1), jnp.int32)
  run = functools.partial(gather_decode, implementation=implementation)
  state, vjp = jax.vjp(lambda q, rows: run(q, rows, ids, count), q, rows)
  assert state.out.shape == q.shape
  assert not state.out.any()
  assert np.isneginf(state.lse).all()
  for x, y in zip(
    vjp(jax.tree.map(jnp.ones_like, state)), (q, rows), strict=True
  ):
    assert x.shape == y.shape
    assert not x.any()


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_the_rotation_is_constant(implementation):
  q, rows = draw(B, T, N, H), draw(50, 2 * K, H)
  ids, count = lists(50, 3, 1, (3,))
  run = functools.partial(gather_decode, implementation=implementation)
  loss = lambda rope: run(q, rows, ids, count, rope=rope).out.sum()
  for x in jax.jit(jax.grad(loss))((draw(3, H // 2), draw(3, H // 2, seed=1))):
    assert not x.any()


def test_wrong_arguments_are_named():
  q, rows = draw(B, T, N, H), draw(50, 2 * K, H)
  ids, count = lists(50, 21, 1, (3,))
  with pytest.raises(ValueError, match=r'idx has shape .* must be \[3, 1 or 2'):
    gather_decode(q, rows, ids[:2], count)
  with pytest.raises(ValueError, match=r'count has shape \(2, 1\)'):
    gather_decode(q, rows, ids, count[:2])
  with pytest.raises(ValueError, match='rope has tables of shape'):
    gather_decode(q, rows, ids, count, rope=(jnp.ones((3, 8)),) * 2)
  k = draw(B, 25, K, H)
  with pytest.raises(ValueError, match='no multiple of block=4'):
    block_decode(q, k, k, ids, count, block=4)
  with pytest.raises(ValueError, match=r'v_bskh \(3, 25, 1, 16\) do not fit'):
    block_decode(q, k, k[:, :, :1], ids, count, block=5)
  with pytest.raises(ValueError, match=r'1.5 key heads of width 16'):
    gather_decode(q, rows[:, :3], ids, count)
  with pytest.raises(ValueError, match=r'softcap=0\.0 must be positive'):
    gather_decode(q, rows, ids, count, softcap=0.0)
  case = paged_case()
  with pytest.raises(ValueError, match='given together'):
    paged_decode(*case, block_idx=ids)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tree attention against its root-to-leaf paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels.tree_attention import (
  ancestor_bits,
  paged_tree_attention,
  tree_attention,
)

from tests.kernels import interpreted, kernel_oracle

ATOL = 2e-5  # As in flash_attention_test.
B, N, K, H, S = 2, 4, 2, 16, 11
# Two trees of 6; node 4 of the second does not exist.
PARENT = np.array([[-1, 0, 0, 1, -1, 3], [-1, -1, 1, 2, 0, 3]])
VALID = np.array([[1] * 6, [1, 1, 1, 1, 0, 1]], bool)


def path(parent, node):
  found = []
  while node >= 0:
    found.append(int(node))
    node = parent[node]
  return found[::-1]


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def operands():
  return (
    draw(B, 6, N, H),
    draw(B, S, K, H, seed=1).at[:, 9:].set(jnp.nan),
    draw(B, S, K, H, seed=2).at[:, 9:].set(jnp.nan),
    jnp.array([9, 0]),
    draw(B, 6, K, H, seed=3),
    draw(B, 6, K, H, seed=4),
  )


@pytest.mark.parametrize('size', [6, 33, 70])
def test_bits_mark_exactly_the_ancestors(size):
  rng = np.random.default_rng(0)
  parent = np.array([[rng.integers(-1, i) for i in range(size)]] * 2)
  parent[1] = np.arange(size) - 1  # A chain, the deepest tree.
  bits = np.asarray(ancestor_bits(jnp.asarray(parent)))
  for b, i in np.ndindex(2, size):
    words = bits[b, i]
    nodes = [j for j in range(size) if words[j >> 5] >> np.uint32(j & 31) & 1]
    assert nodes == sorted(path(parent[b], i))


@pytest.mark.parametrize('implementation', ['reference', 'xla'])
def test_each_node_equals_causal_attention_over_its_path(implementation):
  q, k, v, length, k_new, v_new = operands()
  got = jax.jit(
    functools.partial(tree_attention, implementation=implementation)
  )(
    q,
    k,
    v,
    length,
    k_new,
    v_new,
    parent_bg=jnp.asarray(PARENT),
    valid_bg=jnp.asarray(VALID),
  )
  for b, i in np.ndindex(B, 6):
    if not VALID[b, i]:
      assert not got.out[b, i].any()
      assert np.isneginf(got.lse[b, i]).all()
      continue
    nodes = path(PARENT[b], i)
    keys = np.concatenate([k[b, : length[b]], k_new[b, jnp.array(nodes)]])
    values = np.concatenate([v[b, : length[b]], v_new[b, jnp.array(nodes)]])
    seen = np.ones((1, K, 1, len(keys)), bool)
    out, lse = kernel_oracle.attention(
      q[b : b + 1, i : i + 1], keys[None], values[None], seen
    )
    np.testing.assert_allclose(got.out[b, i], out[0, 0], atol=ATOL)
    np.testing.assert_allclose(got.lse[b, i], lse[0, 0], atol=ATOL)


@pytest.mark.parametrize(
  'implementation', [pytest.param('reference', marks=pytest.mark.slow), 'xla']
)
def test_pages_equal_a_contiguous_cache(implementation):
  q, k, v, length, k_new, v_new = operands()
  k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (k, v))
  cache = jnp.stack([k, v], 3).reshape(B, 3, 4, 2 * K, H)
  order = jnp.array([4, 0, 3, 1, 5, 2])
  pages = (
    jnp.zeros((6, 4, 2 * K, H)).at[order].set(cache.reshape(6, 4, 2 * K, H))
  )
  extra = dict(parent_bg=jnp.asarray(PARENT), valid_bg=jnp.asarray(VALID))
  run = lambda fn, name: jax.jit(
    functools.partial(fn, implementation=name, **extra)
  )
  got = run(paged_tree_attention, implementation)(
    q, pages, order.reshape(B, 3), length, k_new, v_new
  )
  want = run(tree_attention, 'reference')(q, k, v, length, k_new, v_new)
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)
  np.testing.assert_allclose(got.lse, want.lse, atol=ATOL)


@pytest.mark.parametrize('implementation', ['reference', 'xla', 'triton'])
def test_an_empty_cache_leaves_the_drafts(implementation):
  q, k, v, length, k_new, v_new = operands()
  extra = dict(parent_bg=jnp.asarray(PARENT), valid_bg=jnp.asarray(VALID))
  run = functools.partial(tree_attention, **extra)
  named = functools.partial(run, implementation=implementation)
  got = interpreted.run(
    named, q, k[:, :0], v[:, :0], jnp.zeros_like(length), k_new, v_new
  )
  want = run(
    q, k, v, jnp.zeros_like(length), k_new, v_new, implementation='reference'
  )
  np.testing.assert_allclose(got.out, want.out, atol=ATOL)
  np.testing.assert_allclose(got.lse, want.lse, atol=ATOL)


@pytest.mark.parametrize('implementation', ['reference', 'xla', 'triton'])
def test_a_tree_without_nodes_gives_an_empty_state(implementation):
  q, k, v, length, k_new, v_new = operands()
  state = tree_attention(
    *(q[:, :0], k, v, length, k_new[:, :0], v_new[:, :0]),
    parent_bg=jnp.asarray(PARENT[:, :0]),
    implementation=implementation,
  )
  assert state.out.shape == (B, 0, N, H)
  assert state.lse.shape == (B, 0, N)


def test_gradients_are_refused():
  q, *rest = operands()
  loss = lambda q: tree_attention(q, *rest, parent_bg=jnp.asarray(PARENT)).out
  with pytest.raises(NotImplementedError, match='has no gradients'):
    jax.grad(lambda q: loss(q).sum())(q)


def test_wrong_arguments_are_named():
  args = operands()
  with pytest.raises(ValueError, match='exactly one of tree_bits and parent'):
    tree_attention(*args)
  with pytest.raises(ValueError, match='tree_bits has shape'):
    tree_attention(*args, tree_bits=jnp.zeros((B, 6, 2), jnp.uint32))
  run = functools.partial(tree_attention, parent_bg=jnp.asarray(PARENT))
  q, k, v, length, k_new, v_new = args
  with pytest.raises(ValueError, match=r'k_new_bgkh has shape \(2, 5, 2, 16\)'):
    run(q, k, v, length, k_new[:, :5], v_new[:, :5])
  with pytest.raises(ValueError, match=r'v_new_bgkh has shape \(2, 6, 1, 16\)'):
    run(q, k, v, length, k_new, v_new[:, :, :1])
  with pytest.raises(ValueError, match='2 key heads must divide the 3 query'):
    run(q[:, :, :3], k, v, length, k_new, v_new)
  with pytest.raises(ValueError, match=r'softcap=0\.0 must be positive'):
    run(*args, softcap=0.0)
  with pytest.raises(ValueError, match=r'valid_bg has shape \(2, 5\)'):
    run(*args, valid_bg=jnp.ones((2, 5), bool))
  pages = jnp.zeros((3, 4, 2 * K, H))
  with pytest.raises(ValueError, match=r'k_new_bgkh has shape \(2, 5, 2, 16\)'):
    paged_tree_attention(
      *(q, pages, jnp.zeros((B, 2), int), length, k_new[:, :5], v_new[:, :5]),
      parent_bg=jnp.asarray(PARENT),
    )

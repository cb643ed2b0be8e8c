# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared-prefix attention against float64 over concatenated keys."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import AttentionState, PagedKV, flash_attention, masks
from jaxtok_kernels.flash_attention import packing
from jaxtok_kernels.prefix_attention import (
  PrefixLevel,
  cost,
  shared_prefix_attention,
)
from jaxtok_kernels.prefix_attention.levels import group_tiles

from tests.kernels import interpreted, kernel_oracle, paging

ATOL = 2e-5  # As in flash_attention_test.
B, N, K, H = 7, 4, 2, 16


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  """Three sequences per tile, so that groups take several tiles."""
  monkeypatch.setattr(cost, 'sequences_per_tile', lambda b, t: min(b, 3))


def make_case(t=1, s=9, dtype=np.float32, seed=0):
  """Three levels with ragged groups, empty prefixes, sequences without one."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  groups = ([0] * 7, [1, 0, 1, 1, 1, 0, -1], [2, -1, 0, 3, 3, -1, 1])
  lengths = ([20], [11, 0], [3, 7, 1, 5])
  levels = tuple(
    PrefixLevel(
      draw(len(size), max(size) + 2, K, H),
      draw(len(size), max(size) + 2, K, H),
      jnp.asarray(size),
      jnp.asarray(group),
    )
    for size, group in zip(lengths, groups, strict=True)
  )
  suffix_len = jnp.array([0, t, 3, 9, 5, 2, 9])
  suffix_len = jnp.maximum(suffix_len, jnp.where(suffix_len > 0, t, 0))
  arrays = draw(B, t, N, H), levels, draw(B, s, K, H), draw(B, s, K, H)
  return *arrays, suffix_len


def oracle(q, levels, k, v, suffix_len):
  """Concatenates the keys of each sequence."""
  t = q.shape[1]
  out, lse = [], []
  for b in range(len(q)):
    parts = [(x, x.group_b[b]) for x in levels if x.group_b[b] >= 0]
    num = suffix_len[b]
    keys = [x.k_mpkh[g, : x.length_m[g]] for x, g in parts] + [k[b, :num]]
    values = [x.v_mpkh[g, : x.length_m[g]] for x, g in parts] + [v[b, :num]]
    keys, values = np.concatenate(keys), np.concatenate(values)
    shared = len(keys) - num
    row, key = np.arange(t)[:, None], np.arange(len(keys))
    seen = (key < shared) | (key - shared <= num - t + row)
    seen = np.broadcast_to(seen, (1, K, t, len(keys)))
    one = kernel_oracle.attention(q[b : b + 1], keys[None], values[None], seen)
    out.append(one[0][0])
    lse.append(one[1][0])
  return np.stack(out), np.stack(lse)


@pytest.mark.parametrize('t', [1, 3])
def test_shared_prefixes_equal_attention_over_concatenated_keys(t):
  args = make_case(t)
  want, lse = oracle(*args)
  pages = paging.in_pages(*args[2:], page=4)
  paged = *args[:2], pages, None, args[4]
  attend = lambda **more: [
    shared_prefix_attention(*x, **more) for x in (args, paged)
  ]
  for implementation in ('reference', 'xla'):
    states = jax.jit(lambda x=implementation: attend(implementation=x))()
    if implementation == 'xla':
      fused = functools.partial(attend, implementation='xla', fuse=True)
      states += jax.jit(fused)()
    for got in states:
      np.testing.assert_allclose(got.out, want, atol=ATOL)
      np.testing.assert_allclose(got.lse, lse, atol=ATOL)


def total(state):
  lse = jnp.where(jnp.isfinite(state.lse), state.lse, 0)
  return jnp.sin(state.out).sum() + jnp.sin(lse).sum()


@pytest.mark.parametrize('implementation', ['reference', 'xla', 'triton'])
def test_without_suffixes_sequences_see_their_prefixes(implementation):
  q, levels, k, v, _ = make_case()
  args = q, levels, k[:, :0], v[:, :0], jnp.zeros(B, jnp.int32)
  run = functools.partial(
    shared_prefix_attention, implementation=implementation
  )
  got = interpreted.run(run, *args)
  want, lse = oracle(*args)
  np.testing.assert_allclose(got.out, want, atol=ATOL)
  np.testing.assert_allclose(got.lse, lse, atol=ATOL)
  no_pages = PagedKV(jnp.zeros((1, 4, 2 * K, H)), jnp.zeros((B, 0), jnp.int32))
  paged = interpreted.run(run, *args[:2], no_pages, None, args[4])
  np.testing.assert_allclose(paged.out, got.out, atol=1e-6)
  np.testing.assert_allclose(paged.lse, got.lse, atol=1e-6)
  if implementation == 'triton':
    return  # Its gradient is the xla form's.
  grads = interpreted.run(
    jax.grad(lambda *x: total(run(x[0], levels, *x[1:], args[4])), (0, 1)),
    *(q, *args[2:4]),
  )
  assert grads[0].any()
  assert np.isfinite(grads[0]).all()
  assert grads[1].shape == (B, 0, K, H)


def test_each_cotangent_has_the_type_of_its_operand():
  q, levels, *suffix = make_case()
  to_half = lambda x: x.astype(jnp.bfloat16)
  level = dataclasses.replace(
    levels[1],
    k_mpkh=to_half(levels[1].k_mpkh),
    v_mpkh=to_half(levels[1].v_mpkh),
  )

  def loss(q, k_mpkh, v_mpkh):
    here = dataclasses.replace(level, k_mpkh=k_mpkh, v_mpkh=v_mpkh)
    return total(
      shared_prefix_attention(q, (here,), *suffix, implementation='xla')
    )

  args = q, level.k_mpkh, level.v_mpkh
  types = [x.dtype for x in jax.eval_shape(jax.grad(loss, (0, 1, 2)), *args)]
  assert types == [jnp.float32, jnp.bfloat16, jnp.bfloat16]


def test_gradients_equal_those_of_copied_prefixes():
  with jax.enable_x64(True):
    q, levels, k, v, length = make_case(3, dtype=np.float64)

    def loss(name, q, kv, k, v):
      parts = tuple(
        PrefixLevel(*x, y.length_m, y.group_b)
        for x, y in zip(kv, levels, strict=True)
      )
      state = shared_prefix_attention(
        q, parts, k, v, length, implementation=name
      )
      lse = jnp.where(jnp.isfinite(state.lse), state.lse, 0)
      return jnp.sin(state.out).sum() + jnp.sin(lse).sum()

    kv = [(x.k_mpkh, x.v_mpkh) for x in levels]
    grads = [
      jax.jit(jax.grad(functools.partial(loss, name), argnums=(0, 1, 2, 3)))(
        q, kv, k, v
      )
      for name in ('xla', 'reference')
    ]
    for x, y in zip(*map(jax.tree.leaves, grads), strict=True):
      np.testing.assert_allclose(x, y, atol=1e-12)


def test_gradients_of_pages_equal_those_of_a_contiguous_suffix():
  with jax.enable_x64(True):
    q, levels, k, v, length = make_case(3, dtype=np.float64)
    pages = paging.in_pages(k, v, length, page=4)
    # Two sequences may read one page: its gradient is the sum.
    table = pages.page_table_bu.at[3, 0].set(pages.page_table_bu[6, 0])
    k, v = (x.at[3, :4].set(x[6, :4]) for x in (k, v))

    def paged(q, kv, rows):
      level = dataclasses.replace(levels[1], k_mpkh=kv[0], v_mpkh=kv[1])
      suffix = PagedKV(rows, table)
      return total(
        shared_prefix_attention(
          q, (level,), suffix, None, length, fuse=True, implementation='xla'
        )
      )

    def contiguous(q, kv, rows):
      level = dataclasses.replace(levels[1], k_mpkh=kv[0], v_mpkh=kv[1])
      suffix = PagedKV(rows, table).contiguous()
      return total(
        shared_prefix_attention(
          q, (level,), *suffix, length, implementation='reference'
        )
      )

    rows = jnp.nan_to_num(pages.pages_pzch)
    args = q, (levels[1].k_mpkh, levels[1].v_mpkh), rows
    got, want = (
      jax.jit(jax.grad(fn, argnums=(0, 1, 2)))(*args)
      for fn in (paged, contiguous)
    )
    assert got[2].any()
    for x, y in zip(*map(jax.tree.leaves, (got, want)), strict=True):
      np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.slow  # Half a minute of compilation.
def test_gradients_equal_those_of_one_packed_sequence():
  """Responses to one prompt as a batch, or packed behind it in one row."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  p, r, s = 6, 3, 4
  kp, vp = draw(1, p, K, H), draw(1, p, K, H)
  q, k, v = draw(r, s, N, H), draw(r, s, K, H), draw(r, s, K, H)
  weight = draw(r, s, N, H)

  def shared(kp, vp, q, k, v):
    level = PrefixLevel(kp, vp, jnp.array([p]), jnp.zeros(r, jnp.int32))
    out = shared_prefix_attention(q, (level,), k, v, jnp.full(r, s)).out
    return (out * weight).sum()

  def packed(kp, vp, q, k, v):
    row = lambda x: x.reshape(1, r * s, *x.shape[2:])
    ids = jnp.repeat(jnp.arange(r + 1), jnp.array([p, s, s, s]))[None] + 1
    mask = masks.shared_prompt(jnp.array([p]), ids)
    q = jnp.concatenate([jnp.zeros((1, p, N, H)), row(q)], 1)
    k = jnp.concatenate([kp, row(k)], 1)
    v = jnp.concatenate([vp, row(v)], 1)
    out = flash_attention(q, k, v, mask=mask, implementation='reference')
    return (out[0, p:].reshape(r, s, N, H) * weight).sum()

  args = kp, vp, q, k, v
  got = jax.grad(shared, argnums=range(5))(*args)
  want = jax.grad(packed, argnums=range(5))(*args)
  for x, y in zip(got, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-4)


@pytest.mark.parametrize('block', [1, 3, 7])
def test_tiles_hold_every_sequence_once_and_one_group_each(block):
  group = np.array([1, 0, 1, -1, 1, 3, 1])
  tiles = group_tiles(jnp.asarray(group), 4, block)
  rows = np.asarray(tiles.rows)
  used = rows[rows < 7]
  assert sorted(used) == [0, 1, 2, 4, 5, 6]
  for i, row in enumerate(rows):
    assert (group[row[row < 7]] == tiles.group[i]).all()
    assert (row < 7).any() == (i < tiles.count)


def test_a_group_of_one_sequence_without_suffix_sees_its_prefix_only():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  level = PrefixLevel(
    draw(1, 5, 1, 8), draw(1, 5, 1, 8), jnp.array([5]), jnp.array([0])
  )
  q, k, v = draw(1, 1, 2, 8), draw(1, 4, 1, 8), draw(1, 4, 1, 8)
  got = shared_prefix_attention(q, (level,), k, v, jnp.array([0]))
  want = flash_attention(q, level.k_mpkh, level.v_mpkh, mask=masks.full())
  np.testing.assert_allclose(got.out, want, atol=1e-6)


def test_sharing_saves_the_bytes_of_the_copies():
  sizes = dict(
    prefix_lens=[4096],
    prefix_rows=[64],
    suffix_lens=[32] * 64,
    t=1,
    num_heads=8,
    num_kv_heads=2,
    head_dim=64,
  )
  shared, unshared = cost.forward(**sizes), cost.unshared(**sizes)
  assert shared.flops == unshared.flops == 4 * 8 * 64 * 64 * (4096 + 32)
  saved = unshared.num_bytes - shared.num_bytes
  assert saved == 63 * 4096 * 2 * 2 * 64 * 2


def test_wrong_arguments_are_named():
  q, levels, k, v, length = make_case()
  with pytest.raises(ValueError, match=r'suffix_len_b has shape \(1,\)'):
    shared_prefix_attention(q, levels, k, v, length[:1])
  with pytest.raises(ValueError, match=r'softcap=0\.0 must be positive'):
    shared_prefix_attention(q, levels, k, v, length, softcap=0.0)
  short = PrefixLevel(
    levels[0].k_mpkh, levels[0].v_mpkh, levels[0].length_m, jnp.zeros(2)
  )
  with pytest.raises(ValueError, match=r'levels\[0\].group_b has shape'):
    shared_prefix_attention(q, (short,), k, v, length)
  with pytest.raises(NotImplementedError, match='float32 is not supported'):
    shared_prefix_attention(
      q, levels, k, v, length, implementation='mosaic_gpu'
    )
  wide = dataclasses.replace(levels[0], v_mpkh=levels[0].v_mpkh[..., :8])
  with pytest.raises(ValueError, match=r'levels\[0\].v_mpkh has values of'):
    shared_prefix_attention(q, (wide,), k, v, length)


def test_what_cannot_be_fused_is_refused():
  q, *rest = make_case()
  with pytest.raises(NotImplementedError, match='fuse=True: every part is'):
    shared_prefix_attention(q, *rest, fuse=True, implementation='reference')
  shape = lambda *x: jax.ShapeDtypeStruct(x, jnp.bfloat16)
  keys = shape(2, 8, 1, 64)
  run = lambda n, **more: jax.eval_shape(
    lambda q, *x: shared_prefix_attention(
      q, (), *x, jnp.full(2, 8), implementation='mosaic_gpu', **more
    ),
    *(shape(2, 1, n, 64), keys, keys),
  )
  run(65)
  run(64, fuse=True)
  with pytest.raises(NotImplementedError, match='fuse=True: the kernel takes'):
    run(65, fuse=True)


def test_packed_states_are_states_of_packed_queries():
  rng = np.random.default_rng(0)
  state = AttentionState(
    jnp.asarray(rng.normal(size=(2, 3, N, H))),
    jnp.asarray(rng.normal(size=(2, 3, N))),
  )
  packed = packing.pack_state(state, K)
  want = packing.pack(state.out, K)
  np.testing.assert_array_equal(packed.out, want)
  for x, y in zip(packing.unpack(packed, 3), state, strict=True):
    np.testing.assert_array_equal(x, y)


def test_wrong_pages_are_named():
  q, levels, k, v, length = make_case()
  pages = paging.in_pages(k, v, length, page=4)
  run = lambda suffix, v=None, **more: shared_prefix_attention(
    q, levels, suffix, v, length, **more
  )
  with pytest.raises(ValueError, match='suffix_v_bskh must be None'):
    run(pages, v)
  with pytest.raises(ValueError, match='suffix_v_bskh must be one as well'):
    run(k)
  short = PagedKV(pages.pages_pzch, pages.page_table_bu[:2])
  with pytest.raises(ValueError, match=r'k_bskh\.page_table_bu has shape \(2'):
    run(short)
  odd = PagedKV(pages.pages_pzch[:, :, :3], pages.page_table_bu)
  with pytest.raises(ValueError, match=r'suffix_k_bskh\.pages_pzch 1\.5 key'):
    run(odd)
  three = PagedKV(pages.pages_pzch[:, :3], pages.page_table_bu)
  with pytest.raises(NotImplementedError, match='has pages: units of 3 tokens'):
    run(three, implementation='tpu')

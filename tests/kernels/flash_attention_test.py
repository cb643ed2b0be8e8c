# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention, reference and xla, against float64 NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jaxtok_kernels import (
  AttentionState,
  BlockLists,
  flash_attention,
  last_dispatch,
  masks,
  merge,
)
from jaxtok_kernels.flash_attention import cost, xla

from tests.kernels import kernel_oracle

IMPLEMENTATIONS = ('reference', 'xla')
# Float32 sums of N(0, 1) data: about 100 roundings of 6e-8 on values near 3.
ATOL = 2e-5


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  """Tiles of 16 x 8 and one batch element at a time: many steps."""
  monkeypatch.setattr(cost, 'xla_tiles', lambda t, s: cost.Tiles(16, 8))
  monkeypatch.setattr(cost, 'xla_batch', lambda b, n, tiles, devices: 1)


def inputs(b=2, t=37, s=37, n=4, k=2, h=16, hv=None, dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  shapes = (b, t, n, h), (b, s, k, h), (b, s, k, hv or h)
  return [jnp.asarray(rng.normal(size=x), dtype) for x in shapes]


def check(implementation, q, k, v, mask, atol=ATOL, **extra):
  """Compares out and lse with the oracle; returns the state."""
  b, t = q.shape[:2]
  seen = kernel_oracle.visible(mask, b, k.shape[2], t, k.shape[1])
  names = dict(sink='sink', bias='bias', state_in='state')
  want, lse = kernel_oracle.attention(
    q, k, v, seen, **{names.get(x, x): y for x, y in extra.items()}
  )
  got = jax.jit(
    lambda q, k, v, mask, arrays: flash_attention(
      q,
      k,
      v,
      mask=mask,
      return_state=True,
      implementation=implementation,
      **{x: y for x, y in extra.items() if x in ('scale', 'softcap')},
      **arrays,
    )
  )(q, k, v, mask, {x: extra[x] for x in names if x in extra})
  np.testing.assert_allclose(got.out, want, atol=atol)
  np.testing.assert_allclose(got.lse, lse, atol=1e-4, rtol=1e-6)
  return got


SEGMENTS = np.repeat([[1, 2, 3, 0], [1, 1, 4, 5]], [9, 12, 11, 5], axis=1)
MASKS = {
  'full': masks.full(),
  'causal': masks.causal(),
  'window': masks.window(6),
  'sinks': masks.sinks(3, 6),
  'prefix': masks.prefix(np.array([20, 3])),
  'packed': masks.packed(jnp.asarray(SEGMENTS)),
  'shared_prompt': masks.shared_prompt(
    jnp.array([12, 4]), jnp.asarray(SEGMENTS)
  ),
  'permuted': dataclasses.replace(
    masks.causal(),
    q_pos=jnp.asarray(np.random.default_rng(0).permutation(37))[None],
    kv_pos=jnp.asarray(np.random.default_rng(1).permutation(37) - 3)[None],
  ),
}


@pytest.mark.parametrize('name', MASKS)
@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_attention_equals_float64_attention(implementation, name):
  check(implementation, *inputs(), MASKS[name])


@pytest.mark.parametrize(
  ('n', 'k', 'h', 'hv'),
  [(1, 1, 192, 192), (4, 2, 80, 24), (7, 1, 16, 16), (8, 1, 64, 64)],
)
def test_query_heads_read_their_group_of_key_heads(n, k, h, hv):
  check('xla', *inputs(b=1, t=20, s=20, n=n, k=k, h=h, hv=hv), masks.causal())


@pytest.mark.parametrize(('t', 's'), [(1, 40), (40, 5), (16, 8)])
def test_numbers_of_queries_and_keys_may_differ(t, s):
  check('xla', *inputs(t=t, s=s), masks.causal(max(s - t, 0)))


def test_extras_equal_float64_attention():
  q, k, v = inputs()
  rng = np.random.default_rng(1)
  arrays = dict(
    sink=jnp.asarray(rng.normal(size=4), jnp.float32),
    bias=jnp.asarray(rng.normal(size=(1, 4, 37, 37)), jnp.float32),
    state_in=AttentionState(
      jnp.asarray(rng.normal(size=(2, 37, 4, 16)), jnp.float32),
      jnp.asarray(rng.normal(size=(2, 37, 4)), jnp.float32),
    ),
  )
  # Rows whose incoming state is empty.
  lse = arrays['state_in'].lse.at[:, ::3].set(-jnp.inf)
  out = arrays['state_in'].out.at[:, ::3].set(0)
  arrays['state_in'] = AttentionState(out, lse)
  for implementation in IMPLEMENTATIONS:
    check(
      implementation, q, k, v, MASKS['packed'], scale=0.3, softcap=1.5, **arrays
    )


def block_mask(seed, b, k, t, s, block_q, block_kv, rows=None):
  rng = np.random.default_rng(seed)
  num_q, num_kv = -(-t // block_q), -(-s // block_kv)
  listed = rng.random((b, k, num_q, num_kv)) < 0.4
  ids = np.argsort(~listed, axis=-1, kind='stable')
  full = rng.random(listed.shape) < 0.5
  lists = BlockLists(
    ids=jnp.asarray(ids, jnp.int32),
    count=jnp.asarray(listed.sum(-1), jnp.int32),
    full=jnp.asarray(full),
    block_q=block_q,
    block_kv=block_kv,
  )
  return masks.blocks(lists, rows)


@pytest.mark.parametrize('b, k', [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_block_lists_equal_float64_attention(b, k):
  mask = block_mask(0, b, k, 37, 41, 8, 16, masks.causal(4))
  q, k, v = inputs(s=41)
  for implementation in IMPLEMENTATIONS:
    check(implementation, q, k, v, mask)


def test_tree_of_drafts_equals_float64_attention():
  rng = np.random.default_rng(0)
  t, s = 37, 60
  below = np.tril(rng.random((2, t, t)) < 0.3) | np.eye(t, dtype=bool)
  bits = np.zeros((2, t, 2), np.uint32)
  for b, i, j in zip(*np.nonzero(below), strict=True):
    bits[b, i, j // 32] |= np.uint32(1) << np.uint32(j % 32)
  ends = jnp.broadcast_to(jnp.array([20, 23])[:, None], (2, t))
  rows = jnp.stack([jnp.zeros_like(ends), ends], -1)[:, :, None]
  mask = masks.tree(jnp.asarray(bits), masks.from_intervals(rows))
  assert (np.asarray(mask.dense(t, s))[:, :, s - t :] == below).all()
  q, k, v = inputs(t=t, s=s)
  for implementation in IMPLEMENTATIONS:
    check(implementation, q, k, v, mask)


def test_rows_without_keys_are_zero_and_have_zero_gradients():
  q, k, v = inputs()
  mask = MASKS['packed']  # The last rows of SEGMENTS are padding.
  for implementation in IMPLEMENTATIONS:
    fn = functools.partial(
      flash_attention,
      mask=mask,
      return_state=True,
      implementation=implementation,
    )
    state, vjp = jax.vjp(fn, q, k, v)
    assert not state.out[0, 32:].any()
    assert np.isneginf(state.lse[0, 32:]).all()
    ones = jax.tree.map(jnp.ones_like, state)
    for x in vjp(ones):
      assert np.isfinite(x).all()
    assert not vjp(ones)[0][0, 32:].any()


def test_one_visible_key_returns_its_value():
  q, k, v = inputs()
  row = jnp.arange(37)
  mask = masks.from_intervals(
    jnp.stack([36 - row, 37 - row], -1)[None, :, None]
  )
  out = flash_attention(q, k, v, mask=mask, implementation='xla')
  np.testing.assert_allclose(out, jnp.repeat(v[:, ::-1], 2, axis=2), rtol=1e-6)


def test_huge_logits_stay_finite_and_right():
  q, k, v = inputs()
  # One float32 rounding of a logit of 2e4 moves a weight by 1e-3 of itself.
  for implementation in IMPLEMENTATIONS:
    check(implementation, 2500 * q, k, v, masks.causal(), atol=1e-2)


def test_nan_in_keys_that_nobody_sees_does_not_leak():
  q, k, v = inputs()
  hide = lambda x: x.at[0, 30:].set(jnp.nan)
  mask = masks.lengths(jnp.array([30, 37]), 37)
  for implementation in IMPLEMENTATIONS:
    fn = lambda q, k, v, name=implementation: flash_attention(
      q, k, v, mask=mask, implementation=name
    )
    want, vjp = jax.vjp(fn, q, k, v)
    got, leaky = jax.vjp(fn, q, hide(k), hide(v))
    np.testing.assert_array_equal(got, want)
    for x, y in zip(leaky(want), vjp(want), strict=True):
      np.testing.assert_array_equal(x, y)


def extras(h, dtype, t=37):
  rng = np.random.default_rng(3)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  return dict(
    sink=draw(4),
    bias=draw(2, 1, t, t),
    state_in=AttentionState(draw(2, t, 4, h), draw(2, t, 4)),
  )


@pytest.mark.parametrize('name', ['causal', 'sinks', 'packed', 'permuted'])
def test_gradients_equal_those_of_dense_attention(name):
  with jax.enable_x64(True):
    arrays = inputs(dtype=np.float64)
    more = extras(16, np.float64)
    loss = lambda name: jax.jit(
      jax.grad(
        lambda args, more: sum(
          (jnp.sin(x) * jnp.isfinite(x)).sum()
          for x in flash_attention(
            *args,
            mask=MASKS[mask_name],
            softcap=2.0,
            return_state=True,
            implementation=name,
            **more,
          )
        ),
        argnums=(0, 1),
      )
    )
    mask_name = name
    want = loss('reference')(arrays, more)
    got = loss('xla')(arrays, more)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.parametrize('heads', [1, 2])
def test_block_list_gradients_equal_those_of_dense_attention(heads):
  with jax.enable_x64(True):
    q, k, v = inputs(dtype=np.float64)
    mask = block_mask(1, 2, heads, 37, 37, 16, 8, masks.causal())
    loss = lambda name: jax.grad(
      lambda *x: jnp.sin(
        flash_attention(*x, mask=mask, implementation=name)
      ).sum(),
      argnums=(0, 1, 2),
    )
    want = loss('reference')(q, k, v)
    for x, y in zip(loss('xla')(q, k, v), want, strict=True):
      np.testing.assert_allclose(x, y, atol=1e-12)


def test_gradients_equal_finite_differences():
  with jax.enable_x64(True):
    arrays = inputs(b=1, t=9, s=9, n=2, k=1, h=4, dtype=np.float64)
    fn = jax.jit(
      lambda q, k, v: tuple(
        flash_attention(
          q,
          k,
          v,
          mask=masks.causal(),
          return_state=True,
          implementation='xla',
        )
      )
    )
    jax.test_util.check_grads(fn, arrays, order=1, modes=['rev'])


def test_reference_has_forward_mode_and_second_derivatives():
  with jax.enable_x64(True):
    arrays = inputs(b=1, t=5, s=5, n=2, k=1, h=4, dtype=np.float64)
    fn = functools.partial(
      flash_attention, mask=masks.causal(), implementation='reference'
    )
    jax.test_util.check_grads(fn, arrays, order=2)


def test_bfloat16_is_within_twice_the_error_of_dense_bfloat16():
  q, k, v = inputs(t=64, s=64, h=64, dtype=jnp.bfloat16)
  mask = masks.causal()
  seen = kernel_oracle.visible(mask, 2, 2, 64, 64)
  want, lse = kernel_oracle.attention(q, k, v, seen)
  got = flash_attention(q, k, v, mask=mask, implementation='xla')
  assert got.dtype == jnp.bfloat16
  dense = jax.nn.dot_product_attention(q, k, v, is_causal=True)
  error = lambda x: np.abs(np.asarray(x, np.float64) - want).max()
  assert error(got) <= max(2 * error(dense), 2e-2)
  state = flash_attention(
    q, k, v, mask=mask, implementation='xla', return_state=True
  )
  assert state.out.dtype == state.lse.dtype == jnp.float32
  np.testing.assert_allclose(state.lse, lse, atol=1e-3)


def test_bfloat16_gradients_are_close_to_float32_gradients():
  arrays = inputs(t=64, s=64, h=64, dtype=jnp.bfloat16)
  grads = lambda args, name: jax.grad(
    lambda q, k, v: (
      flash_attention(q, k, v, mask=masks.causal(), implementation=name)
      .astype(jnp.float32)
      .sum()
    ),
    argnums=(0, 1, 2),
  )(*args)
  want = grads([x.astype(jnp.float32) for x in arrays], 'reference')
  for x, y in zip(grads(arrays, 'xla'), want, strict=True):
    assert x.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(x, np.float32) - y) / np.linalg.norm(y)
    assert error <= 2e-2


def test_attention_over_two_halves_merges_to_the_whole():
  q, k, v = inputs()
  fn = functools.partial(
    flash_attention, q, return_state=True, implementation='xla'
  )
  whole = fn(k, v, mask=masks.causal())
  left = fn(k[:, :20], v[:, :20], mask=masks.causal())
  right = masks.from_intervals(masks.causal(-20).row_intervals(37, 17))
  rest = fn(k[:, 20:], v[:, 20:], mask=right)
  chained = fn(k[:, 20:], v[:, 20:], mask=right, state_in=left)
  for got in (merge([left, rest]), chained):
    np.testing.assert_allclose(got.out, whole.out, atol=1e-6)
    np.testing.assert_allclose(got.lse, whole.lse, atol=1e-6)


def test_permuting_key_heads_with_their_queries_permutes_the_output():
  q, k, v = inputs(n=4, k=2)
  fn = functools.partial(
    flash_attention, mask=masks.causal(), implementation='xla'
  )
  want = fn(q, k, v)[:, :, jnp.array([2, 3, 0, 1])]
  got = fn(q[:, :, jnp.array([2, 3, 0, 1])], k[:, :, ::-1], v[:, :, ::-1])
  np.testing.assert_array_equal(got, want)


def test_each_element_of_a_batch_equals_its_own_batch_of_one():
  q, k, v = inputs()
  out = flash_attention(q, k, v, mask=MASKS['packed'], implementation='xla')
  for i in range(2):
    one = flash_attention(
      *(x[i : i + 1] for x in (q, k, v)),
      mask=masks.packed(jnp.asarray(SEGMENTS[i : i + 1])),
      implementation='xla',
    )
    np.testing.assert_allclose(out[i : i + 1], one, atol=1e-6)


def test_a_second_run_is_bit_equal():
  arrays = inputs()
  fn = jax.jit(
    jax.grad(
      lambda q, k, v: flash_attention(
        q, k, v, mask=masks.causal(), implementation='xla'
      ).sum(),
      argnums=(0, 1, 2),
    )
  )
  for x, y in zip(fn(*arrays), fn(*arrays), strict=True):
    np.testing.assert_array_equal(x, y)


def test_vmap_equals_a_loop():
  arrays = [jnp.stack(x) for x in zip(inputs(), inputs(seed=1), strict=True)]
  fn = functools.partial(
    flash_attention, mask=masks.causal(), implementation='xla'
  )
  got = jax.vmap(fn)(*arrays)
  want = jnp.stack([fn(*x) for x in zip(*arrays, strict=True)])
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_scores_are_never_all_in_memory(monkeypatch):
  monkeypatch.undo()
  t = 8192
  shape = jax.ShapeDtypeStruct((1, t, 1, 64), jnp.float32)
  fn = lambda q, k, v: flash_attention(
    q, k, v, mask=masks.causal(), implementation='xla'
  ).sum()
  grad = jax.jit(jax.grad(fn, argnums=(0, 1, 2)))
  stats = grad.lower(shape, shape, shape).compile().memory_analysis()
  # The scores alone would be 256 MiB; the operands are 2 MiB each.
  assert stats.temp_size_in_bytes < 40 * 2**20


def test_work_counts_visible_pairs_only():
  sizes = dict(b=1, t=8, s=8, num_heads=2, num_kv_heads=1, head_dim=4)
  work = cost.forward(pairs=masks.causal().pairs(8, 8), **sizes)
  assert work.flops == 4 * 2 * 4 * 36
  assert cost.backward(pairs=36, **sizes).flops == 2.5 * work.flops


def test_batch_chunks_divide_the_batch(monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(cost, '_CPU_TILE', 2 * 4 * 16 * 8)
  tiles = cost.Tiles(16, 8)
  assert cost.xla_batch(6, 4, tiles, devices=1) == 2
  assert cost.xla_batch(7, 4, tiles, devices=1) == 1
  assert cost.xla_batch(6, 4, tiles, devices=2) == 3
  assert xla.Options(scale=1.0) == xla.Options(scale=1.0)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(q_btnh=jnp.zeros((2, 37, 3, 16))), '2 key heads must divide the 3'),
    (dict(k_bskh=jnp.zeros((2, 37, 2, 8))), 'do not fit'),
    (dict(v_bskh=jnp.zeros((2, 37, 2, 16), jnp.bfloat16)), 'one type'),
    (dict(sink=jnp.zeros(3)), r'sink has shape \(3,\); it must be \(4,\)'),
    (dict(bias=jnp.zeros((2, 37, 37))), 'bias has shape'),
    (dict(mask=masks.prefix(jnp.zeros(3))), 'mask is for batch 3'),
    (dict(implementation='cuda'), "implementation='cuda' is unknown"),
    (
      dict(q_pos=jnp.zeros((1, 37)), mask=MASKS['permuted']),
      'q_pos is given twice',
    ),
  ],
)
def test_wrong_arguments_are_named(change, message):
  q, k, v = inputs()
  args = dict(q_btnh=q, k_bskh=k, v_bskh=v, mask=masks.causal()) | change
  with pytest.raises(ValueError, match=message):
    flash_attention(**args)


def test_a_named_implementation_that_cannot_serve_raises():
  q, k, v = inputs()
  mask = block_mask(0, 1, 1, 37, 37, 8, 8)
  with pytest.raises(NotImplementedError, match='bias cannot be combined'):
    flash_attention(
      q,
      k,
      v,
      mask=mask,
      bias=jnp.zeros((1, 1, 37, 37)),
      implementation='xla',
    )


def test_last_dispatch_tells_what_auto_chose():
  q, k, v = inputs()
  flash_attention(q, k, v, mask=masks.causal())
  found = last_dispatch()
  assert found.kernel == 'flash_attention'
  assert found.chosen == {jax.default_backend(): 'xla'}

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flash attention, reference and xla, against float64 NumPy.

Compilations are what costs time here: all masks go through one program as
arrays of intervals, values and gradients together (`maskspec_test` checks that
the intervals mean what the mask means).
"""

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
B, T, N, K, H = 2, 37, 4, 2, 16


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  """Tiles of 16 x 8 and one batch element at a time: many steps."""
  monkeypatch.setattr(cost, 'xla_tiles', lambda t, s: cost.Tiles(16, 8))
  monkeypatch.setattr(cost, 'xla_batch', lambda b, n, tiles, devices: 1)


def inputs(b=B, t=T, s=T, n=N, k=K, h=H, hv=None, dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  shapes = (b, t, n, h), (b, s, k, h), (b, s, k, hv or h)
  return [jnp.asarray(rng.normal(size=x), dtype) for x in shapes]


@functools.lru_cache
def forward(implementation, softcap=None):
  """Jitted `(q, k, v, mask, extras) -> AttentionState`."""
  return jax.jit(
    lambda q, k, v, mask, more: flash_attention(
      q,
      k,
      v,
      mask=mask,
      softcap=softcap,
      return_state=True,
      implementation=implementation,
      **more,
    )
  )


@functools.lru_cache
def with_gradients(implementation, softcap=None):
  """Jitted `(operands, mask, extras, cotangent) -> state, gradients`."""

  def run(args, mask, more, cotangent):
    fn = lambda args, more: forward(implementation, softcap)(*args, mask, more)
    state, vjp = jax.vjp(fn, args, more)
    return state, vjp(cotangent)

  return jax.jit(run)


def check(implementation, q, k, v, mask, atol=ATOL):
  """Compares out and lse with the oracle; returns the state."""
  b, t = q.shape[:2]
  seen = kernel_oracle.visible(mask, b, k.shape[2], t, k.shape[1])
  want, lse = kernel_oracle.attention(q, k, v, seen)
  got = forward(implementation)(q, k, v, mask, {})
  np.testing.assert_allclose(got.out, want, atol=atol)
  np.testing.assert_allclose(got.lse, lse, atol=1e-4, rtol=1e-6)
  return got


def cotangent(b=B, t=T, n=N, hv=H, dtype=np.float32):
  rng = np.random.default_rng(9)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  return AttentionState(draw(b, t, n, hv), draw(b, t, n))


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


def as_intervals(mask, t=T, s=T) -> masks.MaskSpec:
  """The mask as two intervals `[B, t, 2, 2]` and key positions `[1, s]`."""
  rows = np.zeros((B, t, 2, 2), np.int32)
  given = np.asarray(mask.row_intervals(t, s))
  rows[:, :, : given.shape[2]] = given
  pos = np.asarray(mask.key_positions(s))
  return dataclasses.replace(
    masks.from_intervals(jnp.asarray(rows)), kv_pos=jnp.asarray(pos)
  )


def extras(dtype):
  """Sink, bias, and an incoming state that is empty in every third row."""
  rng = np.random.default_rng(3)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  out = draw(B, T, N, H).at[:, ::3].set(0)
  lse = draw(B, T, N).at[:, ::3].set(-jnp.inf)
  return dict(
    sink=draw(N), bias=draw(2, 1, T, T), state_in=AttentionState(out, lse)
  )


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('name', MASKS)
def test_attention_and_its_gradients_equal_float64(implementation, name):
  """With soft cap, sink, bias and incoming state, 1e-12 apart."""
  seen = kernel_oracle.visible(MASKS[name], B, K, T, T)
  with jax.enable_x64(True):
    args, more = inputs(dtype=np.float64), extras(np.float64)
    given = dict(
      softcap=2.0, sink=more['sink'], bias=more['bias'], state=more['state_in']
    )
    ct = cotangent(dtype=np.float64)
    run = with_gradients(implementation, 2.0)
    mask = as_intervals(MASKS[name])
    got, (grads, rest) = run(args, mask, more, ct)
    got, grads, rest = jax.device_get((got, grads, rest))
  want, lse = kernel_oracle.attention(*args, seen, **given)
  np.testing.assert_allclose(got.out, want, atol=1e-12)
  np.testing.assert_allclose(got.lse, lse, atol=1e-12)
  want, others = kernel_oracle.gradients(*args, seen, *ct, **given)
  for x, y in zip(grads, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-12)
  for name in ('sink', 'bias'):
    np.testing.assert_allclose(rest[name], others[name], atol=1e-12)
  for x, y in zip(rest['state_in'], others['state'], strict=True):
    np.testing.assert_allclose(x, y, atol=1e-12)


def test_gradients_of_the_oracle_equal_finite_differences():
  q, k, v = (
    np.asarray(x, np.float64) for x in inputs(b=1, t=5, s=6, n=2, k=1, h=4)
  )
  rng = np.random.default_rng(0)
  seen = rng.random((1, 1, 5, 6)) < 0.6
  more = dict(
    softcap=2.0,
    sink=rng.normal(size=2),
    bias=rng.normal(size=(1, 1, 5, 6)),
    state=(rng.normal(size=(1, 5, 2, 4)), rng.normal(size=(1, 5, 2))),
  )
  dout, dlse = rng.normal(size=(1, 5, 2, 4)), rng.normal(size=(1, 5, 2))

  def loss(q, k, v, sink, bias, out, lse):
    given = more | dict(sink=sink, bias=bias, state=(out, lse))
    found = kernel_oracle.attention(q, k, v, seen, **given)
    return (found[0] * dout).sum() + (found[1] * dlse).sum()

  args = [q, k, v, more['sink'], more['bias'], *more['state']]
  grads, rest = kernel_oracle.gradients(q, k, v, seen, dout, dlse, **more)
  grads = [*grads, rest['sink'], rest['bias'], *rest['state']]
  for i, x in enumerate(args):
    way, step = rng.normal(size=x.shape), 1e-5
    moved = lambda e, i=i, x=x, way=way: loss(
      *args[:i], x + e * way, *args[i + 1 :]
    )
    slope = (moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose((grads[i] * way).sum(), slope, rtol=1e-7)


def test_float32_without_extras_equals_float64():
  """Masks as such: the programs of the band and of no mask at all."""
  for name in ('full', 'causal'):
    check('xla', *inputs(), MASKS[name])


HEADS = [(1, 1, 192, 192), (4, 2, 80, 24), (7, 1, 16, 16), (8, 1, 64, 64)]


@pytest.mark.parametrize(
  ('n', 'k', 'h', 'hv'),
  [
    (7, 1, 80, 24),
    (4, 4, 192, 192),
    *(pytest.param(*x, marks=pytest.mark.slow) for x in HEADS),
  ],
)
def test_query_heads_read_their_group_of_key_heads(n, k, h, hv):
  check('xla', *inputs(b=1, t=20, s=20, n=n, k=k, h=h, hv=hv), masks.causal())


@pytest.mark.parametrize(
  ('t', 's'),
  [(1, 40), (40, 5), pytest.param(16, 8, marks=pytest.mark.slow)],
)
def test_numbers_of_queries_and_keys_may_differ(t, s):
  check('xla', *inputs(t=t, s=s), masks.causal(max(s - t, 0)))


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


@pytest.mark.parametrize(
  'b, k',
  [
    (1, 1),
    (2, 2),
    pytest.param(2, 1, marks=pytest.mark.slow),
    pytest.param(1, 2, marks=pytest.mark.slow),
  ],
)
def test_block_lists_and_their_gradients_equal_float64(b, k):
  mask = block_mask(0, b, k, T, 41, 8, 16, masks.causal(4))
  seen = kernel_oracle.visible(mask, B, K, T, 41)
  with jax.enable_x64(True):
    args, ct = inputs(s=41, dtype=np.float64), cotangent(dtype=np.float64)
    got, (grads, _) = with_gradients('xla')(args, mask, {}, ct)
    got, grads = jax.device_get((got, grads))
  want, lse = kernel_oracle.attention(*args, seen)
  np.testing.assert_allclose(got.out, want, atol=1e-12)
  np.testing.assert_allclose(got.lse, lse, atol=1e-12)
  want, _ = kernel_oracle.gradients(*args, seen, *ct)
  for x, y in zip(grads, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-12)


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


def xla_in_float32(args, mask, ct=None):
  """The one float32 program that the tests below share."""
  mask = mask if mask.kv_pos is not None else as_intervals(mask)
  ct = cotangent() if ct is None else ct
  state, (grads, _) = with_gradients('xla')(list(args), mask, {}, ct)
  return state, grads


def test_rows_without_keys_are_zero_and_have_zero_gradients():
  # The last rows of SEGMENTS are padding.
  state, grads = xla_in_float32(inputs(), MASKS['packed'])
  assert not state.out[0, 32:].any()
  assert np.isneginf(state.lse[0, 32:]).all()
  for x in grads:
    assert np.isfinite(x).all()
  assert not grads[0][0, 32:].any()
  assert grads[0][0, :32].any()


def test_a_bias_of_minus_infinity_hides_keys():
  """Also the only key tile, the first tiles of a row and all of a row."""
  q, k, v = inputs()
  bias = np.zeros((1, 1, T, T), np.float32)
  bias[..., ~np.tri(T, dtype=bool).T] = -np.inf  # Row i sees keys >= i.
  bias[..., 5, :] = -np.inf
  seen = np.isfinite(bias[:, :1]) & np.ones((B, K, 1, 1), bool)
  ct = cotangent()
  state, (grads, more) = with_gradients('xla')(
    [q, k, v], masks.full(), dict(bias=jnp.asarray(bias)), ct
  )
  want, lse = kernel_oracle.attention(q, k, v, seen)
  np.testing.assert_allclose(state.out, want, atol=ATOL)
  np.testing.assert_allclose(state.lse, lse, atol=ATOL)
  assert not state.out[:, 5].any()
  assert np.isneginf(state.lse[:, 5]).all()
  want, named = kernel_oracle.gradients(
    q, k, v, seen, *ct, bias=0 * seen[:1, :1]
  )
  for x, y in zip(grads, want, strict=True):
    np.testing.assert_allclose(x, y, atol=ATOL)
  np.testing.assert_allclose(more['bias'], named['bias'], atol=ATOL)
  assert not more['bias'][..., 5, :].any()


def test_one_visible_key_returns_its_value():
  q, k, v = inputs()
  row = jnp.arange(37)
  only = jnp.stack([36 - row, 37 - row], -1)[None, :, None]
  state, _ = xla_in_float32((q, k, v), as_intervals(masks.from_intervals(only)))
  np.testing.assert_allclose(
    state.out, jnp.repeat(v[:, ::-1], 2, axis=2), rtol=1e-6
  )


def test_huge_logits_stay_finite_and_right():
  q, k, v = inputs()
  q = 2500 * q
  seen = kernel_oracle.visible(masks.causal(), B, K, T, T)
  want, lse = kernel_oracle.attention(q, k, v, seen)
  state, grads = xla_in_float32((q, k, v), masks.causal())
  # One float32 rounding of a logit of 2e4 moves a weight by 1e-3 of itself.
  np.testing.assert_allclose(state.out, want, atol=1e-2)
  np.testing.assert_allclose(state.lse, lse, rtol=1e-6, atol=1e-2)
  assert all(np.isfinite(x).all() for x in grads)


def test_nan_in_keys_that_nobody_sees_does_not_leak():
  q, k, v = inputs()
  hide = lambda x: x.at[0, 30:].set(jnp.nan)
  mask = as_intervals(masks.lengths(jnp.array([30, 37]), 37))
  want = xla_in_float32((q, k, v), mask)
  got = xla_in_float32((q, hide(k), hide(v)), mask)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  with jax.enable_x64(True):
    args, more = inputs(dtype=np.float64), extras(np.float64)
    run = lambda q, k, v: with_gradients('reference', 2.0)(
      [q, k, v], mask, more, cotangent(dtype=np.float64)
    )
    q, k, v = args
    want, got = run(q, k, v), run(q, hide(k), hide(v))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_attention_over_two_halves_merges_to_the_whole():
  args = inputs()
  rows = np.asarray(as_intervals(masks.causal()).intervals)
  part = lambda low, high: dataclasses.replace(
    as_intervals(masks.causal()), intervals=jnp.asarray(rows.clip(low, high))
  )
  (whole, _), (left, _), (right, _) = (
    xla_in_float32(args, part(*x)) for x in ((0, T), (0, 20), (20, T))
  )
  got = merge([left, right])
  np.testing.assert_allclose(got.out, whole.out, atol=1e-6)
  np.testing.assert_allclose(got.lse, whole.lse, atol=1e-6)


def test_permuting_key_heads_with_their_queries_permutes_the_output():
  q, k, v = inputs(n=4, k=2)
  heads = np.array([2, 3, 0, 1])
  want, _ = xla_in_float32((q, k, v), masks.causal())
  swapped = q[:, :, heads], k[:, :, ::-1], v[:, :, ::-1]
  got, _ = xla_in_float32(swapped, masks.causal())
  np.testing.assert_array_equal(got.out, want.out[:, :, heads])


def test_each_element_of_a_batch_ignores_the_others():
  q, k, v = inputs()
  want, _ = xla_in_float32((q, k, v), MASKS['packed'])
  other = [x.at[1].multiply(3.0) for x in (q, k, v)]
  got, _ = xla_in_float32(other, MASKS['packed'])
  np.testing.assert_array_equal(got.out[0], want.out[0])
  assert (got.out[1] != want.out[1]).any()


def test_a_second_run_is_bit_equal():
  runs = [xla_in_float32(inputs(), MASKS['sinks']) for _ in range(2)]
  jax.tree.map(np.testing.assert_array_equal, *runs)


def test_vmap_equals_a_loop():
  arrays = [jnp.stack(x) for x in zip(inputs(), inputs(seed=1), strict=True)]
  mask = as_intervals(masks.causal())
  fn = lambda q, k, v: forward('xla')(q, k, v, mask, {}).out
  got = jax.jit(jax.vmap(fn))(*arrays)
  for i, x in enumerate(got):
    want, _ = xla_in_float32([y[i] for y in arrays], mask)
    np.testing.assert_allclose(x, want.out, atol=1e-6)


@pytest.mark.slow
def test_gradients_equal_finite_differences():
  with jax.enable_x64(True):
    arrays = inputs(b=1, t=9, s=9, n=2, k=1, h=4, dtype=np.float64)
    fn = lambda *x: tuple(forward('xla')(*x, masks.causal(), {}))
    jax.test_util.check_grads(fn, arrays, order=1, modes=['rev'])


@pytest.mark.slow
def test_reference_has_forward_mode_and_second_derivatives():
  with jax.enable_x64(True):
    arrays = inputs(b=1, t=5, s=5, n=2, k=1, h=4, dtype=np.float64)
    fn = lambda *x: tuple(forward('reference')(*x, masks.causal(), {}))
    jax.test_util.check_grads(fn, arrays, order=2)


def test_second_derivatives_of_the_reference_equal_differences():
  with jax.enable_x64(True):
    args = inputs(b=1, t=5, s=5, n=2, k=1, h=4, dtype=np.float64)
    ways = inputs(b=1, t=5, s=5, n=2, k=1, h=4, dtype=np.float64, seed=1)

    def moved(e):
      x = [x + e * y for x, y in zip(args, ways, strict=True)]
      return forward('reference')(*x, masks.causal(), {}).out.sum()

    slope = lambda e: jax.jvp(moved, (e,), (1.0,))[1]
    curve, slope = jax.jit(lambda e: (jax.grad(slope)(e), slope(e)))(0.0)
    args, ways = jax.device_get((args, ways))
  seen = kernel_oracle.visible(masks.causal(), 1, 1, 5, 5)

  def oracle(e):
    x = [x + e * y for x, y in zip(args, ways, strict=True)]
    return kernel_oracle.attention(*x, seen)[0].sum()

  low, middle, high = (oracle(e) for e in (-1e-4, 0, 1e-4))
  np.testing.assert_allclose(slope, (high - low) / 2e-4, rtol=1e-6)
  # Rounding of the sums, 1e-15, over the squared step.
  np.testing.assert_allclose(curve, (high - 2 * middle + low) / 1e-8, atol=1e-5)


def test_bfloat16_is_within_twice_the_error_of_dense_bfloat16():
  q, k, v = inputs(t=64, s=64, h=64, dtype=jnp.bfloat16)
  mask = masks.causal()
  seen = kernel_oracle.visible(mask, B, K, 64, 64)
  want, lse = kernel_oracle.attention(q, k, v, seen)
  ct = cotangent(t=64, hv=64, dtype=jnp.bfloat16)

  def run(q, k, v):
    attend = functools.partial(flash_attention, mask=mask, implementation='xla')
    out, vjp = jax.vjp(attend, q, k, v)
    return out, vjp(ct.out), attend(q, k, v, return_state=True)

  got, grads, state = jax.jit(run)(q, k, v)
  assert got.dtype == jnp.bfloat16
  dense = jax.nn.dot_product_attention(q, k, v, is_causal=True)
  error = lambda x: np.abs(np.asarray(x, np.float64) - want).max()
  assert error(got) <= max(2 * error(dense), 2e-2)
  assert state.out.dtype == state.lse.dtype == jnp.float32
  np.testing.assert_allclose(state.lse, lse, atol=1e-3)
  dlse = np.zeros(lse.shape)
  want, _ = kernel_oracle.gradients(q, k, v, seen, ct.out, dlse)
  for x, y in zip(grads, want, strict=True):
    assert x.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(x, np.float64) - y) / np.linalg.norm(y)
    assert error <= 2e-2


def test_scores_are_never_all_in_memory(monkeypatch):
  monkeypatch.undo()
  t = 2048
  shape = jax.ShapeDtypeStruct((1, t, 1, 16), jnp.float32)
  fn = lambda q, k, v: flash_attention(
    q, k, v, mask=masks.causal(), implementation='xla'
  ).sum()
  grad = jax.jit(jax.grad(fn, argnums=(0, 1, 2)))
  stats = grad.lower(shape, shape, shape).compile().memory_analysis()
  # The scores alone would be 16 MiB; the operands are 0.1 MiB each.
  assert stats.temp_size_in_bytes < 3 * 2**20


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
    (dict(mask=None), 'mask is None; it must be a MaskSpec'),
    (dict(q_pos=jnp.zeros(37, int)), r'mask.q_pos has shape \(37,\)'),
    (
      dict(q_pos=jnp.zeros((1, 37), int), mask=MASKS['packed']),
      'q_pos is given, but mask has explicit intervals',
    ),
    (
      dict(mask=masks.tree(jnp.zeros((1, 37, 1), jnp.uint32))),
      '37 nodes need 2 words',
    ),
    (
      dict(state_in=AttentionState(jnp.zeros((2, 37, 4, 16)), None)),
      r'state_in.lse has shape None; it must be \(2, 37, 4\)',
    ),
    (dict(softcap=0.0), 'softcap=0.0 must be positive'),
    (dict(softcap=-1.0), 'softcap=-1.0 must be positive'),
  ],
)
def test_wrong_arguments_are_named(change, message):
  q, k, v = inputs()
  args = dict(q_btnh=q, k_bskh=k, v_bskh=v, mask=masks.causal()) | change
  with pytest.raises(ValueError, match=message):
    flash_attention(**args)


def test_a_traced_scale_is_named():
  attend = functools.partial(flash_attention, *inputs(), mask=masks.full())
  with pytest.raises(ValueError, match='scale is traced'):
    jax.jit(lambda x: attend(scale=x))(0.5)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize(('t', 's'), [(3, 0), (0, 3)])
def test_without_queries_or_keys_there_is_the_state_given(implementation, t, s):
  q, k, v = inputs(t=t, s=s, hv=8)
  given = cotangent(t=t, hv=8)
  attend = functools.partial(
    flash_attention,
    mask=masks.causal(),
    return_state=True,
    implementation=implementation,
  )
  state = attend(q, k, v)
  assert state.out.shape == (B, t, N, 8)
  assert not state.out.any()
  assert np.isneginf(state.lse).all()
  run = lambda *x: attend(*x[:3], state_in=x[3], bias=x[4])
  args = (q, k, v, given, jnp.zeros((1, 1, t, s)))
  state, vjp = jax.vjp(run, *args)
  np.testing.assert_allclose(state.out, given.out, rtol=1e-6)
  np.testing.assert_allclose(state.lse, given.lse, rtol=1e-6)
  *grads, dgiven, dbias = vjp(given)
  np.testing.assert_allclose(dgiven.out, given.out, rtol=1e-6)
  for x, y in zip([*grads, dbias], [q, k, v, args[4]], strict=True):
    assert x.shape == y.shape
    assert not x.any()
  out = flash_attention(
    q, k, v, mask=masks.full(), implementation=implementation
  )
  assert out.shape == (B, t, N, 8)


def test_full_blocks_hide_padding_keys():
  mask = block_mask(0, 1, 1, T, 41, 8, 16, masks.causal(4))
  pos = np.arange(41)
  pos[::5] = -1
  mask = dataclasses.replace(mask, kv_pos=jnp.asarray(pos)[None])
  for implementation in IMPLEMENTATIONS:
    check(implementation, *inputs(s=41), mask)


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
  jax.eval_shape(
    functools.partial(flash_attention, mask=masks.causal()), *inputs()
  )
  found = last_dispatch()
  assert found.kernel == 'flash_attention'
  assert found.chosen == {jax.default_backend(): 'xla'}

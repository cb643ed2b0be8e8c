# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pallas flash attention on a CPU: interpreted, checked for races, lowered."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import (
  AttentionState,
  BlockLists,
  _compat,
  column_sums,
  dispatch,
  flash_attention,
  interpret_mode,
  last_dispatch,
  lowering_platforms,
  masks,
)
from jaxtok_kernels.flash_attention import cost, tile_lists, tpu_plan, xla

from tests.kernels import kernel_oracle

B, T, S, N, K, H = 2, 40, 300, 4, 2, 64
ATOL = 2e-5  # As in flash_attention_test.


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  triton = cost.TritonTiles(16, 32)
  tpu = cost.TpuTiles(16, 256, 128)
  monkeypatch.setattr(cost, 'tpu_tiles', lambda *_: tpu)
  monkeypatch.setattr(cost, 'tpu_backward_tiles', lambda *_: tpu)
  monkeypatch.setattr(cost, 'triton_tiles', lambda *_: triton)
  monkeypatch.setattr(cost, 'triton_backward_tiles', lambda *_: triton)


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def inputs(dtype=jnp.float32, s=S, t=T):
  shapes = (B, t, N, H), (B, s, K, H), (B, s, K, H)
  return [draw(*x, seed=i, dtype=dtype) for i, x in enumerate(shapes)]


def extras():
  lse = draw(B, T, N, seed=5).at[:, ::3].set(-jnp.inf)
  out = draw(B, T, N, H, seed=6).at[:, ::3].set(0)
  return dict(sink=draw(N, seed=4), state_in=AttentionState(out, lse))


def bias(heads):
  return draw(1, heads, T, S, seed=7)


def block_mask():
  rng = np.random.default_rng(0)
  listed = rng.random((B, K, 2, 3)) < 0.6
  lists = BlockLists(
    ids=jnp.asarray(np.argsort(~listed, -1, kind='stable'), jnp.int32),
    count=jnp.asarray(listed.sum(-1), jnp.int32),
    full=jnp.asarray(rng.random(listed.shape) < 0.5),
    block_q=128,
    block_kv=128,
  )
  return masks.blocks(lists, masks.causal(200))


SEGMENTS = jnp.asarray(np.repeat([[1, 2, 0]] * B, [100, 150, 50], axis=1))
CASES = {
  'causal': (masks.causal(200), dict(softcap=3.0)),
  'sinks_permuted': (
    dataclasses.replace(
      masks.sinks(20, 100, offset=150),
      kv_pos=jnp.asarray(np.random.default_rng(1).permutation(S))[None],
    ),
    {},
  ),
  'rows_without_keys': (masks.lengths(jnp.array([300, 20]), T), {}),
}


def value_and_grads(implementation, args, more, mask, **static):
  def loss(args, more):
    state = flash_attention(
      *args,
      mask=mask,
      return_state=True,
      implementation=implementation,
      **static,
      **more,
    )
    lse = jnp.where(jnp.isfinite(state.lse), state.lse, 0)
    return jnp.sin(state.out).sum() + jnp.sin(lse).sum(), state

  fn = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  with interpret_mode():
    (_, state), grads = fn(args, more)
  return state, grads


def check(implementation, args, more, mask, **static):
  got = value_and_grads(implementation, args, more, mask, **static)
  want = value_and_grads('reference', args, more, mask, **static)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(x, y, atol=ATOL)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_values_and_gradients_equal_the_reference(implementation, name):
  mask, static = CASES[name]
  more = extras() if name == 'causal' else {}
  args = inputs()
  if name == 'rows_without_keys':
    # What nobody sees may be NaN.
    args[1:] = [x.at[1, 20:].set(jnp.nan) for x in args[1:]]
  check(implementation, args, more, mask, **static)


@pytest.mark.parametrize(
  ('n', 'parts'), [(5, 2), pytest.param(6, 2, marks=pytest.mark.slow)]
)
def test_query_heads_that_do_not_fit_a_tpu_are_cut_into_parts(
  n, parts, monkeypatch
):
  """Parts of three heads; of five the last is padded."""
  monkeypatch.setattr(tpu_plan, '_MOST_ROWS', 3 * 16)
  q, k, v = draw(1, 20, 2 * n, 16), draw(1, 40, 2, 16), draw(1, 40, 2, 16)
  options = xla.Options.of(16, None, None)
  plan = tpu_plan.backward_plan(q, k, masks.causal(20), options, True)
  assert (plan.parts, plan.g, plan.k) == (parts, 3, 2 * parts)
  more = dict(
    sink=draw(2 * n, seed=4),
    state_in=AttentionState(
      draw(1, 20, 2 * n, 16, seed=6).at[:, ::3].set(0),
      draw(1, 20, 2 * n, seed=5).at[:, ::3].set(-jnp.inf),
    ),
  )
  check('tpu', (q, k, v), more, masks.causal(20), softcap=3.0)


@pytest.mark.slow
def test_parts_take_their_own_bias_and_block_lists(monkeypatch):
  monkeypatch.setattr(tpu_plan, '_MOST_ROWS', 3 * 16)
  q, k = draw(1, 20, 10, 16), draw(1, 40, 2, 16)
  attend = functools.partial(
    flash_attention,
    *(q, k, draw(1, 40, 2, 16, seed=1)),
    mask=masks.causal(20),
    bias=draw(1, 10, 20, 40, seed=7),
  )
  with interpret_mode():
    got = jax.jit(functools.partial(attend, implementation='tpu'))()
  np.testing.assert_allclose(got, attend(implementation='reference'), atol=ATOL)
  lse = draw(1, 20, 10, seed=3)
  sums = functools.partial(column_sums, q, k, lse, mask=masks.causal(20))
  with interpret_mode():
    got = jax.jit(functools.partial(sums, implementation='tpu'))()
  np.testing.assert_allclose(got, sums(implementation='reference'), rtol=1e-5)
  monkeypatch.setattr(tpu_plan, '_MOST_ROWS', 128)
  check('tpu', inputs(s=384, t=256), {}, block_mask())


def test_the_output_is_the_same_without_the_log_sum_exp():
  q, k, v = [x[:1] for x in inputs()]
  attend = functools.partial(
    flash_attention, mask=masks.causal(200), implementation='tpu'
  )
  with interpret_mode():
    out = jax.jit(attend)(q, k, v)
    state = jax.jit(functools.partial(attend, return_state=True))(q, k, v)
  np.testing.assert_array_equal(out, state.out)


@pytest.mark.parametrize(
  ('implementation', 'heads'), [('tpu', N), ('triton', 1)]
)
def test_a_bias_equals_the_reference(implementation, heads):
  attend = functools.partial(
    flash_attention,
    *inputs(),
    mask=masks.causal(200),
    softcap=3.0,
    bias=bias(heads),
  )
  with interpret_mode():
    got = jax.jit(functools.partial(attend, implementation=implementation))()
  want = attend(implementation='reference')
  np.testing.assert_allclose(got, want, atol=ATOL)


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_a_bias_of_minus_infinity_hides_keys(implementation):
  """No mask otherwise; row 3 sees nothing."""
  args = draw(1, 16, 2, 16), draw(1, 256, 1, 16), draw(1, 256, 1, 16, seed=1)
  hidden = jnp.arange(256) < 16 * jnp.arange(16)[:, None]
  hidden = hidden.at[3].set(True)
  more = dict(bias=jnp.where(hidden, -jnp.inf, 0.0)[None, None])
  state, _ = value_and_grads(implementation, args, more, masks.full())
  assert not state.out[:, 3].any()
  assert np.isneginf(state.lse[:, 3]).all()
  check(implementation, args, more, masks.full())


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_without_keys_there_is_the_state_given(implementation):
  args = draw(1, 3, 2, 16), draw(1, 0, 1, 16), draw(1, 0, 1, 16)
  given = AttentionState(draw(1, 3, 2, 16), draw(1, 3, 2))
  state, (grads, _) = value_and_grads(
    implementation, args, dict(state_in=given), masks.causal()
  )
  np.testing.assert_allclose(state.out, given.out, rtol=1e-6)
  np.testing.assert_allclose(state.lse, given.lse, rtol=1e-6)
  assert not grads[0].any()


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_column_sums_equal_the_reference(implementation):
  q, k, v = inputs()
  mask = masks.causal(200)
  state = flash_attention(
    q, k, v, mask=mask, return_state=True, implementation='reference'
  )
  weight = jnp.abs(draw(B, T, N, seed=8))
  sums = functools.partial(column_sums, q, k, state.lse, weight, mask=mask)
  with interpret_mode():
    got = jax.jit(functools.partial(sums, implementation=implementation))()
  want = sums(implementation='reference')
  np.testing.assert_allclose(got, want, atol=ATOL)


def test_block_lists_equal_the_reference():
  check('tpu', inputs(s=384, t=256), {}, block_mask())


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
def test_bfloat16_is_close_to_float64(implementation):
  q, k, v = inputs(jnp.bfloat16)
  mask = masks.causal(200)
  seen = kernel_oracle.visible(mask, B, K, T, S)
  want, _ = kernel_oracle.attention(q, k, v, seen)
  with interpret_mode():
    got = jax.jit(
      functools.partial(
        flash_attention, mask=mask, implementation=implementation
      )
    )(q, k, v)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=2e-2)


@pytest.mark.parametrize(
  'with_gradients', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_tpu_kernels_have_no_race_and_read_nothing_uninitialised(
  with_gradients,
):
  """Simulated memories: buffers start as NaN, copies finish when waited for."""
  params = pltpu.InterpretParams(
    detect_races=True,
    uninitialized_memory='nan',
    dma_execution_mode='on_wait',
  )
  q, k, v = [x[:1, :, :2] for x in inputs(s=140, t=20)]
  mask = masks.causal(100)

  def run(name):
    attend = functools.partial(flash_attention, mask=mask, implementation=name)
    if not with_gradients:
      return jax.jit(functools.partial(attend, return_state=True))(q, k, v)
    loss = lambda *x: jnp.sin(attend(*x)).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

  with interpret_mode(params):
    got = jax.block_until_ready(run('tpu'))
  assert not _compat.tpu_races()
  pltpu.reset_tpu_interpret_mode_state()
  want = run('reference')
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(x, y, atol=ATOL)


def grads_of(mask, implementation):
  fn = lambda q, k, v: (
    flash_attention(q, k, v, mask=mask, implementation=implementation)
    .astype(jnp.float32)
    .sum()
  )
  return jax.jit(jax.grad(fn, argnums=(0, 1, 2)))


LOWERED = [(64, 'packed'), (128, 'causal'), (256, 'causal')]


def mask_of(kind, t):
  if kind == 'causal':
    return masks.causal()
  return masks.packed(jnp.ones((1, t), jnp.int32))


@pytest.mark.parametrize(
  ('h', 'kind', 'n'),
  # 160 heads of four key heads: three parts each.
  [*((*x, 8) for x in LOWERED), (128, 'packed', 160)],
)
def test_tpu_kernels_lower_without_a_tpu(monkeypatch, h, kind, n):
  monkeypatch.undo()
  q = jax.ShapeDtypeStruct((1, 2048, n, h), jnp.bfloat16)
  k = jax.ShapeDtypeStruct((1, 2048, 4, h), jnp.bfloat16)
  kernels = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  grads = grads_of(mask_of(kind, 2048), 'tpu')
  exported = jax.export.export(
    grads, platforms=['tpu'], disabled_checks=[kernels]
  )(q, k, k)
  text = exported.mlir_module()
  for name in ('forward', 'dq', 'dkv'):
    assert f'flash_attention_{name}' in text


@pytest.mark.parametrize(('h', 'kind'), LOWERED)
def test_triton_kernels_lower_without_a_gpu(monkeypatch, h, kind):
  monkeypatch.undo()
  q = jax.ShapeDtypeStruct((1, 2000, 8, h), jnp.bfloat16)
  k = jax.ShapeDtypeStruct((1, 2000, 4, h), jnp.bfloat16)
  with _compat.absent_gpu():
    traced = grads_of(mask_of(kind, 2000), 'triton').trace(q, k, k)
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('__gpu$xla.gpu.triton') == 3


def test_column_sums_lower_without_their_device(monkeypatch):
  monkeypatch.undo()
  q = jax.ShapeDtypeStruct((1, 2048, 8, 128), jnp.bfloat16)
  lse = jax.ShapeDtypeStruct((1, 2048, 8), jnp.float32)
  sums = lambda name: jax.jit(
    functools.partial(column_sums, mask=masks.causal(), implementation=name)
  )
  with _compat.absent_gpu():
    traced = sums('triton').trace(q, q, lse)
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert '__gpu$xla.gpu.triton' in text
  kernels = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  exported = jax.export.export(
    sums('tpu'), platforms=['tpu'], disabled_checks=[kernels]
  )(q, q, lse)
  assert 'flash_attention_column_sums' in exported.mlir_module()


def test_keys_of_a_band_are_kept_only_if_some_row_sees_each():
  bounds = (None, -3, -1, 0, 2, 5)
  kept = 0
  for left, right, t, s in itertools.product(bounds, bounds, (1, 4), (3, 4, 9)):
    if tile_lists.hides_keys(masks.MaskSpec(left=left, right=right), t, s):
      continue
    ahead = np.arange(s) - np.arange(t)[:, None]
    low, high = (-s if left is None else -left), (s if right is None else right)
    assert ((ahead >= low) & (ahead <= high)).any(0).all()
    kept += 1
  assert kept


def test_what_a_kernel_cannot_serve_is_named():
  q, k, v = inputs()
  run = functools.partial(flash_attention, q, k, v)
  with pytest.raises(NotImplementedError, match='float32 is not supported'):
    run(mask=masks.full(), implementation='mosaic_gpu')
  for name in ('tpu', 'triton'):
    with pytest.raises(NotImplementedError, match='bias cannot be combined'):
      flash_attention(
        *inputs(t=256, s=384),
        mask=block_mask(),
        bias=jnp.zeros((1, 1, 256, 384)),
        implementation=name,
      )
    with pytest.raises(NotImplementedError, match='kv_pos cannot be combined'):
      flash_attention(
        *inputs(t=256, s=384),
        mask=block_mask(),
        kv_pos=jnp.arange(384)[None],
        implementation=name,
      )
  tree = masks.tree(jnp.zeros((B, T, -(-T // 32)), jnp.uint32))
  with pytest.raises(NotImplementedError, match=r'mask\.tree_bits'):
    run(mask=tree, implementation='tpu')
  tall = BlockLists(
    ids=jnp.zeros((1, 1, 1, 1), jnp.int32),
    count=jnp.ones((1, 1, 1), jnp.int32),
    full=jnp.zeros((1, 1, 1, 1), bool),
    block_q=4096,
    block_kv=128,
  )
  q_tall, k_short = draw(1, 4096, 1, 16), draw(1, 128, 1, 16)
  with pytest.raises(NotImplementedError, match='blocks of 4096 queries'):
    flash_attention(
      *(q_tall, k_short, k_short),
      mask=masks.blocks(tall),
      implementation='tpu',
    )
  with pytest.raises(NotImplementedError, match='multiples of its blocks'):
    flash_attention(*inputs(t=250), mask=block_mask(), implementation='tpu')
  lists = dataclasses.replace(
    block_mask().block_lists,
    ids=jnp.zeros((1, 1, 2, 1), jnp.int32),
    count=jnp.ones((1, 1, 2), jnp.int32),
    full=jnp.zeros((1, 1, 2, 1), bool),
    block_q=48,
  )
  limits = {'tpu': '128 x 128, or of 16 x 128', 'triton': 'from 16 to 128'}
  for name, limit in limits.items():
    with pytest.raises(NotImplementedError, match=limit):
      flash_attention(
        *inputs(s=384, t=96), mask=masks.blocks(lists), implementation=name
      )


def test_auto_falls_back_only_with_a_reason_on_record():
  args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs()]
  bits = jax.ShapeDtypeStruct((B, T, 2), jnp.uint32)
  with lowering_platforms('tpu', 'cuda', 'cpu'):
    jax.eval_shape(lambda *x: flash_attention(*x, mask=masks.causal()), *args)
    found = last_dispatch()
    assert found.chosen == {'tpu': 'tpu', 'cuda': 'triton', 'cpu': 'xla'}
    assert 'float32' in found.refused['cuda/mosaic_gpu']
    jax.eval_shape(
      lambda q, k, v, bits: flash_attention(q, k, v, mask=masks.tree(bits)),
      *args,
      bits,
    )
    found = last_dispatch()
    assert set(found.chosen.values()) == {'xla'}
    assert found.refused['tpu/tpu'] == 'mask.tree_bits is not supported'


def chosen_on_cuda(mask, dtype=jnp.bfloat16):
  shape = jax.ShapeDtypeStruct((1, 256, 2, 128), dtype)
  with lowering_platforms('cuda'):
    jax.eval_shape(lambda q: flash_attention(q, q, q, mask=mask), shape)
  return last_dispatch()


@pytest.mark.parametrize(
  'capability, name',
  [(None, 'mosaic_gpu'), ('9.0', 'mosaic_gpu'), ('8.0', 'triton')],
)
def test_the_kernel_for_hopper_is_for_hopper(capability, name, monkeypatch):
  # None: compiled ahead of time.
  monkeypatch.setattr(dispatch, 'compute_capability', lambda: capability)
  found = chosen_on_cuda(masks.causal())
  assert found.chosen == {'cuda': name}
  if name == 'triton':
    assert 'this one has 8.0' in found.refused['cuda/mosaic_gpu']


def test_auto_leaves_out_what_could_serve_but_is_slow():
  found = chosen_on_cuda(masks.sinks(4, 64))
  assert found.chosen == {'cuda': 'triton'}
  assert 'as long as triton' in found.refused['cuda/mosaic_gpu']
  shape = jax.ShapeDtypeStruct((1, 256, 2, 128), jnp.bfloat16)
  named = lambda q: flash_attention(
    q, q, q, mask=masks.sinks(4, 64), implementation='mosaic_gpu'
  )
  jax.eval_shape(named, shape)
  assert last_dispatch().chosen == {'any': 'mosaic_gpu'}


@pytest.mark.parametrize(
  'b, t, n, packed, message',
  [
    (1, 1024, 32, False, ''),
    (8, 131_072, 1, True, r'1\.0 MiB, and 0\.9 MiB fit SMEM'),
    (16, 65_536, 1, True, r'each of 16 batch elements'),
    (1, 1024, 16, False, ''),
    (1, 131_072, 1, True, ''),
  ],
)
def test_what_does_not_fit_a_tpu_is_refused(
  b, t, n, packed, message, monkeypatch
):
  monkeypatch.undo()
  q = jax.ShapeDtypeStruct((b, t, n, 128), jnp.bfloat16)
  k = jax.ShapeDtypeStruct((b, t, 1, 128), jnp.bfloat16)
  ids = jax.ShapeDtypeStruct((b, t), jnp.int32)

  def attend(q, k, ids):
    mask = masks.packed(ids) if packed else masks.causal()
    return flash_attention(q, k, k, mask=mask)

  with lowering_platforms('tpu'):
    jax.eval_shape(attend, q, k, ids)
  found = last_dispatch()
  assert found.chosen == {'tpu': 'xla' if message else 'tpu'}
  if message:
    assert re.search(message, found.refused['tpu/tpu'])


def test_platforms_are_part_of_what_jit_remembers(monkeypatch):
  monkeypatch.undo()
  args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(jnp.bfloat16)]
  kernels = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  attend = jax.jit(lambda *x: flash_attention(*x, mask=masks.causal()))
  export = lambda: jax.export.export(
    attend, platforms=['tpu'], disabled_checks=[kernels]
  )(*args).mlir_module()
  assert 'tpu_custom_call' not in export()
  with lowering_platforms('tpu'):
    assert 'tpu_custom_call' in export()
  assert 'tpu_custom_call' not in export()


def test_one_traced_program_lowers_to_the_kernel_of_each_platform(monkeypatch):
  monkeypatch.undo()
  args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(jnp.bfloat16)]
  kernels = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  attend = jax.jit(lambda *x: flash_attention(*x, mask=masks.causal()))
  with lowering_platforms('tpu', 'cpu'):
    attend.trace(*args)
    assert last_dispatch().chosen == {'tpu': 'tpu', 'cpu': 'xla'}
    on_tpu, on_cpu = (
      jax.export.export(attend, platforms=[x], disabled_checks=[kernels])(*args)
      for x in ('tpu', 'cpu')
    )
  assert 'tpu_custom_call' in on_tpu.mlir_module()
  assert 'tpu_custom_call' not in on_cpu.mlir_module()
  assert 'stablehlo.dot_general' in on_cpu.mlir_module()

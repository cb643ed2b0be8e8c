# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Kernels built on flash attention or on features: Pallas against reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jaxtok_kernels import (
  PagedKV,
  PrefixLevel,
  _compat,
  flash_attention,
  interpret_mode,
  linear_attention,
  masks,
  ring_attention,
  shared_prefix_attention,
)
from jaxtok_kernels.flash_attention import cost as flash_cost
from jaxtok_kernels.prefix_attention import cost as prefix_cost

ATOL = 2e-5  # As in flash_attention_test.


@pytest.fixture
def small_tiles(monkeypatch):
  triton = flash_cost.TritonTiles(16, 32)
  tpu = flash_cost.TpuTiles(16, 128, 128)
  monkeypatch.setattr(flash_cost, 'tpu_tiles', lambda *_: tpu)
  monkeypatch.setattr(flash_cost, 'triton_tiles', lambda *_: triton)
  monkeypatch.setattr(prefix_cost, 'sequences_per_tile', lambda b, t: min(b, 3))


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def compare(fn, implementation, *args):
  want = fn(*args, implementation='reference')
  with interpret_mode():
    got = jax.jit(functools.partial(fn, implementation=implementation))(*args)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    scale = max(1.0, float(np.abs(np.where(np.isinf(y), 0, y)).max()))
    np.testing.assert_allclose(x, y, atol=ATOL * scale)


def prefix_case():
  group = jnp.array([1, 0, 1, 1, -1, 1, 1])
  level = PrefixLevel(
    draw(2, 150, 2, 32, seed=1).at[0, 20:].set(jnp.nan),
    draw(2, 150, 2, 32, seed=2).at[0, 20:].set(jnp.nan),
    jnp.array([20, 140]),
    group,
  )
  suffix = draw(7, 9, 2, 32, seed=3), draw(7, 9, 2, 32, seed=4)
  return draw(7, 2, 4, 32), (level,), *suffix, jnp.array([2, 9, 3, 9, 5, 2, 9])


@pytest.mark.parametrize('implementation', ['tpu', 'triton'])
@pytest.mark.usefixtures('small_tiles')
def test_shared_prefixes_equal_the_reference(implementation):
  compare(shared_prefix_attention, implementation, *prefix_case())


@pytest.mark.parametrize('name', ['tpu', 'triton'])
@pytest.mark.usefixtures('small_tiles')
def test_a_ring_with_a_pallas_kernel_equals_one_device(name):
  q, k, v = draw(1, 64, 2, 32), draw(1, 64, 1, 32), draw(1, 64, 1, 32, seed=1)
  sink = jnp.array([1.0, -0.5])
  pos = jnp.arange(64)[None]
  mesh = jax.make_mesh(
    (2,), ('ring',), axis_types=(AxisType.Auto,), devices=jax.devices()[:2]
  )
  spec = PartitionSpec(None, 'ring')
  local = lambda q, k, v, pos: ring_attention(
    q,
    k,
    v,
    mask=masks.causal(),
    axis_name='ring',
    q_pos=pos,
    kv_pos=pos,
    sink=sink,
    implementation=name,
  )
  sharded = jax.shard_map(
    local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
  )
  with interpret_mode():
    got = jax.jit(sharded)(q, k, v, pos)
  want = flash_attention(
    q, k, v, mask=masks.causal(), sink=sink, implementation='reference'
  )
  np.testing.assert_allclose(got, want, atol=ATOL)


def lowered(fn, platform, *args):
  if platform == 'cuda':
    with _compat.absent_gpu():
      traced = jax.jit(fn).trace(*args)
      return traced.lower(lowering_platforms=('cuda',)).as_text()
  check = jax.export.DisabledSafetyCheck.custom_call('tpu_custom_call')
  return jax.export.export(
    jax.jit(fn), platforms=['tpu'], disabled_checks=[check]
  )(*args).mlir_module()


def test_kernels_lower_without_their_device():
  shape = lambda *x: jax.ShapeDtypeStruct(x, jnp.bfloat16)
  number = lambda *x: jax.ShapeDtypeStruct(x, jnp.int32)
  level = PrefixLevel(
    shape(2, 4096, 8, 128), shape(2, 4096, 8, 128), number(2), number(64)
  )
  suffix = shape(64, 128, 8, 128), shape(64, 128, 8, 128), number(64)
  prefix = shape(64, 1, 32, 128), (level,), *suffix
  pages = PagedKV(shape(600, 16, 16, 128), number(64, 8))
  paged = *prefix[:2], pages, None, number(64)
  linear = (
    shape(1, 2048, 16, 16),
    shape(1, 2048, 16, 16),
    shape(1, 2048, 16, 64),
  )
  marks = {
    'tpu': 'tpu_custom_call',
    'triton': '__gpu$xla.gpu.triton',
    'mosaic_gpu': 'mosaic_gpu',
  }
  for name, mark in marks.items():
    platform = 'tpu' if name == 'tpu' else 'cuda'
    on = lambda fn, name=name: functools.partial(fn, implementation=name)
    assert mark in lowered(on(shared_prefix_attention), platform, *prefix)
    fused = functools.partial(on(shared_prefix_attention), fuse=True)
    text = lowered(fused, platform, *paged)
    assert mark in text
    assert 'selected_decode' in text
    if name != 'mosaic_gpu':
      assert mark in lowered(on(linear_attention), platform, *linear)

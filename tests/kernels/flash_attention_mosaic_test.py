# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mosaic GPU flash attention on a CPU: interpreted, races, lowering."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import _compat, flash_attention, interpret_mode, masks
from jaxtok_kernels.flash_attention import cost

from tests.kernels import kernel_oracle

B, T, S, N, K, H = 1, 100, 150, 2, 1, 64


def draw(*shape, seed=0, dtype=jnp.bfloat16):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


@pytest.mark.parametrize(
  'name', ['packed', pytest.param('causal', marks=pytest.mark.slow)]
)
def test_values_equal_float64_without_races(monkeypatch, name):
  monkeypatch.setattr(cost, 'mosaic_tiles', lambda h: cost.MosaicTiles(64, 2))
  q = draw(B, T, N, H)
  k, v = draw(B, S, K, H, seed=1), draw(B, S, K, H, seed=2)
  mask = masks.causal(50)
  if name == 'packed':
    end = jnp.minimum(jnp.arange(T) + 60, S)
    start = jnp.where(jnp.arange(T) < 90, jnp.arange(T) // 40 * 40, end)
    mask = masks.from_intervals(jnp.stack([start, end], -1)[None, :, None])
  sink = draw(N, seed=3, dtype=jnp.float32)
  seen = kernel_oracle.visible(mask, B, K, T, S)
  want, lse = kernel_oracle.attention(q, k, v, seen, sink=sink, softcap=5.0)
  params = _compat.gpu_interpret_params(detect_races=True)
  with interpret_mode(params):
    got = flash_attention(
      q,
      k,
      v,
      mask=mask,
      sink=sink,
      softcap=5.0,
      return_state=True,
      implementation='mosaic_gpu',
    )
    jax.block_until_ready(got)
  assert not _compat.gpu_races()
  np.testing.assert_allclose(got.out, want, atol=2e-2)
  np.testing.assert_allclose(got.lse, lse, atol=1e-3)


LOWERED = [(64, 'full'), (128, 'packed'), (256, 'causal')]


@pytest.mark.parametrize(('h', 'kind'), LOWERED)
def test_the_kernel_lowers_without_a_gpu(h, kind):
  q = jax.ShapeDtypeStruct((2, 1024, 8, h), jnp.bfloat16)
  k = jax.ShapeDtypeStruct((2, 1024, 4, h), jnp.bfloat16)
  make = {
    'full': masks.full,
    'causal': masks.causal,
    'packed': lambda: masks.packed(jnp.ones((1, 1024), jnp.int32)),
  }
  mask = make[kind]()
  fn = jax.jit(
    functools.partial(flash_attention, mask=mask, implementation='mosaic_gpu')
  )
  with _compat.absent_gpu():
    lowered = fn.trace(q, k, k).lower(lowering_platforms=('cuda',))
  assert 'mosaic_gpu' in lowered.as_text()

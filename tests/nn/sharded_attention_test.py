# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Kernels on several devices equal dense attention on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtok.nn import attention, masks
from jaxtok.train import sharding

T, H = 12, 4


def _inputs(b, n, k):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  arrays = {
    'q': draw(b, T, n, H),
    'k': draw(b, T, k, H),
    'v': draw(b, T, k, H),
    'bias': draw(1, n, T, T),
    'sink': draw(n),
  }
  segments_bt = jnp.asarray(np.sort(rng.integers(1, 4, (b, T)), axis=1))
  return arrays, segments_bt, draw(b, T, n, H)


def _loss(arrays, segments_bt, push, implementation):
  layout = masks.Layout(
    T, T, q_segments_bt=segments_bt, kv_segments_bs=segments_bt
  )
  out = attention.attention(
    arrays['q'],
    arrays['k'],
    arrays['v'],
    mask=masks.Causal() & masks.Segments(),
    layout=layout,
    bias=arrays['bias'],
    sink_n=arrays['sink'],
    implementation=implementation,
  )
  return (out * push).sum(), out


@pytest.mark.parametrize(
  ('b', 'n', 'k', 'local'),
  [
    (4, 8, 4, (2, 2, 1)),  # All split.
    (4, 8, 2, (2, 2, 1)),  # Two key heads, repeated for four devices.
    (3, 4, 4, (3, 1, 1)),  # Rows that do not divide: all on each device.
    (2, 6, 2, (1, 6, 2)),  # Heads that do not.
  ],
)
def test_parts_on_devices_equal_the_whole(b, n, k, local):
  arrays, segments_bt, push = _inputs(b, n, k)
  grad = jax.value_and_grad(_loss, has_aux=True)
  (_, want), want_grads = jax.jit(grad, static_argnums=3)(
    arrays, segments_bt, push, 'dense'
  )
  with jax.set_mesh(sharding.Config(data=2, model=4).make()):
    (_, got), grads = jax.jit(grad, static_argnums=3)(
      arrays, segments_bt, push, 'xla'
    )
    text = str(
      jax.make_jaxpr(_loss, static_argnums=3)(arrays, segments_bt, push, 'xla')
    )
  b_local, n_local, k_local = local
  assert f'f32[{b_local},{T},{n_local},{H}]' in text
  assert f'f32[{b_local},{T},{k_local},{H}]' in text
  # Sums of 12 products of order 1 in float32.
  np.testing.assert_allclose(got, want, atol=5e-6)
  for name, want_grad in want_grads.items():
    np.testing.assert_allclose(grads[name], want_grad, atol=3e-5, err_msg=name)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layer of Mamba-2 against a loop, and against `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.nn import mamba2

CONFIG = mamba2.Config(dim=8, head_dim=4, state_dim=3, chunk=4, norm_eps=1e-5)


def make():
  layer = mamba2.Mamba2(CONFIG, rngs=nnx.Rngs(0))
  rng = np.random.default_rng(0)
  for param in (layer.conv_bias, layer.skip, layer.dt_bias):
    param[...] += jnp.asarray(rng.normal(size=param.shape), jnp.float32)
  return layer


def silu(x):
  return x / (1 + np.exp(-x))


def loop(layer, x):
  """float64, one row and one position after the other."""
  c, get = CONFIG, lambda p: np.asarray(p[...], np.float64)
  u, z = x @ get(layer.u.kernel), x @ get(layer.z.kernel)
  dt = np.logaddexp(0, x @ get(layer.dt.kernel) + get(layer.dt_bias))
  padded = np.pad(u, ((0, 0), (3, 0), (0, 0)))
  kernel = get(layer.conv_kernel)
  conv = sum(kernel[i] * padded[:, i : i + u.shape[1]] for i in range(4))
  conv = silu(conv + get(layer.conv_bias))
  inner, state_b, state_c = np.split(conv, [c.inner, c.inner + 3], axis=-1)
  y = np.zeros(inner.shape)
  for row in range(len(x)):
    state = np.zeros((c.num_heads, 4, 3))
    for t in range(x.shape[1]):
      step = dt[row, t][:, None]
      into = inner[row, t].reshape(-1, 4)
      decay = np.exp(-step * np.exp(get(layer.log_a))[:, None])
      state = decay[..., None] * state
      state = state + (step * into)[..., None] * state_b[row, t]
      out = state @ state_c[row, t] + get(layer.skip)[:, None] * into
      y[row, t] = out.reshape(-1)
  y = y * silu(z)
  y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * get(layer.norm.scale)
  return y @ get(layer.out.kernel)


def test_the_layer_equals_a_loop():
  layer = make()
  x = np.random.default_rng(1).normal(size=(2, 10, 8)).astype(np.float32)
  got = layer(jnp.asarray(x), jnp.ones((2, 10), jnp.int32))
  # Outputs of order 1 after a norm.
  np.testing.assert_allclose(got, loop(layer, x), atol=2e-5)


def test_flops_count_the_projections_and_the_scan():
  c = mamba2.Config(dim=128, head_dim=64, state_dim=64, chunk=64)
  layer = nnx.eval_shape(lambda: mamba2.Mamba2(c, rngs=nnx.Rngs(0)))
  graph, params = nnx.split(layer)
  x = jnp.zeros((4, 64, 128))
  segments = jnp.ones((4, 64), jnp.int32)
  call = jax.jit(lambda params: nnx.merge(graph, params)(x, segments))
  found = call.lower(params).cost_analysis()['flops']
  # XLA also counts the convolution, decays and, for each pair of positions,
  # their sums (64 additions per pair and head, beside 128 in the products).
  assert 1 < found / c.flops(4 * 64) < 1.6


def test_an_inner_width_that_heads_do_not_fill_is_refused():
  with pytest.raises(ValueError, match='must be a multiple of head_dim=64'):
    mamba2.Config(dim=48)


@pytest.mark.torch
def test_the_layer_equals_that_of_transformers():
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  from transformers.models.mamba2 import modeling_mamba2

  config = transformers.Mamba2Config(
    hidden_size=8,
    num_heads=4,
    head_dim=4,
    state_size=3,
    n_groups=1,
    chunk_size=4,
    use_bias=False,
  )
  torch.manual_seed(0)
  theirs = modeling_mamba2.Mamba2Mixer(config, layer_idx=0).eval()
  with torch.no_grad():
    for param in theirs.parameters():
      param += 0.3 * torch.randn_like(param)
  layer = make()
  get = lambda x: jnp.asarray(x.detach().numpy())
  kernel = get(theirs.in_proj.weight).T
  for ours, part in zip(
    (layer.z, layer.u, layer.dt),
    jnp.split(kernel, [16, 16 + 22], axis=1),
    strict=True,
  ):
    ours.kernel[...] = part
  layer.conv_kernel[...] = get(theirs.conv1d.weight)[:, 0].T
  layer.conv_bias[...] = get(theirs.conv1d.bias)
  layer.dt_bias[...] = get(theirs.dt_bias)
  layer.log_a[...], layer.skip[...] = get(theirs.A_log), get(theirs.D)
  layer.norm.scale[...] = get(theirs.norm.weight)
  layer.out.kernel[...] = get(theirs.out_proj.weight).T
  x = np.random.default_rng(1).normal(size=(2, 11, 8)).astype(np.float32)
  with torch.no_grad():
    want = theirs(torch.tensor(x)).numpy()
  got = layer(jnp.asarray(x), jnp.ones((2, 11), jnp.int32))
  np.testing.assert_allclose(got, want, atol=5e-5)

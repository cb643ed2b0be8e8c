# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Norms, rotary positions, relative bias, activations, MLP and embeddings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtok_kernels import dispatch

from jaxtok.nn import (
  activations,
  embed,
  linear,
  mlp,
  norms,
  platform,
  relative_bias,
  rope,
)
from jaxtok.train import sharding


@pytest.mark.parametrize('kind', norms.KINDS)
def test_norm_equals_float64(kind):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 16)) * 5 + 2
  norm = norms.Norm(16, kind=kind, eps=1e-5)
  norm.scale[...] = jnp.asarray(rng.normal(size=16), jnp.float32)
  want = x - x.mean(-1, keepdims=True) if kind == 'layer' else x
  want = want / np.sqrt((want**2).mean(-1, keepdims=True) + 1e-5)
  want = want * np.asarray(norm.scale[...])
  if kind == 'layer':
    norm.bias[...] = jnp.asarray(rng.normal(size=16), jnp.float32)
    want = want + np.asarray(norm.bias[...])
  got = norm(jnp.asarray(x, jnp.float32))
  # Results below 10 from inputs rounded to 24 bits.
  np.testing.assert_allclose(got, want, atol=5e-6)


def test_norm_of_bfloat16_has_float32_statistics():
  x = jnp.full((1, 256), 3.0, jnp.bfloat16)
  got = norms.Norm(256)(x)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(got.astype('float32'), 1.0)


def test_rotation_is_multiplication_by_complex_numbers():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 3, 8))
  positions = np.array([[0, 1, 2, 3, 4], [7, 9, 1000, 0, 3]])
  angle = positions[..., None] * 100.0 ** (-2 * np.arange(4) / 8)
  z = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angle)[:, :, None]
  want = np.concatenate([z.real, z.imag], axis=-1)
  turn = rope.rotation(jnp.asarray(positions), 8, rope.Config(theta=100.0))
  got = rope.rotate(jnp.asarray(x, jnp.float32), turn)
  # Angles up to 1000 rad are rounded to 3e-5 in float32.
  np.testing.assert_allclose(got, want, atol=2e-4)
  np.testing.assert_allclose(got[0], want[0], atol=2e-6)


def test_rotations_add_up():
  x = jax.random.normal(jax.random.key(0), (1, 4, 2, 8))
  config = rope.Config()
  at = lambda p: rope.rotation(jnp.full((1, 4), p), 8, config)
  moved = rope.rotate(rope.rotate(x, at(3)), at(4))
  np.testing.assert_allclose(moved, rope.rotate(x, at(7)), atol=2e-6)


def test_partial_rotation_leaves_the_rest_of_the_head():
  x = jax.random.normal(jax.random.key(0), (1, 4, 2, 8))
  turn = rope.rotation(jnp.arange(4)[None], 8, rope.Config(fraction=0.5))
  y = rope.rotate(x, turn)
  np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
  half = rope.rotation(jnp.arange(4)[None], 4, rope.Config())
  np.testing.assert_allclose(y[..., :4], rope.rotate(x[..., :4], half))


@pytest.mark.parametrize(
  'fields, match',
  [
    (dict(scaling='yarn'), "scaling='yarn'"),
    (dict(theta=0.0), 'theta=0.0'),
    (dict(fraction=1.5), 'fraction=1.5'),
    (dict(low_frequency_factor=4.0), 'must exceed'),
  ],
)
def test_wrong_rotary_settings_are_refused(fields, match):
  with pytest.raises(ValueError, match=match):
    rope.Config(**fields)


def test_odd_heads_cannot_be_rotated():
  with pytest.raises(ValueError, match='head_dim=5'):
    rope.frequencies(5, rope.Config())


@pytest.mark.parametrize('is_causal', [True, False])
def test_relative_buckets_follow_the_formula(is_causal):
  """The sheet's formula in float64, papers/token_free_models.md 1.1."""
  distance = np.arange(-300, 301)
  want = []
  for r in distance:
    buckets, base, n = (
      (32, 0, max(-r, 0)) if is_causal else (16, 16 * (r > 0), abs(r))
    )
    exact = buckets // 2
    if n >= exact:
      grown = math.log(n / exact) / math.log(128 / exact) * (buckets - exact)
      n = min(buckets - 1, exact + math.floor(grown + 1e-9))
    want.append(base + n)
  got = relative_bias.bucket(
    jnp.asarray(distance),
    is_causal=is_causal,
    num_buckets=32,
    max_distance=128,
  )
  np.testing.assert_array_equal(got, want)


def test_relative_bias_depends_on_the_difference_of_positions():
  bias = relative_bias.RelativeBias(2, is_causal=True, rngs=nnx.Rngs(0))
  q, s = jnp.array([[3, 7]]), jnp.array([[0, 3, 5]])
  got = bias(q, s)
  assert got.shape == (1, 2, 2, 3)
  np.testing.assert_array_equal(got[0, :, 1, 2], bias.table[2])
  np.testing.assert_array_equal(got, bias(q + 100, s + 100))


def _erf(x):
  return np.vectorize(math.erf)(x)


REFERENCES = {
  'silu': lambda x: x / (1 + np.exp(-x)),
  'gelu': lambda x: (
    0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
  ),
  'gelu_exact': lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
  'relu': lambda x: np.maximum(x, 0),
  'relu2': lambda x: np.maximum(x, 0) ** 2,
}


@pytest.mark.parametrize('name', activations.FUNCTIONS)
def test_activation_and_its_gradient_equal_float64(name):
  x = np.concatenate([np.linspace(-6, 6, 97), [-40.0, 40.0, 1e4, -1e4]])
  f, reference = activations.FUNCTIONS[name], REFERENCES[name]
  with np.errstate(over='ignore'):
    step = 1e-5
    want = reference(x)
    slope = (reference(x + step) - reference(x - step)) / (2 * step)
  single = jnp.asarray(x, jnp.float32)
  # Relative rounding of the values; near the zeros of the gradient, absolute.
  np.testing.assert_allclose(f(single), want, rtol=3e-6, atol=3e-7)
  got = jax.vmap(jax.grad(f))(single)
  smooth = np.abs(x) > 1e-3  # ReLU has a kink at 0.
  np.testing.assert_allclose(got[smooth], slope[smooth], rtol=1e-5, atol=2e-6)


def test_gated_mlp_multiplies_the_activated_gate():
  layer = mlp.Mlp(4, 6, activation='silu', gated=True, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(0), (1, 3, 4))
  up, gate, down = (
    np.asarray(p.kernel[...], np.float64)
    for p in (layer.up, layer.gate, layer.down)
  )
  z = np.asarray(x, np.float64)
  want = (REFERENCES['silu'](z @ gate) * (z @ up)) @ down
  np.testing.assert_allclose(layer(x), want, atol=1e-6)


def test_unknown_activation_is_named():
  with pytest.raises(ValueError, match="activation='gleu' must be one of"):
    mlp.Mlp(4, 6, activation='gleu', rngs=nnx.Rngs(0))


def test_linear_contracts_groups_of_axes_and_names_them():
  layer = linear.Linear(
    (3, 4),
    (5,),
    axes=('heads', 'head_dim', 'embed'),
    use_bias=True,
    rngs=nnx.Rngs(0),
  )
  layer.bias[...] = jnp.arange(5.0)
  x = jax.random.normal(jax.random.key(0), (2, 7, 3, 4))
  want = np.einsum('btnh,nhd->btd', x, layer.kernel[...]) + np.arange(5)
  np.testing.assert_allclose(layer(x), want, atol=1e-5)
  assert layer.kernel.get_metadata()['axes'] == ('heads', 'head_dim', 'embed')
  assert layer.bias.get_metadata()['axes'] == ('embed',)


@pytest.mark.parametrize('is_flattened', [True, False])
@pytest.mark.parametrize(
  'shapes', [('btd', 'dnh', 'btnh'), ('btnh', 'nhd', 'btd')]
)
def test_matmul_and_its_gradients_equal_float64(shapes, is_flattened):
  """In the form for one CPU and in that for several devices."""
  sizes = dict(zip('btdnh', (2, 7, 12, 3, 4), strict=True))
  rng = np.random.default_rng(0)
  x, kernel, push = (
    rng.normal(size=[sizes[axis] for axis in axes]) for axes in shapes
  )
  left, right, out = shapes
  want = np.einsum(f'{left},{right}->{out}', x, kernel)
  want_x = np.einsum(f'{out},{right}->{left}', push, kernel)
  want_kernel = np.einsum(f'{left},{out}->{right}', x, push)
  num_in = len(left) - 2
  product = lambda x, k: linear.matmul(x, k, num_in=num_in)
  single = [jnp.asarray(a, jnp.float32) for a in (x, kernel, push)]
  mesh = sharding.Config(data=1 if is_flattened else 8)
  with jax.set_mesh(mesh.make()):
    assert platform.is_single_cpu() == is_flattened
    got, vjp = jax.vjp(product, *single[:2])
    text = str(jax.make_jaxpr(product)(*single[:2]))
  assert ('f32[14,12]' in text) == is_flattened
  # Sums of 12 to 14 products of order 1.
  np.testing.assert_allclose(got, want, atol=5e-6)
  got_x, got_kernel = vjp(single[2])
  np.testing.assert_allclose(got_x, want_x, atol=5e-6)
  np.testing.assert_allclose(got_kernel, want_kernel, atol=5e-6)


def test_the_form_for_one_cpu_is_chosen_by_mesh_and_platform():
  assert jax.device_count() > 1
  assert not platform.is_single_cpu()
  with jax.set_mesh(sharding.Config(data=1).make()):
    assert platform.is_single_cpu()
    with dispatch.lowering_platforms('tpu'):
      assert not platform.is_single_cpu()


def test_ids_outside_the_table_give_nan_not_another_row():
  table = embed.Embed(4, 2, rngs=nnx.Rngs(0))
  rows = table(jnp.array([[0, 3, 4, -1]]))
  np.testing.assert_array_equal(
    rows[0, :2], table.table[...][jnp.array([0, 3])]
  )
  assert jnp.isnan(rows[0, 2:]).all()


def test_rows_longer_than_the_table_of_positions_are_refused():
  embedder = embed.Embedder(4, 2, max_len=3, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match='4 tokens exceed the 3 learned'):
    embedder(jnp.zeros((1, 4), jnp.int32))

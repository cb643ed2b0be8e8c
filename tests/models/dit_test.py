# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""DiT against NumPy; what the time does; objectives and samplers with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.diffusion import denoisers, first_hitting, mdlm, samplers
from jaxtok.models import base, dit

V, T, B = 10, 6, 3
CONFIG = dit.Config(
  vocab_size=V, dim=16, num_layers=2, num_heads=2, cond_dim=8, num_features=12
)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (B, T)))
TIMES = jnp.asarray([0.0, 0.3, 1.0])


@pytest.fixture(scope='module')
def model():
  """Random parameters everywhere: fresh ones are zero in many places."""
  model = CONFIG.make(nnx.Rngs(0))
  rng = np.random.default_rng(1)
  state = nnx.state(model, nnx.Param)
  nnx.update(
    model,
    jax.tree.map(
      lambda x: jnp.asarray(
        rng.normal(size=x.shape) / np.sqrt(x.shape[0]) + (x.ndim == 1),
        jnp.float32,
      ),
      state,
    ),
  )
  return model


@nnx.jit
def logits(model, tokens, times=None, segment_ids=None):
  output = model(tokens, context=times, segment_ids=segment_ids)
  return model.logits(output.hidden_btd)


def numpy_logits(model, tokens, times):
  """The published network, double precision."""
  state = nnx.to_flat_state(nnx.state(model, nnx.Param))
  w = {'.'.join(map(str, k)): np.asarray(v[...], np.float64) for k, v in state}
  silu = lambda x: x / (1 + np.exp(-x))
  dense = lambda x, n: x @ w[f'{n}.kernel'] + w[f'{n}.bias']

  def layer_norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[scale]

  def turn(x):  # [b, t, n, h].
    half = x.shape[-1] // 2
    angle = np.arange(T)[:, None] * 1e4 ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, z = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - z * sin, z * cos + a * sin], -1)

  half = CONFIG.num_features // 2
  angle = 1000 * times[:, None] * 1e4 ** (-np.arange(half) / half)
  cond = np.concatenate([np.cos(angle), np.sin(angle)], -1)
  cond = silu(dense(silu(dense(cond, 'stack.time1')), 'stack.time2'))
  parts = lambda name, n: np.split(
    dense(cond, f'stack.{name}modulation.proj')[:, None], n, axis=-1
  )
  x = w['embed.tokens.table'][tokens]
  for i in range(CONFIG.num_layers):
    p = f'stack.blocks.{i}.'
    shift1, scale1, gate1, shift2, scale2, gate2 = parts(f'blocks.{i}.', 6)
    y = layer_norm(x, f'{p}attention_norm.scale') * (1 + scale1) + shift1
    q, k, v = (
      np.einsum('btd,dnh->btnh', y, w[f'{p}attention.{c}.kernel'])
      for c in 'qkv'
    )
    score = np.einsum('btnh,bsnh->bnts', turn(q), turn(k))
    score = np.exp(score / np.sqrt(q.shape[-1]))
    y = np.einsum('bnts,bsnh->btnh', score / score.sum(-1, keepdims=True), v)
    y = np.einsum('btnh,nhd->btd', y, w[f'{p}attention.out.kernel'])
    x = x + gate1 * y
    y = layer_norm(x, f'{p}mlp_norm.scale') * (1 + scale2) + shift2
    h = dense(y, f'{p}mlp.up')
    h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    x = x + gate2 * dense(h, f'{p}mlp.down')
  shift, scale = parts('', 2)
  x = layer_norm(x, 'stack.norm.scale') * (1 + scale) + shift
  return (x @ w['head.out.kernel'])[..., :V]


def test_logits_are_those_of_numpy(model):
  want = numpy_logits(model, np.asarray(TOKENS), np.asarray(TIMES, np.float64))
  got = np.asarray(logits(model, TOKENS, TIMES))
  # cos(1000) in float32 is wrong by 1000 x 6e-8; sums of up to 64 terms.
  np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


def test_a_row_is_told_its_own_time(model):
  whole = logits(model, TOKENS, TIMES)
  zero = logits(model, TOKENS)
  np.testing.assert_allclose(whole[0], zero[0], atol=1e-5)
  assert np.abs(np.asarray(whole[1:] - zero[1:])).max() > 0.1


def test_a_new_model_finds_all_tokens_equally_likely():
  model = CONFIG.make(nnx.Rngs(0))
  np.testing.assert_array_equal(logits(model, TOKENS, TIMES), 0)


def test_documents_do_not_meet(model):
  segments = jnp.asarray([[1, 1, 1, 2, 2, 0]] * B)
  got = logits(model, TOKENS, TIMES, segments)
  other = TOKENS.at[:, 3:].set(0)
  same = logits(model, other, TIMES, segments)
  np.testing.assert_array_equal(got[:, :3], same[:, :3])


def test_flops_are_those_of_its_matmuls(model):
  parts = CONFIG.make(nnx.Rngs(0)).flops(base.Shape(b=B, t=T))
  lowered = jax.jit(
    lambda x, t: model.logits(model(x, context=t).hidden_btd)
  ).lower(TOKENS, TIMES)
  counted = lowered.compile().cost_analysis()['flops']
  # XLA also counts norms, activations, softmax and rotations.
  assert sum(parts.values()) <= counted <= 1.4 * sum(parts.values())
  assert parts['head'] == 2 * B * T * 16 * 16


def test_the_objective_tells_the_time_and_gradients_reach_it(model):
  ones = jnp.ones((B, T), jnp.int32)
  batch = {
    'tokens_bt': TOKENS % 9,
    'targets_bt': TOKENS % 9,
    'loss_mask_bt': ones.astype(jnp.float32),
    'segment_ids_bt': ones,
    'positions_bt': ones * jnp.arange(T),
    'num_bytes_bt': ones,
  }
  graph, params = nnx.split(model)

  def grads(is_timed):
    objective = mdlm.Config(mask_id=9, is_timed=is_timed).make()
    loss = lambda p: (
      objective(nnx.merge(graph, p), batch, jax.random.key(0)).sum_nats
    )
    return nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))

  told, untold = grads(True), grads(False)
  kernel = lambda g: np.asarray(g['stack']['time1']['kernel'])
  assert np.isfinite(kernel(told)).all()
  # Untold means time 0: all sines are zero.
  half = CONFIG.num_features // 2
  assert (np.abs(kernel(told))[half:] > 0).any()
  assert (kernel(untold)[half:] == 0).all()


def test_the_first_hitting_sampler_tells_the_times(model):
  canvas = samplers.start(
    jnp.zeros((B, T), jnp.int32), jnp.ones((B, T), bool), 9
  )
  rngs = samplers.row_rngs(jax.random.key(0), B)
  out, times = jax.jit(
    lambda d, c: first_hitting.decode(d, c, rngs, mask_id=9)
  )(denoisers.Timed.make(model), canvas)
  assert not out.is_masked_bt.any()
  assert (np.asarray(times) > 0).all()


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(dim=10, num_heads=4), 'dim=10'),
    (dict(num_features=3), 'num_features=3'),
    (dict(is_causal=True), 'is_causal=True'),
    (dict(remat=True), 'remat=True'),
    (dict(position='t5'), "position='t5'"),
    (dict(cond_dim=0), 'cond_dim=0'),
  ],
)
def test_bad_settings_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    dit.Config(**fields)

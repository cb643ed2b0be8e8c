# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels import dispatch

from jaxtok.nn import attention, masks

B, T, S, K, G, H = 2, 9, 9, 2, 3, 8


def oracle(q, k, v, visible, bias, scale, soft_cap, sink):
  """Plain loops over rows and heads, float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  out = np.zeros((*q.shape[:3], v.shape[3]))
  lse = np.full(q.shape[:3], -np.inf)
  for b in range(q.shape[0]):
    for n in range(q.shape[2]):
      head = n // (q.shape[2] // k.shape[2])
      score = q[b, :, n] @ k[b, :, head].T * scale
      if soft_cap:
        score = soft_cap * np.tanh(score / soft_cap)
      if bias is not None:
        score = score + bias[min(b, len(bias) - 1), min(n, bias.shape[1] - 1)]
      for t in range(q.shape[1]):
        seen = visible[b, t]
        weight = np.exp(score[t, seen])
        total = weight.sum() + (0 if sink is None else np.exp(sink[n]))
        if total > 0:
          out[b, t, n] = weight @ v[b, seen, head] / total
          lse[b, t, n] = np.log(total)
  return out, lse


def inputs(seed=0, dtype=np.float32, t=T):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  return draw(B, t, K * G, H), draw(B, t, K, H), draw(B, t, K, H)


SEGMENTS = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2, 2]])
CASES = {
  'causal': dict(mask=masks.Causal()),
  'full': dict(),
  'packed with empty rows': dict(
    mask=masks.Segments() & masks.Causal(), packed=True
  ),
  'bias': dict(mask=masks.Causal(), bias=(1, K * G), scale=1.0),
  'bias of all heads': dict(mask=masks.Causal(), bias=(B, 1)),
  'soft cap': dict(mask=masks.Causal(), soft_cap=2.0),
  'sink': dict(mask=masks.Causal() & masks.Window(3), sink=True),
}


def case_inputs(name, t=T):
  options = dict(CASES[name], layout=masks.Layout(t, t))
  rng = np.random.default_rng(1)
  if options.pop('packed', False):
    segments = SEGMENTS[:, np.arange(t) * T // t]  # Longer documents.
    options['layout'] = masks.Layout(
      t, t, q_segments_bt=segments, kv_segments_bs=segments
    )
  if 'bias' in options:
    shape = (*options['bias'], t, t)
    options['bias'] = jnp.asarray(rng.normal(size=shape), jnp.float32)
  if options.pop('sink', False):
    options['sink_n'] = jnp.asarray(rng.normal(size=K * G), jnp.float32)
  return options


# The kernels have tests of their own; here, that arguments reach them.
PAIRS = [
  *((name, 'dense') for name in CASES),
  *((name, 'cpu') for name in CASES),
  *((name, 'xla') for name in ('packed with empty rows', 'sink', 'soft cap')),
]


# Two blocks of queries (64 and 1) and four (3 of 64, and 8), whose keys start
# and end in different places.
SEVERAL_BLOCKS = [
  ('bias', 'cpu', 65),
  ('packed with empty rows', 'cpu', 200),
  ('sink', 'cpu', 200),
]


@pytest.mark.parametrize(
  'name, implementation, t', [(*pair, T) for pair in PAIRS] + SEVERAL_BLOCKS
)
def test_attention_equals_float64_loops(name, implementation, t):
  q, k, v = inputs(t=t)
  options = case_inputs(name, t)
  state = jax.jit(
    lambda q, k, v: attention.attention(
      q, k, v, return_lse=True, implementation=implementation, **options
    )
  )(q, k, v)
  visible = masks.visible(options.get('mask', masks.Full()), options['layout'])
  as_numpy = lambda x: None if x is None else np.asarray(x, np.float64)
  want, want_lse = oracle(
    q,
    k,
    v,
    np.broadcast_to(visible, (B, t, t)),
    as_numpy(options.get('bias')),
    options.get('scale', H**-0.5),
    options.get('soft_cap', 0.0),
    as_numpy(options.get('sink_n')),
  )
  # Sums of 8 products and of 9 weights of order 1: a few float32 roundings
  # (6e-8 each) of numbers below 10. Sums of 200 weights are rounded some 25
  # times in each of 8 partial sums: 2e-6 of averages below 4.
  atol = 3e-6 if t == T else 1e-5
  np.testing.assert_allclose(state.out, want, atol=atol)
  np.testing.assert_allclose(state.lse, want_lse, atol=atol)


@pytest.mark.parametrize(
  'name, implementation, t',
  [(*pair, T) for pair in PAIRS[:-2]] + SEVERAL_BLOCKS,
)
def test_gradients_equal_those_of_a_softmax_written_out(
  name, implementation, t
):
  q, k, v = inputs(2, t=t)
  options = case_inputs(name, t)
  traced = {n: options.pop(n) for n in ('bias', 'sink_n') if n in options}
  rng = np.random.default_rng(3)
  push = jnp.asarray(rng.normal(size=(B, t, K * G, H)), jnp.float32)

  def loss(implementation, q, k, v, traced):
    y = attention.attention(
      q, k, v, implementation=implementation, **options, **traced
    )
    return (y * push).sum()

  got = jax.jit(jax.grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)(
    implementation, q, k, v, traced
  )
  plain = lambda *x: plain_loss(*x, options, push)
  want = jax.jit(jax.grad(plain, argnums=(0, 1, 2, 3)))(q, k, v, traced)
  # Products of up to four numbers of order 1, summed over 9 keys and 6 heads;
  # of 200 keys, 5 times as many roundings.
  atol = 2e-5 if t == T else 1e-4
  jax.tree.map(
    lambda a, z: np.testing.assert_allclose(a, z, atol=atol), got, want
  )


def plain_loss(q, k, v, traced, options, push):
  """Attention with repeated heads, boolean mask and autodiff."""
  k, v = jnp.repeat(k, G, axis=2), jnp.repeat(v, G, axis=2)
  score = jnp.einsum('btnh,bsnh->bnts', q, k) * options.get('scale', H**-0.5)
  if cap := options.get('soft_cap', 0.0):
    score = cap * jnp.tanh(score / cap)
  score = score + traced.get('bias', 0.0)
  mask = options.get('mask', masks.Full())
  seen = masks.visible(mask, options['layout'])[:, None]
  weight = jnp.where(seen, jnp.exp(score), 0)
  total = weight.sum(-1, keepdims=True)
  if 'sink_n' in traced:
    total = total + jnp.exp(traced['sink_n'])[:, None, None]
  weight = weight / jnp.where(total == 0, 1, total)
  return (jnp.einsum('bnts,bsnh->btnh', weight, v) * push).sum()


def test_rows_without_keys_give_zeros_and_finite_gradients():
  q, k, v = inputs()
  nothing = masks.Dense(jnp.zeros((1, T, S), bool))

  @jax.jit
  def run(q, k, v):
    state = attention.attention(q, k, v, mask=nothing, return_lse=True)
    return state.out.sum(), state

  grads, state = jax.jit(jax.grad(run, argnums=(0, 1, 2), has_aux=True))(
    q, k, v
  )
  assert (state.out == 0).all()
  assert jnp.isneginf(state.lse).all()
  assert all((g == 0).all() for g in grads)


@jax.jit
def _causal(q, k, v, length_b):
  layout = masks.Layout(T, S, kv_length_b=length_b)
  return attention.attention(q, k, v, mask=masks.Causal(), layout=layout)


def test_large_scores_neither_overflow_nor_lose_the_largest():
  q, k, v = inputs()
  y = _causal(1e4 * q, k, v, jnp.array([S, S]))
  assert jnp.isfinite(y).all()
  np.testing.assert_array_equal(y[:, 0, 0], v[:, 0, 0])


def test_nan_in_keys_nobody_sees_does_not_leak():
  q, k, v = inputs()
  length = jnp.array([5, 5])
  want = _causal(q, k, v, length)
  got = _causal(q, k.at[:, 5:].set(jnp.nan), v.at[:, 5:].set(7.0), length)
  np.testing.assert_array_equal(got, want)


def test_query_heads_read_their_own_group():
  """Catches `head % k` in place of `head // (n / k)`."""
  q, k, v = inputs()
  length = jnp.array([S, S])
  y = _causal(q, k, v, length)
  swapped = _causal(
    q.reshape(B, T, K, G, H)[:, :, ::-1].reshape(q.shape),
    k[:, :, ::-1],
    v[:, :, ::-1],
    length,
  )
  want = y.reshape(B, T, K, G, H)[:, :, ::-1].reshape(y.shape)
  np.testing.assert_allclose(swapped, want, atol=1e-6)


def test_wrong_shapes_and_names_are_refused():
  q, k, v = inputs()
  with pytest.raises(ValueError, match='no multiple of 2'):
    attention.attention(q[:, :, :5], k, v)
  with pytest.raises(ValueError, match='layout is for 3 queries'):
    attention.attention(q, k, v, layout=masks.Layout(3, S))
  with pytest.raises(ValueError, match="implementation='fast' is unknown"):
    attention.attention(q, k, v, implementation='fast')


@pytest.mark.parametrize('case', ['dense', 'blocks with bias', 'blocks'])
def test_on_a_gpu_what_kernels_cannot_serve_is_dense_with_the_reason(case):
  size = jax.ShapeDtypeStruct((1, 64, 2, 32), jnp.float32)
  if case == 'dense':
    mask = masks.Dense(jnp.ones((1, 64, 64), bool))
  else:
    mask = masks.Blocks(jnp.ones((1, 2, 2), bool), 32)
  bias = jnp.zeros((1, 1, 64, 64)) if 'bias' in case else None
  attend = lambda q: attention.attention(q, q, q, mask=mask, bias=bias)
  with dispatch.lowering_platforms('cuda'):
    jax.eval_shape(attend, size)
  found = dispatch.last_dispatch()
  if case == 'blocks':
    assert found.chosen == {'cuda': 'triton'}
    return
  assert found.chosen == {'any': 'dense'}
  reason = 'bias cannot' if 'bias' in case else 'Dense'
  assert reason in found.refused['any/auto']


def test_bfloat16_keeps_float32_statistics():
  q, k, v = inputs(dtype=jnp.bfloat16)
  state = attention.attention(
    q, k, v, mask=masks.Causal(), return_lse=True, implementation='dense'
  )
  visible = np.broadcast_to(np.tril(np.ones((T, S), bool)), (B, T, S))
  want, want_lse = oracle(
    *(x.astype(jnp.float32) for x in (q, k, v)),
    visible,
    None,
    H**-0.5,
    0.0,
    None,
  )
  assert state.lse.dtype == jnp.float32
  # Inputs are equal; outputs below 4 are rounded to 8 bits.
  np.testing.assert_allclose(state.out.astype('float32'), want, atol=2e-2)
  np.testing.assert_allclose(state.lse, want_lse, atol=2e-2)

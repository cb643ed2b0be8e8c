# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear attention against the quadratic form in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtok_kernels.linear_attention import (
  LinearState,
  feature_dim,
  feature_map,
  linear_attention,
)

from tests.kernels import interpreted

B, T, N, H, E, M = 2, 45, 3, 8, 5, 7


def draw(*shape, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


def operands(dtype=jnp.float32, t=T):
  return (
    draw(B, t, N, H, dtype=dtype),
    draw(B, t, N, H, seed=1, dtype=dtype),
    draw(B, t, N, E, seed=2, dtype=dtype),
  )


def similar(q, k, feature):
  """`[..., t, s]` in float64; independent of the feature maps."""
  u = np.einsum('btnh,bsnh->bnts', q, k) / H**0.5
  if feature == 'taylor2':
    return 1 + u + u**2 / 2
  if feature == 'identity':
    return u
  elu = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
  return np.einsum('btnh,bsnh->bnts', elu(q), elu(k))


def oracle(
  q,
  k,
  v,
  feature,
  *,
  k_enc=None,
  v_enc=None,
  prefix_len=None,
  valid=None,
  decay=None,
  normalize=True,
):
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  t = q.shape[1]
  valid = np.ones((B, t), bool) if valid is None else np.asarray(valid)
  a = similar(q, k, feature) * np.tril(np.ones((t, t)))
  g = np.zeros((B, t, N, 1)) if decay is None else np.asarray(decay, np.float64)
  g = g[..., None] if g.ndim == 3 else g
  total = np.cumsum(np.where(valid[..., None, None], g, 0), 1)
  gap = np.exp(np.minimum(total[:, :, None] - total[:, None], 0))
  if g.shape[-1] > 1:
    a = np.einsum('btnh,bsnh,btsnh->bnts', q, k, gap) / H**0.5
    a = a * np.tril(np.ones((t, t)))
  else:
    a = a * gap[..., 0].transpose(0, 3, 1, 2)
  a = a * valid[:, None, None]
  if k_enc is not None:
    k_enc, v_enc = (np.asarray(x, np.float64) for x in (k_enc, v_enc))
    pre = similar(q, k_enc, feature)
    pre = pre * (np.arange(M) < np.asarray(prefix_len)[:, None])[:, None, None]
    pre = pre * np.exp(total[..., 0]).transpose(0, 2, 1)[..., None]
    a, v = np.concatenate([pre, a], -1), np.concatenate([v_enc, v], 1)
  y = np.einsum('bnts,bsne->btne', a, v)
  if not normalize:
    return y
  return y / (a.sum(-1).transpose(0, 2, 1)[..., None] + 1e-6)


def check(got, want, rtol=1e-5):
  """Relative to the largest value: sums of up to 50 signed terms."""
  np.testing.assert_allclose(got, want, atol=rtol * np.abs(want).max())


CASES = {
  'taylor2': dict(feature='taylor2'),
  'elu': dict(feature='elu'),
  'identity': dict(feature='identity', normalize=False),
  'padded': dict(
    feature='taylor2', valid_bt=jnp.arange(T) < jnp.array([[45], [30]])
  ),
  'prefix': dict(
    feature='taylor2',
    k_enc=draw(B, M, N, H, seed=3),
    v_enc=draw(B, M, N, E, seed=4),
    prefix_len=jnp.array([7, 3]),
  ),
  'decay': dict(
    feature='identity',
    normalize=False,
    decay=-jnp.abs(draw(B, T, N, seed=5)),
  ),
  'prefix_decay': dict(
    feature='taylor2',
    k_enc=draw(B, M, N, H, seed=3),
    v_enc=draw(B, M, N, E, seed=4),
    prefix_len=jnp.array([7, 0]),
    decay=-0.1 * jnp.abs(draw(B, T, N, seed=5)),
  ),
  'gated': dict(
    feature='identity',
    normalize=False,
    decay=-jnp.abs(draw(B, T, N, H, seed=5)),
  ),
}


@pytest.mark.parametrize('name', CASES)
def test_chunks_and_recurrence_equal_the_quadratic_form(name):
  case = dict(CASES[name])
  want = oracle(
    *operands(),
    **{x.replace('valid_bt', 'valid'): y for x, y in case.items()},
  )
  if 'valid_bt' in case:
    want = np.where(np.asarray(case['valid_bt'])[..., None, None], want, 0)
  for implementation in ('reference', 'xla'):
    got, _ = jax.jit(
      functools.partial(
        linear_attention, chunk=8, implementation=implementation, **case
      )
    )(*operands())
    if 'valid_bt' in case:
      got = jnp.where(case['valid_bt'][..., None, None], got, 0)
    check(got, want)


def test_resets_leave_the_later_decays_exact():
  """One running sum would round them to the size of what came before."""
  q, k = draw(5, 128, 1, 4), draw(5, 128, 1, 4, seed=1)
  v, state = draw(5, 128, 1, 3, seed=2), draw(5, 1, 4, 4, seed=3)
  decay = np.full((5, 128, 1), -0.01, np.float32)
  decay[:4, 30, 0] = -1e4, -1e6, -1e30, -np.inf
  decay[4, 10:70] = -100  # Many that are large, but no full resets.
  args = q, k, v, jnp.asarray(decay), LinearState(state)

  def run(implementation, q, k, v, decay, state):
    return linear_attention(
      q,
      k,
      v,
      decay=decay,
      initial_state=state,
      feature='identity',
      normalize=False,
      implementation=implementation,
    )[0]

  sums, want = np.asarray(state, np.float64)[:, 0], []
  for i in range(128):
    new = np.einsum('bf,be->bfe', *(np.float64(x[:, i, 0]) for x in (k, v)))
    new = np.concatenate([new, np.zeros((5, 4, 1))], -1) / 4**0.25
    sums = sums * np.exp(np.float64(decay[:, i]))[..., None] + new
    want.append(np.einsum('bf,bfe->be', q[:, i, 0], sums) / 4**0.25)
  want = np.stack(want, 1)[:, :, None, :3]
  loss = lambda name, *args: jnp.sin(run(name, *args)).sum()
  grads = {}
  for name in ('reference', 'xla'):
    got = jax.jit(functools.partial(run, name))(*args)
    for x, y in zip(got, want, strict=True):
      check(x, y, rtol=2e-6)
    fn = jax.grad(functools.partial(loss, name), argnums=range(5))
    grads[name] = jax.tree.leaves(interpreted.run(fn, *args))
  for x, y in zip(grads['xla'], grads['reference'], strict=True):
    check(x, y)
  assert not grads['xla'][3][:4, 30].any()


@pytest.mark.parametrize('implementation', ['reference', 'xla'])
def test_what_padding_holds_is_not_read(implementation):
  def run(q, k, v, k_enc, v_enc, decay):
    return linear_attention(
      q,
      k,
      v,
      k_enc=k_enc,
      v_enc=v_enc,
      prefix_len=jnp.array([2]),
      valid_bt=jnp.arange(10)[None] < 7,
      decay=decay,
      implementation=implementation,
    )

  x, decay = draw(1, 10, 2, 4), -0.1 * jnp.ones((1, 10, 2))
  fill = lambda bad: (
    x,
    x.at[:, 7:].set(bad),
    x.at[:, 7:].set(bad),
    x[:, :4].at[:, 2:].set(bad),
    x[:, :4].at[:, 2:].set(bad),
    decay.at[:, 7:].set(bad),
  )
  loss = lambda *args: sum(
    jnp.sin(y).sum() for y in jax.tree.leaves(run(*args))
  )
  fn = jax.value_and_grad(loss, argnums=range(6))
  got, want = (interpreted.run(fn, *fill(bad)) for bad in (jnp.nan, 1.0))
  for y, z in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_array_equal(y, z)
    assert np.isfinite(z).all()


@pytest.mark.parametrize('implementation', ['reference', 'xla', 'triton'])
def test_no_tokens_pass_the_state_on(implementation):
  q, k, v = operands(t=0)
  start = draw(B, N, feature_dim('taylor2', H), E + 1)
  y, state = linear_attention(
    q, k, v, initial_state=LinearState(start), implementation=implementation
  )
  assert y.shape == (B, 0, N, E)
  np.testing.assert_array_equal(state.sums_bnfe, start)


def test_the_chunk_size_does_not_change_the_result():
  case = CASES['prefix_decay']
  run = lambda chunk: jax.jit(
    functools.partial(
      linear_attention, chunk=chunk, implementation='xla', **case
    )
  )(*operands())
  want, want_state = run(8)
  for chunk in (7, 128):
    got, state = run(chunk)
    check(got, want)
    check(state.sums_bnfe, want_state.sums_bnfe)


def test_two_calls_with_the_state_between_equal_one():
  decay = -0.1 * jnp.abs(draw(B, T, N, seed=5))
  fn = jax.jit(
    functools.partial(linear_attention, chunk=8, implementation='xla')
  )
  want, state = fn(*operands(), decay=decay)
  cut = lambda part: [x[:, part] for x in (*operands(), decay)]
  *first, decay1 = cut(slice(0, 20))
  *second, decay2 = cut(slice(20, None))
  y1, middle = fn(*first, decay=decay1)
  y2, end = fn(*second, decay=decay2, initial_state=middle)
  check(jnp.concatenate([y1, y2], 1), want)
  check(end.sums_bnfe, state.sums_bnfe)


@pytest.mark.parametrize(
  'name',
  [pytest.param('taylor2', marks=pytest.mark.slow), 'prefix_decay', 'gated'],
)
def test_gradients_equal_those_of_the_recurrence(name):
  with jax.enable_x64(True):
    case = {
      x: y.astype(np.float64) if hasattr(y, 'dtype') and y.ndim > 2 else y
      for x, y in CASES[name].items()
    }
    arrays = {x: y for x, y in case.items() if hasattr(y, 'dtype')}
    floats = {x: y for x, y in arrays.items() if y.ndim > 2}
    static = {x: y for x, y in case.items() if x not in floats}

    def loss(implementation, args, floats):
      y, state = linear_attention(
        *args, **floats, **static, chunk=8, implementation=implementation
      )
      return jnp.sin(y).sum() + jnp.sin(state.sums_bnfe).sum()

    got, want = (
      interpreted.run(
        jax.grad(functools.partial(loss, x), argnums=(0, 1)),
        operands(jnp.float64),
        floats,
      )
      for x in ('xla', 'reference')
    )
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      # Normalisers near zero amplify rounding.
      np.testing.assert_allclose(x, y, atol=1e-9 * np.abs(y).max() + 1e-10)


def test_symmetric_features_equal_the_full_taylor_features():
  x, y = draw(20, 16), draw(20, 16, seed=1)
  phi = lambda z: feature_map(z, 'taylor2')
  assert phi(x).shape == (20, feature_dim('taylor2', 16)) == (20, 153)

  def whole(z):
    z = np.asarray(z, np.float64)
    square = np.einsum('ti,tj->tij', z, z).reshape(20, -1)
    return np.concatenate([np.ones((20, 1)), z / 2, square / (2**0.5 * 4)], -1)

  np.testing.assert_allclose(
    phi(x) @ phi(y).T, whole(x) @ whole(y).T, rtol=1e-5
  )


def test_rows_see_the_whole_prefix_but_no_later_token():
  enc = draw(B, M, N, H, seed=3), draw(B, M, N, E, seed=4)

  def row(i, q, k, v, k_enc):
    y, _ = linear_attention(
      q, k, v, k_enc=k_enc, v_enc=enc[1], implementation='xla', chunk=8
    )
    return y[0, i].sum()

  grads = jax.jit(jax.grad(row, argnums=(2, 3, 4)))
  for i in (0, 11):
    dk, dv, dk_enc = grads(i, *operands(), enc[0])
    assert not dk[0, i + 1 :].any()
    assert not dv[0, i + 1 :].any()
    assert (np.abs(dk_enc[0]).sum((1, 2)) > 0).all()


def test_state_of_many_steps_does_not_drift():
  q, k, v = operands(t=4096)
  _, state = jax.jit(functools.partial(linear_attention, implementation='xla'))(
    q, k, v
  )
  phi = np.asarray(feature_map(k, 'taylor2'), np.float64)
  ones = np.concatenate([v, np.ones_like(v[..., :1])], -1).astype(np.float64)
  want = np.einsum('btnf,btne->bnfe', phi, ones)
  check(state.sums_bnfe, want, rtol=1e-5)


def test_bfloat16_is_close_to_float32():
  q, k, v = operands(jnp.bfloat16)
  got, state = linear_attention(q, k, v)
  assert got.dtype == jnp.bfloat16
  assert state.sums_bnfe.dtype == jnp.float32
  check(np.asarray(got, np.float32), oracle(q, k, v, 'taylor2'), rtol=2e-2)


def test_wrong_arguments_are_named():
  q, k, v = operands()
  with pytest.raises(ValueError, match="feature='exp' is unknown"):
    linear_attention(q, k, v, feature='exp')
  with pytest.raises(ValueError, match='given together'):
    linear_attention(q, k, v, k_enc=k)
  with pytest.raises(ValueError, match=r'k_enc has shape \(2, 45, 1, 8\)'):
    linear_attention(q, k, v, k_enc=k[:, :, :1], v_enc=v)
  with pytest.raises(ValueError, match=r'v_enc has shape \(2, 44, 3, 5\)'):
    linear_attention(q, k, v, k_enc=k, v_enc=v[:, 1:])
  with pytest.raises(ValueError, match='without a prefix'):
    linear_attention(q, k, v, prefix_len=jnp.array([1, 2]))
  with pytest.raises(ValueError, match='prefix_len has shape'):
    linear_attention(q, k, v, k_enc=k, v_enc=v, prefix_len=jnp.array(3))
  with pytest.raises(ValueError, match='valid_bt has shape'):
    linear_attention(q, k, v, valid_bt=jnp.ones((B, 1), bool))
  with pytest.raises(ValueError, match='decay has shape'):
    linear_attention(q, k, v, decay=jnp.zeros((B, T)))
  with pytest.raises(ValueError, match='needs feature="identity"'):
    linear_attention(q, k, v, decay=jnp.zeros((B, T, N, H)))
  with pytest.raises(ValueError, match='initial_state has shape'):
    linear_attention(q, k, v, initial_state=LinearState(jnp.zeros((1, 1))))

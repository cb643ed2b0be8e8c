# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtok.objectives import cross_entropy as ce

B, T, D, V = 3, 37, 16, 300


def inputs(dtype='float32'):
  rng = np.random.default_rng(0)
  head = rng.normal(size=(D, V)).astype(dtype)
  hidden = rng.normal(size=(B, T, D)).astype(dtype)
  weights = rng.uniform(size=(B, T)).astype('float32')
  weights[1, 5:20] = 0
  targets = rng.integers(0, V, (B, T), dtype='int32')
  return head, hidden, weights, targets


def oracle(head, hidden, weights, targets, z_loss):
  """Value and gradients by hand in float64 NumPy."""
  head, hidden = head.astype('float64'), hidden.astype('float64')
  logits = hidden @ head
  top = logits.max(-1, keepdims=True)
  lse = (np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top)[..., 0]
  hit = np.eye(V)[targets]
  nats = lse - (logits * hit).sum(-1)
  loss = nats + z_loss * lse**2
  p = np.exp(logits - lse[..., None])
  d = p * (1 + 2 * z_loss * lse)[..., None] - hit
  d *= weights[..., None]
  d_head = np.einsum('btd,btv->dv', hidden, d)
  return (weights * loss).sum(), nats, (d_head, d @ head.T, loss)


@pytest.fixture
def cpu_mesh():
  if jax.device_count() < 4:
    pytest.skip('needs four devices')
  axes = (AxisType.Auto,) * 2
  return jax.make_mesh(
    (2, 2), ('data', 'model'), axis_types=axes, devices=jax.devices()[:4]
  )


def total(head, hidden, weights, targets, **kwargs):
  head, *args = map(jnp.asarray, (head, hidden, targets, weights))
  scores = ce.cross_entropy(lambda h: h @ head, *args, **kwargs)
  return scores.total, scores


# The sum of 111 losses of about 8 in float32: relative 111 * 6e-8. Gradients
# by the head are sums of 111 products of about 1: the same, absolute.
@pytest.mark.parametrize('num_chunks', [0, 1, 5, 37])
@pytest.mark.parametrize('z_loss', [0.0, 0.01])
def test_values_and_gradients_equal_float64(num_chunks, z_loss):
  args = inputs()
  want, want_nats, want_grads = oracle(*args, z_loss)
  f = functools.partial(total, num_chunks=num_chunks, z_loss=z_loss)
  grad = jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))
  (got, scores), grads = grad(*args)
  np.testing.assert_allclose(got, want, rtol=7e-6)
  np.testing.assert_allclose(scores.nats_bt, want_nats, atol=1e-5)
  for g, w in zip(grads, want_grads, strict=True):
    np.testing.assert_allclose(g, w, atol=2e-5, rtol=1e-5)
  assert (np.asarray(grads[1])[args[2] == 0] == 0).all()
  assert float(f(*args)[0]) == pytest.approx(want, rel=7e-6)


def test_the_cpu_and_the_accelerator_plan_agree():
  assert ce._plan(32, 256, 4096, 0) == {'cpu': 64, 'default': 1}
  assert ce._plan(4096, 4096, 2**17, 0)['default'] == 32  # 128 of each row.
  rng = np.random.default_rng(0)
  head = rng.normal(size=(4, 1024)).astype('float32')
  hidden = rng.normal(size=(8, 64, 4)).astype('float32')
  targets = rng.integers(0, 1024, (8, 64), dtype='int32')
  weights = np.ones((8, 64), 'float32')
  assert set(ce._plan(8, 64, 1024, 0)) == {'cpu', 'default'}
  grad = jax.jit(
    jax.value_and_grad(total, argnums=(0, 1), has_aux=True),
    static_argnames='num_chunks',
  )
  (a, _), grads_a = grad(head, hidden, weights, targets)
  (b, _), grads_b = grad(head, hidden, weights, targets, num_chunks=1)
  np.testing.assert_allclose(a, b, rtol=1e-6)
  jax.tree.map(  # Sums of 512 products of about 1 in another order.
    lambda x, y: np.testing.assert_allclose(x, y, atol=5e-5), grads_a, grads_b
  )


def test_all_logits_are_never_held():
  b, t, d, v = 4, 512, 8, 2048
  shapes = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (
      ((d, v), 'float32'),
      ((b, t, d), 'float32'),
      ((b, t), 'float32'),
      ((b, t), 'int32'),
    )
  ]
  grad = jax.jit(jax.grad(lambda *a: total(*a)[0], argnums=(0, 1)))
  memory = grad.lower(*shapes).compile().memory_analysis()
  # A chunk has at most 2**18 logits; exp and gradient may be held beside it.
  assert memory.temp_size_in_bytes < 4 * (4 * 2**18 + 4 * b * t * d + d * v)


def test_low_precision_heads_get_gradients_of_their_type():
  head, hidden, weights, targets = inputs()
  low = jnp.asarray(head, 'bfloat16')
  f = lambda h, x: total(h, x, weights, targets, num_chunks=8)[0]
  grads = jax.grad(f, argnums=(0, 1))(low, jnp.asarray(hidden, 'bfloat16'))
  assert [g.dtype for g in grads] == ['bfloat16', 'bfloat16']
  _, _, (want, _, _) = oracle(head, hidden, weights, targets, 0.0)
  # Logits of about 4 rounded to 8 bits move a probability by 1.6 %.
  error = np.abs(np.asarray(grads[0], 'float32') - want).mean()
  assert error < 0.03 * np.abs(want).mean()


def test_ties_share_the_point_for_accuracy():
  logits = jnp.array([[[0.0, 0.0, 0.0, 0.0], [1.0, 5.0, 5.0, 2.0]]])
  score = lambda *targets: ce.cross_entropy(
    lambda h: h, logits, jnp.array([targets], 'int32'), jnp.ones((1, 2))
  ).correct_bt.tolist()
  assert score(3, 1) == [[0.25, 0.5]]
  assert score(0, 3) == [[0.25, 0.0]]


def test_impossible_tokens_cost_nothing_and_have_no_gradient():
  logits = jnp.array([[[1.0, -jnp.inf, 2.0]]])
  targets, weights = jnp.array([[2]], 'int32'), jnp.ones((1, 1))
  f = lambda x: ce.cross_entropy(lambda h: h, x, targets, weights).total
  value, grad = jax.value_and_grad(f)(logits)
  assert float(value) == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)
  assert np.isfinite(grad).all()
  assert grad[0, 0, 1] == 0


def test_sharded_rows_and_vocabulary_give_the_same(cpu_mesh):
  head, hidden, weights, targets = inputs()
  pad = lambda x: np.concatenate([x, x[:1]])  # Four rows.
  args = head, *map(pad, (hidden, weights, targets))
  f = lambda *args: total(*args, num_chunks=4)
  grad = jax.value_and_grad(f, argnums=(0, 1), has_aux=True)
  specs = P(None, 'model'), P('data'), P('data'), P('data')
  sharded = [
    jax.device_put(x, NamedSharding(cpu_mesh, spec))
    for x, spec in zip(args, specs, strict=True)
  ]
  compiled = jax.jit(grad).lower(*sharded).compile()
  (got, _), got_grads = compiled(*sharded)
  want, _, want_grads = oracle(*args, 0.0)
  np.testing.assert_allclose(got, want, rtol=7e-6)
  for g, w in zip(got_grads, want_grads[:2], strict=True):
    np.testing.assert_allclose(g, w, atol=2e-5, rtol=1e-5)
  # Neither the logits of a chunk (4 rows of 10 places) nor the head travel.
  assert 'all-gather' not in compiled.as_text()

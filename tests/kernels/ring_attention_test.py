# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ring attention on a simulated ring against one device.

`vmap` with an axis name runs the collectives of `shard_map` on one device.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jaxtok_kernels import flash_attention, last_dispatch, masks
from jaxtok_kernels.ring_attention import cost, ring_attention, sharded_order

B, T, N, H, P = 2, 32, 4, 8, 4
SEGMENTS = jnp.asarray(np.repeat([[1, 2, 0], [3, 4, 5]], [13, 15, 4], axis=1))
MASKS = {
  'full': masks.full(),
  'causal': masks.causal(),
  'window': masks.window(5),
  'prefix': masks.prefix(jnp.array([9, 20])),
  'packed': masks.packed(SEGMENTS),
}
SINK = jnp.array([0.5, -1.0, 2.0, 0.0])


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def ring(q, k, v, mask, layout, **kwargs):
  """Shards, runs the ring, and puts the tokens back in order."""
  num_tokens = q.shape[1]
  order = sharded_order(num_tokens, P, layout)
  shard = lambda x: x[:, order].reshape(x.shape[0], P, -1, *x.shape[2:])
  pos = jnp.asarray(order).reshape(1, P, -1)
  rows = None
  if mask.intervals is not None:
    rows = shard(
      jnp.broadcast_to(mask.intervals, (B, *mask.intervals.shape[1:]))
    )

  def local(q, k, v, pos, rows):
    here = mask if rows is None else masks.from_intervals(rows)
    return ring_attention(
      q,
      k,
      v,
      mask=here,
      axis_name='ring',
      q_pos=pos,
      kv_pos=pos,
      return_state=True,
      **kwargs,
    )

  state = jax.vmap(
    local,
    in_axes=(1, 1, 1, 1, None if rows is None else 1),
    out_axes=1,
    axis_name='ring',
  )(shard(q), shard(k), shard(v), pos, rows)
  back = np.argsort(order)
  return jax.tree.map(
    lambda x: x.reshape(x.shape[0], num_tokens, *x.shape[3:])[:, back], state
  )


@pytest.mark.parametrize(
  ('strategy', 'layout', 'k'),
  [
    ('kv', 'contiguous', 2),
    ('kv', 'striped', 2),
    ('kv_bidir', 'zigzag', 2),
    ('kv_bidir', 'contiguous', 1),
    ('token', 'zigzag', 2),
  ],
)
def test_a_ring_equals_one_device(strategy, layout, k):
  q, key, value = draw(B, T, N, H), draw(B, T, k, H, seed=1), draw(B, T, k, H)
  names = ['causal', 'packed'] if strategy == 'kv' else ['prefix', 'packed']
  for name in (*names, 'window'):
    # Packed rows of padding see the sink alone.
    mask, sink = MASKS[name], SINK if name == 'packed' else None
    got = jax.jit(
      lambda q, k, v, mask=mask, sink=sink: ring(
        q, k, v, mask, layout, strategy=strategy, sink=sink
      )
    )(q, key, value)
    one = functools.partial(
      flash_attention,
      mask=mask,
      sink=sink,
      return_state=True,
      implementation='reference',
    )
    want = jax.jit(one)(q, key, value)
    np.testing.assert_allclose(got.out, want.out, atol=1e-5)
    np.testing.assert_allclose(got.lse, want.lse, atol=1e-5)


@pytest.mark.parametrize(
  ('strategy', 'layout', 'k', 'name'),
  [
    ('kv', 'zigzag', 2, 'causal'),
    ('kv_bidir', 'striped', 2, 'packed'),
    ('kv_bidir', 'contiguous', 1, 'prefix'),
    ('token', 'contiguous', 2, 'packed'),
  ],
)
def test_gradients_of_a_ring_equal_those_of_one_device(
  strategy, layout, k, name
):
  arrays = draw(B, T, N, H), draw(B, T, k, H, seed=1), draw(B, T, k, H)
  mask = MASKS[name]
  got = gradients(
    lambda q, k, v, sink: ring(
      q, k, v, mask, layout, strategy=strategy, softcap=2.0, sink=sink
    ),
    *arrays,
  )
  want = gradients(
    lambda q, k, v, sink: flash_attention(
      *(q, k, v),
      mask=mask,
      softcap=2.0,
      sink=sink,
      return_state=True,
      implementation='reference',
    ),
    *arrays,
  )
  for x, y in zip(got, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-4)


def gradients(fn, *arrays):
  """Of queries, keys, values and the sink, through out and lse."""

  def loss(*args):
    out, lse = fn(*args)
    lse = jnp.where(jnp.isfinite(lse), lse, 0)
    return jnp.sin(out).sum() + jnp.sin(lse).sum()

  return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*arrays, SINK)


def test_the_reference_gathers_the_keys_of_all_devices():
  arrays = draw(B, T, N, H), draw(B, T, 2, H, seed=1), draw(B, T, 2, H)
  shared = dict(mask=MASKS['packed'], softcap=2.0)

  def values_and_gradients(fn, *arrays):
    state = fn(*arrays, SINK)
    return [*state, *gradients(fn, *arrays)]

  on_ring = lambda q, k, v, sink: ring(
    *(q, k, v, shared['mask'], 'zigzag'),
    softcap=2.0,
    sink=sink,
    implementation='reference',
  )
  one = lambda q, k, v, sink: flash_attention(
    *(q, k, v),
    **shared,
    sink=sink,
    return_state=True,
    implementation='reference',
  )
  got = values_and_gradients(on_ring, *arrays)
  assert last_dispatch().chosen == {'any': 'reference'}
  assert last_dispatch().kernel == 'ring_attention'
  want = values_and_gradients(one, *arrays)
  for x, y in zip(got, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize('check_vma', [True, False])
def test_the_gradient_of_the_sink_sums_over_the_devices(check_vma):
  """Traced only; the values are compared on a simulated ring above."""
  q, k, v = draw(1, 16, N, H), draw(1, 16, 2, H), draw(1, 16, 2, H)
  pos = jnp.arange(16, dtype=jnp.int32)[None]
  on_mesh = sharded('kv', check_vma=check_vma, has_sink=True)
  loss = lambda sink: on_mesh(q, k, v, pos, sink).sum()
  found = str(jax.make_jaxpr(jax.grad(loss))(SINK))
  assert re.search(r'f32\[4\]\S* = psum\w*\[', found)


@pytest.mark.parametrize('layout', ['zigzag', 'striped'])
def test_balanced_layouts_give_every_rank_equal_causal_work(layout):
  pairs = []
  for rank in sharded_order(256, 8, layout).reshape(8, -1):
    pairs.append(sum(int(x) + 1 for x in rank))
  assert max(pairs) <= (1.01 if layout == 'zigzag' else 1.06) * min(pairs)
  assert sorted(sharded_order(256, 8, layout)) == list(range(256))


def sharded(strategy, *, check_vma=False, has_sink=False, **kwargs):
  """A program over four devices, for shapes `[1, 64, ...]`."""
  mesh = jax.make_mesh(
    (P,), ('ring',), axis_types=(AxisType.Auto,), devices=jax.devices()[:P]
  )
  spec = PartitionSpec(None, 'ring')

  def local(q, k, v, pos, sink=None):
    return ring_attention(
      q,
      k,
      v,
      mask=masks.causal(),
      axis_name='ring',
      q_pos=pos,
      kv_pos=pos,
      strategy=strategy,
      sink=sink,
      **kwargs,
    )

  specs = (spec,) * 4 + (PartitionSpec(),) * has_sink
  return jax.jit(
    jax.shard_map(
      local, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=check_vma
    )
  )


@pytest.mark.parametrize('strategy', cost.STRATEGIES)
def test_messages_are_as_large_as_the_cost_model_says(strategy):
  q, k, v = draw(1, 64, 4, 8), draw(1, 64, 2, 8, seed=1), draw(1, 64, 2, 8)
  pos = jnp.arange(64, dtype=jnp.int32)[None]
  compiled = sharded(strategy, return_state=True).lower(q, k, v, pos).compile()
  sent = 0
  for line in compiled.as_text().splitlines():
    # A start of several arrays lists those it sends, then those it receives.
    if found := re.search(r'= (.*?) collective-permute(-start)?\(', line):
      shapes = re.findall(r'f32\[([\d,]*)\]', found[1])
      number = sum(math.prod(map(int, x.split(','))) for x in shapes)
      sent += 4 * number // (2 if found[2] else 1)
  per_step = cost.step_bytes(
    strategy,
    b=1,
    t=16,
    s=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    itemsize=4,
  )
  if strategy == 'token':
    # The queries need not come home; their results do.
    assert sent == P * per_step - 4 * q[:, :16].size
  else:
    ways = 2 if strategy == 'kv_bidir' else 1
    assert sent == (P - 1) * per_step * ways
  want = flash_attention(
    q, k, v, mask=masks.causal(), implementation='reference'
  )
  np.testing.assert_allclose(compiled(q, k, v, pos).out, want, atol=1e-5)


def test_the_smaller_operand_travels():
  sizes = dict(b=1, s=4096, num_kv_heads=8, head_dim=128)
  assert cost.cheapest(t=4096, num_heads=32, **sizes) == 'kv_bidir'
  assert cost.cheapest(t=16, num_heads=32, **sizes) == 'token'
  kv = cost.step_bytes('kv', t=1, num_heads=32, **sizes)
  assert kv == 2 * 4096 * 8 * 128 * 2
  assert cost.least_local_tokens('v5e', num_heads=32, num_kv_heads=8) == 1095


def test_one_key_per_device_of_an_odd_number_of_heads():
  """Nothing to halve for two directions."""
  args = draw(1, P, 2, H), draw(1, P, 1, H, seed=1), draw(1, P, 1, H, seed=2)
  total = lambda state: jnp.sin(state.out).sum() + jnp.sin(state.lse).sum()
  run = lambda *x: total(
    ring(*x, masks.causal(), 'contiguous', strategy='kv_bidir')
  )
  one = lambda *x: total(
    flash_attention(
      *x, mask=masks.causal(), return_state=True, implementation='reference'
    )
  )
  got, want = (
    jax.jit(jax.value_and_grad(fn, (0, 1, 2)))(*args) for fn in (run, one)
  )
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


def test_wrong_arguments_are_named():
  q, pos = draw(1, 4, 2, 8), jnp.arange(4)[None]
  run = functools.partial(
    ring_attention, q, q, q, axis_name='ring', q_pos=pos, kv_pos=pos
  )
  with pytest.raises(ValueError, match="strategy='both' is unknown"):
    run(mask=masks.causal(), strategy='both')
  with pytest.raises(NotImplementedError, match='tree_bits; use intervals'):
    run(mask=masks.tree(jnp.zeros((1, 4, 1), jnp.uint32)))
  with pytest.raises(ValueError, match='mask is None'):
    run(mask=None)
  with pytest.raises(ValueError, match=r'sink has shape \(3,\)'):
    run(mask=masks.causal(), sink=jnp.zeros(3))
  three, two = draw(1, 4, 3, 8), draw(1, 4, 2, 8)
  place = functools.partial(
    ring_attention, mask=masks.causal(), axis_name='ring', kv_pos=pos
  )
  with pytest.raises(ValueError, match='2 key heads must divide the 3 query'):
    place(three, two, two, q_pos=pos)
  with pytest.raises(ValueError, match=r'mask.q_pos has shape \(4,\)'):
    place(q, q, q, q_pos=pos[0])
  with pytest.raises(ValueError, match='must be a multiple of 8'):
    sharded_order(12, 4, 'zigzag')
  with pytest.raises(ValueError, match="layout='spiral' is unknown"):
    sharded_order(12, 4, 'spiral')

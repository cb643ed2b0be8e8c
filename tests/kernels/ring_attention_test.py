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
from jaxtok_kernels import flash_attention, masks
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
  for mask in [MASKS[x] for x in (*names, 'window')]:
    got = jax.jit(
      lambda q, k, v, mask=mask: ring(q, k, v, mask, layout, strategy=strategy)
    )(q, key, value)
    want = jax.jit(
      lambda q, k, v, mask=mask: flash_attention(
        q, k, v, mask=mask, return_state=True, implementation='reference'
      )
    )(q, key, value)
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
  total = lambda state: (
    jnp.sin(state.out).sum()
    + jnp.sin(jnp.where(jnp.isfinite(state.lse), state.lse, 0)).sum()
  )
  got = jax.jit(
    jax.grad(
      lambda *x: total(ring(*x, mask, layout, strategy=strategy, softcap=2.0)),
      argnums=(0, 1, 2),
    )
  )(*arrays)
  one = functools.partial(
    flash_attention,
    mask=mask,
    softcap=2.0,
    return_state=True,
    implementation='reference',
  )
  want = jax.jit(jax.grad(lambda *x: total(one(*x)), argnums=(0, 1, 2)))(
    *arrays
  )
  for x, y in zip(got, want, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-4)


@pytest.mark.parametrize('layout', ['zigzag', 'striped'])
def test_balanced_layouts_give_every_rank_equal_causal_work(layout):
  pairs = []
  for rank in sharded_order(256, 8, layout).reshape(8, -1):
    pairs.append(sum(int(x) + 1 for x in rank))
  assert max(pairs) <= (1.01 if layout == 'zigzag' else 1.06) * min(pairs)
  assert sorted(sharded_order(256, 8, layout)) == list(range(256))


def sharded(strategy, **kwargs):
  """A program over four devices, for shapes `[1, 64, ...]`."""
  mesh = jax.make_mesh(
    (P,), ('ring',), axis_types=(AxisType.Auto,), devices=jax.devices()[:P]
  )
  spec = PartitionSpec(None, 'ring')

  def local(q, k, v, pos):
    return ring_attention(
      q,
      k,
      v,
      mask=masks.causal(),
      axis_name='ring',
      q_pos=pos,
      kv_pos=pos,
      strategy=strategy,
      **kwargs,
    )

  return jax.jit(
    jax.shard_map(
      local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
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

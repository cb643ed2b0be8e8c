# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public function, to be called inside `shard_map`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtok_kernels import _compat, dispatch, masks
from jaxtok_kernels.flash_attention import implementations
from jaxtok_kernels.flash_attention.api import check_is_mask, check_shapes
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.ring_attention import cost, reference, rings
from jaxtok_kernels.ring_attention.rings import Keys, Queries, Ring, Rows
from jaxtok_kernels.state import AttentionState, merge

# Mosaic GPU takes neither positions nor an incoming state.
_AVAILABLE = ('reference', 'xla', 'tpu', 'triton')


def ring_attention(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  *,
  mask: masks.MaskSpec,
  axis_name: str,
  q_pos: jax.Array,
  kv_pos: jax.Array,
  strategy: str = 'auto',
  scale: float | None = None,
  softcap: float | None = None,
  sink: jax.Array | None = None,
  return_state: bool = False,
  implementation: str = 'auto',
) -> jax.Array | AttentionState:
  """Exact attention of local queries over the keys of all devices.

  Call it inside `jax.shard_map` over `axis_name`, with the local shards. Any
  order of tokens is right, as masks are in global positions; see
  `sharded_order` for orders that balance causal work. Differentiable.

  Args:
    q_btnh: Local queries.
    k_bskh: Local keys.
    v_bskh: Local values.
    mask: Bands and prefixes, or `intervals` of the local rows in global
      positions. No block lists, tree bits.
    axis_name: Static; mesh axis of the ring.
    q_pos: int32 `[b|1, t]`, global positions of the local queries; not used
      with `intervals`.
    kv_pos: int32 `[b|1, s]`, global positions of the local keys; negative for
      padding.
    strategy: Static; 'kv' (keys travel), 'kv_bidir' (half of them each way; as
      'kv' for one local key with an odd number of heads), 'token' (queries
      travel, collecting results) or 'auto' (fewest bytes).
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    sink: `[n]`; logit per head that is added to the denominator once. The same
      on all devices; inside `shard_map` pass it with `PartitionSpec()`, so that
      its gradient is the sum over the devices.
    return_state: Static; whether to return the log-sum-exp too, with `out` in
      float32.
    implementation: Static; 'auto', 'xla', 'tpu', 'triton' or 'reference': dense
      attention over the keys of all devices, gathered whatever the strategy.

  Returns:
    Local `out [b, t, n, hv]` or `AttentionState`.

  Raises:
    ValueError: If the strategy is unknown or shapes do not fit.
    NotImplementedError: For masks with block lists or tree bits.
  """
  check_shapes(q_btnh, k_bskh, v_bskh)
  n = q_btnh.shape[2]
  if sink is not None and sink.shape != (n,):
    raise ValueError(f'sink has shape {sink.shape}; it must be ({n},).')
  check_is_mask(mask)
  if mask.block_lists is not None or mask.tree_bits is not None:
    raise NotImplementedError(
      'ring_attention: mask has block_lists or tree_bits; use intervals.'
    )
  strategy = _strategy(strategy, q_btnh, k_bskh, v_bskh)
  # Intervals already are in global positions.
  rows_at = q_pos if mask.intervals is None else None
  mask = dataclasses.replace(mask, q_pos=rows_at, kv_pos=kv_pos)
  mask.check(q_btnh.shape[1], k_bskh.shape[1])
  found = dispatch.choose(
    'ring_attention',
    implementation,
    _AVAILABLE,
    lambda name: implementations.unsupported(
      name, q_btnh, k_bskh, v_bskh, masks.MaskSpec(kv_pos=kv_pos)
    ),
  )
  t, s = q_btnh.shape[1], k_bskh.shape[1]
  rows = mask.row_intervals(t, s)
  ring = Ring(axis_name, jax.lax.axis_size(axis_name))
  options = Options.of(q_btnh.shape[-1], scale, softcap)

  def call(name, *arrays):
    if name == 'reference':
      return reference.ring_attention(
        *arrays,
        axis_name=axis_name,
        scale=options.scale,
        softcap=options.softcap,
      )
    return _ring((strategy, ring, Static.here(name, options)), *arrays)

  pos = mask.key_positions(s)
  sink = _varying(sink, q_btnh)
  state = dispatch.run(found, call, q_btnh, k_bskh, v_bskh, rows, pos, sink)
  return state if return_state else state.out.astype(q_btnh.dtype)


def _varying(sink: jax.Array | None, q_btnh: jax.Array) -> jax.Array | None:
  """The sink as a value of each device, for `shard_map` that checks types.

  Its gradient then is the sum over the devices there too.
  """
  if sink is None:
    return None
  axes = _compat.varying_axes(q_btnh) - _compat.varying_axes(sink)
  return jax.lax.pcast(sink, tuple(axes), to='varying') if axes else sink


def _strategy(strategy: str, q, k, v) -> str:
  if strategy not in ('auto', *cost.STRATEGIES):
    raise ValueError(
      f'strategy={strategy!r} is unknown; use auto or one of '
      f'{", ".join(cost.STRATEGIES)}.'
    )
  if strategy == 'auto':
    strategy = _cheapest(q, k, v)
  # One key of an odd number of heads cannot be halved.
  halves = k.shape[2] % 2 == 0 or k.shape[1] > 1
  return strategy if halves or strategy != 'kv_bidir' else 'kv'


def _cheapest(q, k, v) -> str:
  return cost.cheapest(
    b=q.shape[0],
    t=q.shape[1],
    s=k.shape[1],
    num_heads=q.shape[2],
    num_kv_heads=k.shape[2],
    head_dim=q.shape[3],
    value_dim=v.shape[3],
    itemsize=q.dtype.itemsize,
  )


def _halves(queries: Queries, keys: Keys):
  """Two parts of the keys for the two directions, by heads or by tokens.

  Returns:
    `(queries, keys)` of each part and whether the parts split the heads.
  """
  k = keys.k.shape[2]
  if k % 2 == 0:
    n = queries.q.shape[2]
    cut = lambda x, size, i: x[:, :, i * size // 2 : (i + 1) * size // 2]
    parts = [
      (
        queries._replace(q=cut(queries.q, n, i)),
        Keys(cut(keys.k, k, i), cut(keys.v, k, i), keys.pos),
      )
      for i in (0, 1)
    ]
    return parts, True
  middle = keys.k.shape[1] // 2
  left = Keys(*(x[:, :middle] for x in keys))
  right = Keys(*(x[:, middle:] for x in keys))
  return [(queries, left), (queries, right)], False


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(static, q, k, v, rows, pos, sink) -> AttentionState:
  strategy, ring, attend = static
  queries, keys = Queries(q, rows), Keys(k, v, pos)
  if strategy == 'token':
    return rings.queries_travel(queries, keys, ring, attend, sink)
  if strategy == 'kv':
    return rings.keys_travel(queries, keys, ring, attend, sink)
  parts, by_heads = _halves(queries, keys)
  sinks = (sink, None)  # Both parts are merged: one of them counts it.
  if by_heads and sink is not None:
    sinks = jnp.split(sink, 2)
  states = [
    rings.keys_travel(*part, ring._replace(direction=direction), attend, z)
    for part, direction, z in zip(parts, (1, -1), sinks, strict=True)
  ]
  if not by_heads:
    return merge(states)
  return jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), *states)


def _ring_fwd(static, q, k, v, rows, pos, sink):
  state = _ring(static, q, k, v, rows, pos, sink)
  return state, (q, k, v, rows, pos, sink, state)


def _ring_bwd(static, residuals, cotangent):
  strategy, ring, attend = static
  q, k, v, rows, pos, sink, state = residuals
  delta = (state.out * cotangent.out).sum(-1) - cotangent.lse
  know = Rows(state.lse, cotangent.out, delta)
  queries, keys = Queries(q, rows), Keys(k, v, pos)
  if strategy == 'token':
    grads = rings.queries_travel_back(queries, keys, know, ring, attend)
  elif strategy == 'kv':
    grads = rings.keys_travel_back(queries, keys, know, ring, attend)
  else:
    grads = _bidir_back(queries, keys, know, ring, attend)
  dq, dk, dv = (
    x.astype(y.dtype) for x, y in zip(grads, (q, k, v), strict=True)
  )
  dsink = None
  if sink is not None:
    p_btn = jnp.exp(sink.astype(state.lse.dtype) - state.lse)
    dsink = (-p_btn * delta).sum((0, 1)).astype(sink.dtype)
  return dq, dk, dv, None, None, dsink


def _bidir_back(queries, keys, know: Rows, ring, attend):
  parts, by_heads = _halves(queries, keys)
  n = queries.q.shape[2]
  half = lambda x, i: x[:, :, i * n // 2 : (i + 1) * n // 2]
  grads = []
  for i, (part, direction) in enumerate(zip(parts, (1, -1), strict=True)):
    rows = Rows(*(half(x, i) for x in know)) if by_heads else know
    grads.append(
      rings.keys_travel_back(
        *part, rows, ring._replace(direction=direction), attend
      )
    )
  (dq, *dkv), (dq2, *dkv2) = grads
  axis = 2 if by_heads else 1
  join = lambda x, y: jnp.concatenate([x, y], axis)
  dq = join(dq, dq2) if by_heads else dq + dq2
  return dq, *(join(x, y) for x, y in zip(dkv, dkv2, strict=True))


_ring.defvjp(_ring_fwd, _ring_bwd)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public function, to be called inside `shard_map`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import implementations
from jaxtok_kernels.flash_attention.api import check_is_mask, check_shapes
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.ring_attention import cost, rings
from jaxtok_kernels.ring_attention.rings import Keys, Queries, Ring, Rows
from jaxtok_kernels.state import AttentionState, merge

# Mosaic GPU takes neither positions nor an incoming state.
_AVAILABLE = ('xla', 'tpu', 'triton')


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
    return_state: Static; whether to return the log-sum-exp too, with `out` in
      float32.
    implementation: Static; 'auto', 'xla', 'tpu' or 'triton'.

  Returns:
    Local `out [b, t, n, hv]` or `AttentionState`.

  Raises:
    ValueError: If the strategy is unknown or shapes do not fit.
    NotImplementedError: For masks with block lists or tree bits.
  """
  check_shapes(q_btnh, k_bskh, v_bskh)
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
    return _ring((strategy, ring, Static.here(name, options)), *arrays)

  state = dispatch.run(
    found, call, q_btnh, k_bskh, v_bskh, rows, mask.key_positions(s)
  )
  return state if return_state else state.out.astype(q_btnh.dtype)


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
def _ring(static, q, k, v, rows, pos) -> AttentionState:
  strategy, ring, attend = static
  queries, keys = Queries(q, rows), Keys(k, v, pos)
  if strategy == 'token':
    return rings.queries_travel(queries, keys, ring, attend)
  if strategy == 'kv':
    return rings.keys_travel(queries, keys, ring, attend)
  parts, by_heads = _halves(queries, keys)
  states = [
    rings.keys_travel(*part, ring._replace(direction=direction), attend)
    for part, direction in zip(parts, (1, -1), strict=True)
  ]
  if not by_heads:
    return merge(states)
  return jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), *states)


def _ring_fwd(static, q, k, v, rows, pos):
  state = _ring(static, q, k, v, rows, pos)
  return state, (q, k, v, rows, pos, state)


def _ring_bwd(static, residuals, cotangent):
  strategy, ring, attend = static
  q, k, v, rows, pos, state = residuals
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
  return dq, dk, dv, None, None


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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loops of ring attention: what travels, what stays, forward and backward.

Liu et al. 2023, arXiv:2310.01889 (keys and values travel); Wang et al. 2024,
arXiv:2412.20501 (TokenRing: queries travel). Differs from the latter: a
partial result is not sent back to its owner but travels on with its queries
and accumulates, so that every message goes one hop.

Sending of step i + 1 does not depend on the attention of step i, so that XLA
can run both at once. Masks are row intervals in global positions, which travel
with the queries; key positions travel with the keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import implementations
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.state import AttentionState, empty, stats_dtype


class Queries(NamedTuple):
  """Query side of a device: `q [b, t, n, h]` and row intervals."""

  q: jax.Array
  rows: jax.Array


class Keys(NamedTuple):
  """Key side of a device: `k, v [b, s, k, h]` and positions `[b|1, s]`."""

  k: jax.Array
  v: jax.Array
  pos: jax.Array


class Rows(NamedTuple):
  """What the backward pass knows of query rows."""

  lse: jax.Array
  dout: jax.Array
  delta: jax.Array


class Ring(NamedTuple):
  """Static: the mesh axis, its size and the direction of travel."""

  axis_name: str
  size: int
  direction: int = 1


def send(tree, ring: Ring):
  """Passes arrays to the next device of the ring."""
  hops = [(i, (i + ring.direction) % ring.size) for i in range(ring.size)]
  return jax.tree.map(lambda x: jax.lax.ppermute(x, ring.axis_name, hops), tree)


def _attend(
  queries: Queries,
  keys: Keys,
  state: AttentionState | None,
  static: Static,
  sink_n: jax.Array | None,
) -> AttentionState:
  """Adds the keys of one step, and the sink if given, to the state."""
  mask = masks.MaskSpec(intervals=queries.rows, kv_pos=keys.pos)
  return implementations.forward(
    static, queries.q, keys.k, keys.v, mask, sink=sink_n, state_in=state
  )


def _attend_back(queries: Queries, keys: Keys, rows: Rows, static: Static):
  """Float32 cotangents of q, k and v of one step."""
  mask = masks.MaskSpec(intervals=queries.rows, kv_pos=keys.pos)
  dtype = stats_dtype(queries.q.dtype)
  dq, dk, dv, _ = implementations.backward(
    static, queries.q, keys.k, keys.v, mask, *rows
  )
  return tuple(x.astype(dtype) for x in (dq, dk, dv))


def keys_travel(
  queries: Queries,
  keys: Keys,
  ring: Ring,
  static,
  sink_n: jax.Array | None = None,
) -> AttentionState:
  """State of the local queries over the keys of all devices and the sink."""
  state = None
  for step in range(ring.size):
    last = step == ring.size - 1
    following = None if last else send(keys, ring)
    state = _attend(queries, keys, state, static, sink_n if last else None)
    keys = following
  return state


def keys_travel_back(
  queries: Queries,
  keys: Keys,
  rows: Rows,
  ring: Ring,
  static,
):
  """Cotangents; those of the keys travel with the keys and come home last."""
  dq, dkv = None, None
  for step in range(ring.size):
    following = send(keys, ring) if step < ring.size - 1 else None
    more_q, *more = _attend_back(queries, keys, rows, static)
    dq = more_q if dq is None else dq + more_q
    dkv = (
      more if dkv is None else [x + y for x, y in zip(dkv, more, strict=True)]
    )
    dkv = send(dkv, ring)
    keys = following
  return dq, *dkv


def queries_travel(
  queries: Queries,
  keys: Keys,
  ring: Ring,
  static,
  sink_n: jax.Array | None = None,
) -> AttentionState:
  """State of the local queries, which visit all devices and come home.

  The last device of a visit adds the sink, which is the same everywhere.
  """
  b, t, n, _ = queries.q.shape
  dtype = stats_dtype(queries.q.dtype)
  state = empty((b, t, n, keys.v.shape[-1]), dtype)
  for step in range(ring.size):
    last = step == ring.size - 1
    following = None if last else send(queries, ring)
    state = _attend(queries, keys, state, static, sink_n if last else None)
    state = send(state, ring)
    queries = following
  return state


def queries_travel_back(
  queries: Queries, keys: Keys, rows: Rows, ring: Ring, static
):
  """Cotangents; that of the queries travels with them, the keys' stay."""
  dtype = stats_dtype(queries.q.dtype)
  dq = jnp.zeros(queries.q.shape, dtype)
  dkv = [jnp.zeros(x.shape, dtype) for x in (keys.k, keys.v)]
  for step in range(ring.size):
    last = step == ring.size - 1
    following = None if last else send((queries, rows), ring)
    more_q, *more = _attend_back(queries, keys, rows, static)
    dq = send(dq + more_q, ring)
    dkv = [x + y for x, y in zip(dkv, more, strict=True)]
    queries, rows = following or (None, None)
  return dq, *dkv

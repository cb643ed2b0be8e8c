# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention in float64 NumPy, row by row: the oracle of the kernel tests."""

import numpy as np


def visible(mask, b, k, t, s):
  """The mask as bool `[b, k, t, s]`."""
  seen = np.asarray(mask.dense_by_head(t, s))
  return np.broadcast_to(seen, (b, k, t, s))


def attention(
  q, k, v, seen, *, scale=None, softcap=None, sink=None, bias=None, state=None
):
  """Loops over batch, heads and rows.

  Args:
    q: `[b, t, n, h]`.
    k: `[b, s, k, h]`.
    v: `[b, s, k, hv]`.
    seen: bool `[b, k, t, s]`.
    scale: Default `h ** -0.5`.
    softcap: Bound on scores.
    sink: `[n]`.
    bias: Broadcasts to `[b, n, t, s]`.
    state: `(out, lse)` of other keys.

  Returns:
    `out [b, t, n, hv]` and `lse [b, t, n]` in float64.
  """
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  b, t, n, h = q.shape
  s, heads = k.shape[1:3]
  scale = h**-0.5 if scale is None else scale
  if bias is not None:
    bias = np.broadcast_to(np.asarray(bias, np.float64), (b, n, t, s))
  if state is not None:
    state = [np.asarray(x, np.float64) for x in state]
  out = np.zeros((b, t, n, v.shape[-1]))
  lse = np.full((b, t, n), -np.inf)
  for i, row, head in np.ndindex(b, t, n):
    kv = head // (n // heads)
    keys = np.flatnonzero(seen[i, kv, row])
    logits = scale * k[i, keys, kv] @ q[i, row, head]
    if softcap is not None:
      logits = softcap * np.tanh(logits / softcap)
    if bias is not None:
      logits = logits + bias[i, head, row, keys]
    values = v[i, keys, kv]
    if state is not None:
      logits = np.append(logits, state[1][i, row, head])
      values = np.vstack([values, state[0][i, row, head]])
    if sink is not None:
      logits = np.append(logits, float(sink[head]))
      values = np.vstack([values, np.zeros(v.shape[-1])])
    if not len(logits) or np.isneginf(logits.max()):
      continue
    top = logits.max()
    p = np.exp(logits - top)
    out[i, row, head] = p @ values / p.sum()
    lse[i, row, head] = top + np.log(p.sum())
  return out, lse


def gradients(
  q,
  k,
  v,
  seen,
  dout,
  dlse,
  *,
  scale=None,
  softcap=None,
  sink=None,
  bias=None,
  state=None,
):
  """Cotangents of `attention`'s arguments in closed form, float64.

  Args:
    q: As in `attention`; so are the other operands.
    k: Keys; what nobody sees may be NaN.
    v: Values.
    seen: bool `[b, k, t, s]`.
    dout: Cotangent of out, `[b, t, n, hv]`.
    dlse: Cotangent of lse, `[b, t, n]`.
    scale: Default `h ** -0.5`.
    softcap: Bound on scores.
    sink: `[n]`.
    bias: Broadcasts to `[b, n, t, s]`.
    state: `(out, lse)` of other keys.

  Returns:
    Cotangents `(q, k, v)`, and of sink, bias and state by name, as far as they
    are given.
  """
  out, lse = attention(
    q,
    k,
    v,
    seen,
    scale=scale,
    softcap=softcap,
    sink=sink,
    bias=bias,
    state=state,
  )
  q, k, v, dout, dlse = (
    np.asarray(x, np.float64) for x in (q, k, v, dout, dlse)
  )
  group = q.shape[2] // k.shape[2]
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  used = seen.any(2).swapaxes(1, 2)[..., None]
  k, v = (np.repeat(np.where(used, x, 0), group, axis=2) for x in (k, v))
  seen = np.repeat(seen, group, axis=1)
  scores = scale * np.einsum('btnh,bsnh->bnts', q, k)
  slope = 1.0
  if softcap is not None:
    unit = np.tanh(scores / softcap)
    scores, slope = softcap * unit, 1 - unit**2
  if bias is not None:
    scores = scores + np.asarray(bias, np.float64)
  # Rows that see nothing have p = 0.
  top = np.where(np.isneginf(lse), np.inf, lse)
  p = np.where(seen, np.exp(scores - top.swapaxes(1, 2)[..., None]), 0)
  rest = dlse - (dout * out).sum(-1)
  dp = np.einsum('btnh,bsnh->bnts', dout, v)
  ds = p * (dp + rest.swapaxes(1, 2)[..., None])
  more = {}
  if bias is not None:
    axes = [i for i, size in enumerate(np.shape(bias)) if size < ds.shape[i]]
    more['bias'] = ds.sum(tuple(axes), keepdims=True)
  if sink is not None:
    weight = np.exp(np.asarray(sink, np.float64) - top)
    more['sink'] = (weight * rest).sum((0, 1))
  if state is not None:
    out_in, lse_in = (np.asarray(x, np.float64) for x in state)
    weight = np.exp(lse_in - top)
    more['state'] = (
      weight[..., None] * dout,
      weight * ((dout * out_in).sum(-1) + rest),
    )
  ds = scale * slope * ds
  by_group = lambda x: x.reshape(*x.shape[:2], -1, group, x.shape[-1]).sum(3)
  return (
    np.einsum('bnts,bsnh->btnh', ds, k),
    by_group(np.einsum('bnts,btnh->bsnh', ds, q)),
    by_group(np.einsum('bnts,btnh->bsnh', p, dout)),
  ), more

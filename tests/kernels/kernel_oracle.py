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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of a large vocabulary without the array of all logits.

Positions are taken in chunks: a chunk's logits live only while its losses
and, if the loss is differentiated, its gradients are computed. The gradient of
a softmax cross-entropy is known as soon as the logits are, so the forward pass
computes it too and nothing is computed twice: three products with the
vocabulary instead of the four of rematerialisation. (The same idea: Hsu et al.
2024, "Liger Kernel", arXiv:2410.10989, section 3.2.)

Chunks take every n-th position of a row rather than neighbours, so that rows
that are sharded along their length stay where they are.

On 2 CPU cores, 8192 positions of width 128, value, gradient and accuracy,
against `logsumexp`, `take_along_axis` and `argmax` of all logits: 0.8x the time
for 264 tokens and 0.6x for 4096, whose temporary memory falls from 256 to
12 MiB. (Shared machine; the more memory traffic, the smaller the ratio.)
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Logits of one chunk and the least number of positions in it: on a CPU a chunk
# should fit the cache, elsewhere it should fill the machine. Other platforms
# see the positions of all devices here, hence the least share of each row.
_CPU_LOGITS, _CPU_POSITIONS = 2**18, 128
_LOGITS, _ROW_POSITIONS = 2**26, 128


class Scores(NamedTuple):
  """Losses of a batch; only `total` can be differentiated.

  Attributes:
    total: Sum over positions of weight times (nats + z-loss).
    nats_bt: Cross-entropy of each target.
    correct_bt: 1 where the target has the highest logit, 1/n where it shares
      it with others, n in all; else 0.
  """

  total: Float[Array, '']
  nats_bt: Float[Array, 'b t']
  correct_bt: Float[Array, 'b t']


def cross_entropy(
  logits: Callable[[Any], Any],
  hidden_btd: Float[Array, 'b t d'],
  targets_bt: Int[Array, 'b t'],
  weights_bt: Float[Array, 'b t'],
  *,
  z_loss: float = 0.0,
  num_chunks: int = 0,
) -> Scores:
  """Scores targets under `softmax(logits(hidden))`, in float32.

  Gradients flow to the hidden states, to the weights and to whatever `logits`
  closes over. Forward-mode differentiation is not supported.

  Args:
    logits: Maps hidden states `[b, c, d]` to logits `[b, c, v]`, position by
      position.
    hidden_btd: Final states of the model.
    targets_bt: Token ids.
    weights_bt: Weight of each target in `total`; 0 leaves it out.
    z_loss: Coefficient of `log(sum(exp(logits)))**2`, which keeps logits from
      drifting (Chowdhery et al. 2022, arXiv:2204.02311, section 5). Static.
    num_chunks: Static number of chunks; 0 chooses by size and platform.
  """
  b, t = targets_bt.shape
  v = jax.eval_shape(logits, hidden_btd[:, :1]).shape[-1]
  plan = _plan(b, t, v, num_chunks)
  # What `logits` closes over becomes an argument, so that it gets gradients;
  # the same list for each chunk length, since it is the same function.
  converted = {
    platform: jax.closure_convert(logits, hidden_btd[:, : math.ceil(t / n)])
    for platform, n in plan.items()
  }
  closed = next(iter(converted.values()))[1]

  def scores(gradients: bool, *args):
    branches = {
      platform: functools.partial(
        _scan_chunks,
        converted[platform][0],
        num_chunks=n,
        z_loss=z_loss,
        gradients=gradients,
      )
      for platform, n in plan.items()
    }
    if len(branches) == 1:
      return branches['default'](*args)
    return jax.lax.platform_dependent(*args, **branches)

  @jax.custom_vjp
  def call(closed, hidden_btd, weights_bt, targets_bt):
    return scores(False, closed, hidden_btd, weights_bt, targets_bt)[0]

  def forward(*args):
    return scores(True, *args)

  def backward(gradients, cotangent):
    scaled = jax.tree.map(lambda x: x * cotangent.total, gradients)
    dtypes = (closed, hidden_btd, weights_bt)
    cast = jax.tree.map(lambda x, like: x.astype(like.dtype), scaled, dtypes)
    return (*cast, None)

  call.defvjp(forward, backward)
  return call(closed, hidden_btd, weights_bt, targets_bt)


def _plan(b: int, t: int, v: int, num_chunks: int) -> dict[str, int]:
  """Platform to number of chunks."""
  if num_chunks:
    return {'default': min(num_chunks, t)}
  cpu = math.ceil(b * t / max(_CPU_LOGITS // v, _CPU_POSITIONS))
  other = math.ceil(t / max(_LOGITS // (v * b), _ROW_POSITIONS))
  if min(cpu, t) == other:
    return {'default': other}
  return {'cpu': min(cpu, t), 'default': other}


def _split(x: Array, num_chunks: int) -> Array:
  """`[b, t, ...]` to `[n, b, c, ...]`; chunk i holds positions i, i + n..."""
  b, t = x.shape[:2]
  c = math.ceil(t / num_chunks)
  pad = [(0, 0)] * x.ndim
  pad[1] = (0, c * num_chunks - t)
  x = jnp.pad(x, pad) if pad[1][1] else x
  return jnp.moveaxis(x.reshape(b, c, num_chunks, *x.shape[2:]), 2, 0)


def _join(x: Array, t: int) -> Array:
  """The inverse of `_split`."""
  n, b, c = x.shape[:3]
  return jnp.moveaxis(x, 0, 2).reshape(b, c * n, *x.shape[3:])[:, :t]


def _scan_chunks(
  logits,
  closed,
  hidden_btd,
  weights_bt,
  targets_bt,
  *,
  num_chunks,
  z_loss,
  gradients,
):
  """Scores and, if wanted, gradients of `total`, chunk by chunk."""
  t = targets_bt.shape[1]
  chunks = tuple(
    _split(x, num_chunks) for x in (hidden_btd, weights_bt, targets_bt)
  )

  def step(carry, chunk):
    h_bcd, weights_bc, _ = chunk
    if not gradients:
      loss_bc, scores, _ = _chunk(logits(h_bcd, *closed), *chunk[1:], z_loss)
      return (carry[0] + (weights_bc * loss_bc).sum(), ()), (scores, ())
    logits_bcv, vjp = jax.vjp(logits, h_bcd, *closed)
    loss_bc, scores, d_logits_bcv = _chunk(logits_bcv, *chunk[1:], z_loss)
    d_h_bcd, *d_closed = vjp(d_logits_bcv)
    total = carry[0] + (weights_bc * loss_bc).sum()
    d_closed = jax.tree.map(jnp.add, carry[1], d_closed)
    return (total, d_closed), (scores, (d_h_bcd, loss_bc))

  zeros = [jnp.zeros(x.shape, jnp.float32) for x in closed]
  init = (jnp.float32(0), zeros if gradients else ())
  (total, d_closed), (scores, rest) = jax.lax.scan(step, init, chunks)
  nats_bt, correct_bt, *rest = (_join(x, t) for x in (*scores, *rest))
  return Scores(total, nats_bt, correct_bt), (d_closed, *rest)


def _chunk(logits_bcv, weights_bc, targets_bc, z_loss):
  """Loss, (nats, correct) and the gradient of weight * loss by logits."""
  x_bcv = logits_bcv.astype(jnp.float32)
  max_bc = x_bcv.max(axis=-1)
  exp_bcv = jnp.exp(x_bcv - max_bc[..., None])
  sum_bc = exp_bcv.sum(axis=-1)
  lse_bc = jnp.log(sum_bc) + max_bc
  index_bcv = jax.lax.broadcasted_iota(jnp.int32, x_bcv.shape, 2)
  # A sum rather than a gather: it also works where v is sharded.
  is_target_bcv = index_bcv == targets_bc[..., None]
  picked_bc = jnp.where(is_target_bcv, x_bcv, 0).sum(axis=-1)
  num_best_bc = (x_bcv == max_bc[..., None]).sum(axis=-1)
  correct_bc = jnp.where(picked_bc == max_bc, 1 / num_best_bc, 0.0)
  nats_bc = lse_bc - picked_bc
  slope_bc = weights_bc * (1 + 2 * z_loss * lse_bc) / sum_bc
  d_bcv = exp_bcv * slope_bc[..., None]
  d_bcv = jnp.where(is_target_bcv, d_bcv - weights_bc[..., None], d_bcv)
  loss_bc = nats_bc + z_loss * lse_bc**2
  return loss_bc, (nats_bc, correct_bc), d_bcv.astype(logits_bcv.dtype)

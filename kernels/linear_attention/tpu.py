# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chunked linear attention for TPU (Pallas Mosaic), forward and backward.

Forward: grid (b, head groups, blocks of chunks); the last axis carries the
states in VMEM. Heads lie side by side in the lanes, so that eight heads of 16
fill a tile of q. A chunk computes its inner part from dot products of width h,
the part of earlier tokens from the state. For training the state at the start
of each block is saved.
Backward: the same grid in reverse. A block recomputes the states of its chunks
into VMEM, then walks them backwards with the state's cotangent.
  VMEM: state [heads, e, features] f32 (backward: one per chunk of the block and
  its cotangent), features of one chunk, double buffered blocks of q, k, v, y.
Bytes: q, k, v, y once; the states of one in four chunks. FLOPs per token:
chunk (h + e) + 4 features e, and 8 h features for the feature maps; backward
about three times that.

Never timed: no TPU was at hand. docs/kernels.md says what was verified how.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtok_kernels import tuning
from jaxtok_kernels.linear_attention import chunks, cost, features
from jaxtok_kernels.linear_attention import decay as decays
from jaxtok_kernels.linear_attention.operands import Operands, Settings

_LANES, _SUBLANES = 128, 8


def unsupported(x: Operands, settings: Settings) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  for name in ('q', 'k', 'v'):
    dtype = getattr(x, name).dtype
    if dtype not in (jnp.float32, jnp.bfloat16):
      return f'{name} of type {dtype} is not supported'
  if settings.feature == 'taylor2' and x.q.shape[-1] > 64:
    return f'taylor2 features of width {x.q.shape[-1]} > 64 are not supported'
  return None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings: `number` blocks of `chunks` chunks of `chunk` tokens."""

  settings: Settings
  t: int
  h: int
  e: int
  heads: int
  groups: int
  size: int
  chunk: int
  chunks: int
  number: int
  exact: bool
  interpret: Any

  @property
  def rows(self) -> int:
    return self.chunk * self.chunks

  @property
  def values(self) -> int:
    """Values and normaliser, padded to sublanes of the state."""
    return -(-(self.e + 1) // _SUBLANES) * _SUBLANES

  @property
  def state(self) -> tuple[int, int, int]:
    return self.heads, self.values, self.size


def _plan(x: Operands, settings: Settings, interpret) -> _Plan:
  _, t, n, h = x.q.shape
  e = x.v.shape[-1]
  by_feature = x.decay is not None and x.decay.ndim == 4
  config = tuning.config(
    f'linear_attention{"_gated" if by_feature else ""}',
    'tpu',
    x.q.dtype,
    dict(t=t, n=n, h=h, e=e),
    cost.tpu(by_feature),
  )
  chunk, num_chunks = cost.tpu_chunks(t, config)
  size = features.feature_dim(settings.feature, h)
  heads = cost.heads_per_group(n, h, e)
  return _Plan(
    settings=settings,
    t=t,
    h=h,
    e=e,
    heads=heads,
    groups=n // heads,
    size=size if size == h else -(-size // _LANES) * _LANES,
    chunk=chunk,
    chunks=num_chunks,
    number=-(-t // (chunk * num_chunks)),
    exact=x.q.dtype == jnp.float32,
    interpret=interpret,
  )


def forward(
  x: Operands, settings: Settings, *, save: bool, interpret: Any = False
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  """Outputs, last state and, to `save`, the states at the blocks' starts."""
  plan = _plan(x, settings, interpret)
  named = _operands(plan, x)
  named['start'] = _pack_state(plan, x.state)
  y = _tokens_spec(plan, plan.e)
  outs = {
    'y': (y, _tokens_shape(plan, x, plan.e, x.q.dtype)),
    'last': (_state_spec(plan), _state_shape(plan, x)),
  }
  if save:
    outs['saved'] = _saved(plan, x)
  scratch = {'state': pltpu.VMEM(plan.state, jnp.float32)}
  y, last, *saved = _call(_forward_kernel, plan, x, named, outs, scratch)
  return (
    _unpack_tokens(plan, y, x.q.shape[2]),
    _unpack_state(plan, last, x.state.shape),
    saved[0] if save else None,
  )


def backward(
  x: Operands,
  settings: Settings,
  saved: Any,
  dy: jax.Array,
  dstate: jax.Array,
  *,
  interpret: Any = False,
) -> Operands:
  """Cotangents of the operands, decay in place of the summed decay's."""
  plan = _plan(x, settings, interpret)
  named = _operands(plan, x)
  named['dy'] = _pack_tokens(plan, dy)
  named['saved'] = saved
  named['dlast'] = _pack_state(plan, dstate)
  tokens = lambda width, like: (
    _tokens_spec(plan, width, reverse=True),
    _tokens_shape(plan, x, width, like.dtype),
  )
  outs = {
    'dq': tokens(plan.h, x.q),
    'dk': tokens(plan.h, x.k),
    'dv': tokens(plan.e, x.v),
    'dstart': (_state_spec(plan), _state_shape(plan, x)),
  }
  if x.decay is not None:
    width = plan.h if x.decay.ndim == 4 else None
    spec = _decay_spec(plan, width, reverse=True)
    outs['ddecay'] = spec, _decay_shape(plan, x, width)
  scratch = {
    'states': pltpu.VMEM((plan.chunks, *plan.state), jnp.float32),
    'dstate': pltpu.VMEM(plan.state, jnp.float32),
  }
  dq, dk, dv, dstart, *rest = _call(
    _backward_kernel, plan, x, named, outs, scratch, reverse=True
  )
  n = x.q.shape[2]
  return Operands(
    q=_unpack_tokens(plan, dq, n),
    k=_unpack_tokens(plan, dk, n),
    v=_unpack_tokens(plan, dv, n),
    state=_unpack_state(plan, dstart, x.state.shape),
    decay=_unpack_decay(plan, rest[0], x.decay) if rest else None,
  )


def _call(
  kernel, plan: _Plan, x: Operands, named, outs, scratch, reverse=False
):
  specs = _specs(plan, x, reverse)
  names = (*named, *outs, *scratch)
  out_specs, out_shape = zip(*outs.values(), strict=True)
  body = lambda *refs: kernel(plan, dict(zip(names, refs, strict=True)))
  return pl.pallas_call(
    body,
    grid=(x.q.shape[0], plan.groups, plan.number),
    in_specs=[specs[name] for name in named],
    out_specs=list(out_specs),
    out_shape=list(out_shape),
    scratch_shapes=list(scratch.values()),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=32 * 2**20 if reverse else None,
    ),
    interpret=plan.interpret,
    name=f'linear_attention_{"backward" if reverse else "forward"}',
  )(*named.values())


def _operands(plan: _Plan, x: Operands) -> dict[str, jax.Array]:
  """Operands of both passes by name, padded to whole blocks."""
  named = {name: _pack_tokens(plan, getattr(x, name)) for name in 'qkv'}
  if plan.settings.feature == 'taylor2':
    found = chunks.taylor_matrices(plan.h, plan.h, plan.size)
    names = ('left', 'right', 'bias')
    named |= {k: jnp.asarray(v) for k, v in zip(names, found, strict=True)}
  if x.valid is not None:
    valid = _padded(plan, x.valid.astype(jnp.float32))
    named['valid'] = valid[..., None]
  if x.decay is None:
    return named
  decay = _padded(plan, x.decay)
  b, n = decay.shape[0], decay.shape[2]
  cut = decay.reshape(b, -1, plan.chunk, *decay.shape[2:])
  if decay.ndim == 4:
    total = jnp.cumsum(cut, axis=2)
    named['total'] = total.reshape(*decay.shape[:2], -1)
    return named
  sums = decays.running_sums(cut, axis=2)
  for name, x in zip(('coarse', 'fine'), sums, strict=True):
    groups = x.reshape(b, -1, plan.groups, n // plan.groups)
    named[name] = groups.swapaxes(1, 2)
    named[f'{name}_row'] = x.reshape(decay.shape).swapaxes(1, 2)
  return named


def _padded(plan: _Plan, x: jax.Array) -> jax.Array:
  more = plan.number * plan.rows - plan.t
  return jnp.pad(x, ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2)))


def _pack_tokens(plan: _Plan, x: jax.Array) -> jax.Array:
  """`[b, t, n, h]` to `[b, padded t, n h]`."""
  return _padded(plan, x.reshape(*x.shape[:2], -1))


def _unpack_tokens(plan: _Plan, x: jax.Array, n: int) -> jax.Array:
  return x[:, : plan.t].reshape(x.shape[0], plan.t, n, -1)


def _pack_state(plan: _Plan, x_bnfe: jax.Array) -> jax.Array:
  """`[b, n, e, f]`, padded."""
  f, e = x_bnfe.shape[2:]
  pads = ((0, 0), (0, 0), (0, plan.values - e), (0, plan.size - f))
  return jnp.pad(x_bnfe.swapaxes(2, 3).astype(jnp.float32), pads)


def _unpack_state(plan: _Plan, x: jax.Array, shape) -> jax.Array:
  return x[:, :, : shape[3], : shape[2]].swapaxes(2, 3)


def _unpack_decay(plan: _Plan, x: jax.Array, decay: jax.Array) -> jax.Array:
  if decay.ndim == 3:
    x = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
  return x[:, : plan.t].reshape(decay.shape)


def _order(plan: _Plan, reverse: bool):
  return (lambda i: plan.number - 1 - i) if reverse else (lambda i: i)


def _tokens_spec(plan: _Plan, width: int, *, reverse: bool = False):
  at = _order(plan, reverse)
  return pl.BlockSpec(
    (1, plan.rows, plan.heads * width), lambda b, n, i: (b, at(i), n)
  )


def _tokens_shape(plan: _Plan, x: Operands, width: int, dtype):
  b, _, n, _ = x.q.shape
  shape = (b, plan.number * plan.rows, n * width)
  return jax.ShapeDtypeStruct(shape, dtype)


def _decay_spec(plan: _Plan, width: int | None, *, reverse: bool):
  """By feature as tokens, else `[b, groups, t, heads]`."""
  if width is not None:
    return _tokens_spec(plan, width, reverse=reverse)
  at = _order(plan, reverse)
  return pl.BlockSpec(
    (1, 1, plan.rows, plan.heads), lambda b, n, i: (b, n, at(i), 0)
  )


def _decay_shape(plan: _Plan, x: Operands, width: int | None):
  if width is not None:
    return _tokens_shape(plan, x, width, jnp.float32)
  shape = x.q.shape[0], plan.groups, plan.number * plan.rows, plan.heads
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _state_spec(plan: _Plan):
  return pl.BlockSpec((1, *plan.state), lambda b, n, i: (b, n, 0, 0))


def _state_shape(plan: _Plan, x: Operands):
  shape = (x.q.shape[0], x.q.shape[2], plan.values, plan.size)
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _saved(plan: _Plan, x: Operands, *, reverse: bool = False):
  at = _order(plan, reverse)
  spec = pl.BlockSpec((1, 1, *plan.state), lambda b, n, i: (b, at(i), n, 0, 0))
  state = _state_shape(plan, x).shape
  shape = (state[0], plan.number, *state[1:])
  return spec, jax.ShapeDtypeStruct(shape, jnp.float32)


def _specs(plan: _Plan, x: Operands, reverse: bool) -> dict[str, Any]:
  at = _order(plan, reverse)
  matrix = pl.BlockSpec((plan.h, plan.size), lambda *_: (0, 0))
  tokens = functools.partial(_tokens_spec, plan, reverse=reverse)
  by_head = _decay_spec(plan, None, reverse=reverse)
  by_head_row = pl.BlockSpec(
    (1, plan.heads, plan.rows), lambda b, n, i: (b, n, at(i))
  )
  return {
    'q': tokens(plan.h),
    'k': tokens(plan.h),
    'v': tokens(plan.e),
    'dy': tokens(plan.e),
    'left': matrix,
    'right': matrix,
    'bias': pl.BlockSpec((2, plan.size), lambda *_: (0, 0)),
    'valid': pl.BlockSpec((1, plan.rows, 1), lambda b, n, i: (b, at(i), 0)),
    'total': _decay_spec(plan, plan.h, reverse=reverse),
    'coarse': by_head,
    'coarse_row': by_head_row,
    'fine': by_head,
    'fine_row': by_head_row,
    'start': _state_spec(plan),
    'dlast': _state_spec(plan),
    'saved': _saved(plan, x, reverse=reverse)[0],
  }


def _math(plan: _Plan, refs) -> chunks.Math:
  matrices = None
  if 'left' in refs:
    bias = refs['bias'][...]
    matrices = refs['left'][...], refs['right'][...], bias[:1], bias[1:]
  dot = functools.partial(chunks.dot, exact=plan.exact)
  return chunks.Math(plan.settings.feature, plan.h, dot, matrices)


def _causal(plan: _Plan) -> jax.Array:
  shape = (plan.chunk, plan.chunk)
  row = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
  return row >= jax.lax.broadcasted_iota(jnp.int32, shape, 1)


def _part(plan: _Plan, j) -> Any:
  return pl.ds(pl.multiple_of(j * plan.chunk, plan.chunk), plan.chunk)


def _wide(plan: _Plan, x, last) -> jax.Array:
  """`[c, e]` with `last` as column e and zeros up to the state's rows."""
  shape = (plan.chunk, plan.values - plan.e)
  lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  more = jnp.where(lane == 0, jnp.broadcast_to(last, shape), 0.0)
  return jnp.concatenate([x.astype(jnp.float32), more], axis=1)


def _ones(plan: _Plan, refs, block, j) -> jax.Array:
  """The normaliser's 1 of tokens that count, `[c, 1]`."""
  shape = (plan.chunk, 1)
  row = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
  row = row + (block * plan.rows + j * plan.chunk)
  one = jnp.where(row < plan.t, 1.0, 0.0)
  return one if 'valid' not in refs else one * refs['valid'][0, _part(plan, j)]


def _head(plan: _Plan, refs, j, head, ones):
  """q, k, v with the normaliser's 1, and the decay of a chunk."""
  rows = _part(plan, j)
  lanes = lambda width: pl.ds(head * width, width)
  q, k = (refs[x][0, rows, lanes(plan.h)] for x in 'qk')
  v = _wide(plan, refs['v'][0, rows, lanes(plan.e)], ones)
  return q, k, v, _decay(plan, refs, rows, head)


def _decay(plan: _Plan, refs, rows, head) -> chunks.Decay | None:
  if 'total' in refs:
    total = refs['total'][0, rows, pl.ds(head * plan.h, plan.h)]
    middle, end = total[plan.chunk // 2 : plan.chunk // 2 + 1], total[-1:]
    return chunks.Decay(
      query=jnp.exp(total - middle),
      key=jnp.exp(middle - total),
      start=jnp.exp(total),
      end=jnp.exp(end - total),
      keep=jnp.exp(end),
    )
  if 'coarse' not in refs:
    return None
  sums = [refs[x][0, 0, rows, pl.ds(head, 1)] for x in ('coarse', 'fine')]
  across = [
    refs[f'{x}_row'][0, pl.ds(head, 1), rows] for x in ('coarse', 'fine')
  ]
  last = [x[plan.chunk - 1 :] for x in sums]
  return chunks.decay_by_head(_causal(plan), *sums, *across, last)


def _forward_kernel(plan: _Plan, refs) -> None:
  block, state = pl.program_id(2), refs['state']
  is_last = block == plan.number - 1
  math, causal = _math(plan, refs), _causal(plan)

  @pl.when(block == 0)
  def _():
    state[...] = refs['start'][0]

  if 'saved' in refs:
    refs['saved'][0, 0] = state[...]

  @pl.loop(0, plan.chunks)
  def _(j):
    ones = _ones(plan, refs, block, j)
    for head in range(plan.heads):
      q, k, v, decay = _head(plan, refs, j, head, ones)
      chunk = math.chunk(q, k, causal, decay)
      old = state[head]
      out = math.output(chunk, v, old)
      y = out[:, : plan.e]
      if plan.settings.normalize:
        y = y / (out[:, plan.e : plan.e + 1] + plan.settings.eps)
      lanes = pl.ds(head * plan.e, plan.e)
      refs['y'][0, _part(plan, j), lanes] = y.astype(refs['y'].dtype)
      state[head] = math.next_state(chunk, v, old, decay)

  @pl.when(is_last)
  def _():
    refs['last'][0] = state[...]


def _backward_kernel(plan: _Plan, refs) -> None:
  step, dstate = pl.program_id(2), refs['dstate']
  is_last, block = step == plan.number - 1, plan.number - 1 - step
  math, causal = _math(plan, refs), _causal(plan)
  states = refs['states']
  states[0] = refs['saved'][0, 0]

  @pl.when(step == 0)
  def _():
    dstate[...] = refs['dlast'][0]

  @pl.loop(0, plan.chunks - 1)
  def _(j):
    ones = _ones(plan, refs, block, j)
    for head in range(plan.heads):
      q, k, v, decay = _head(plan, refs, j, head, ones)
      chunk = math.chunk(q, k, causal, decay)
      states[j + 1, head] = math.next_state(chunk, v, states[j, head], decay)

  @pl.loop(0, plan.chunks)
  def _(i):
    j = plan.chunks - 1 - i
    ones = _ones(plan, refs, block, j)
    for head in range(plan.heads):
      _backward_head(plan, refs, math, causal, j, head, ones)

  @pl.when(is_last)
  def _():
    refs['dstart'][0] = dstate[...]


def _backward_head(plan: _Plan, refs, math, causal, j, head, ones) -> None:
  rows = _part(plan, j)
  lanes = lambda width: pl.ds(head * width, width)
  q, k, v, decay = _head(plan, refs, j, head, ones)
  chunk = math.chunk(q, k, causal, decay)
  state, dstate = refs['states'][j, head], refs['dstate'][head]
  g = _wide(plan, refs['dy'][0, rows, lanes(plan.e)], 0.0)
  by_head = decay is not None and decay.inside is not None
  out = None
  if plan.settings.normalize or by_head:
    out = math.output(chunk, v, state)
  if plan.settings.normalize:
    inverse = 1 / (out[:, plan.e : plan.e + 1] + plan.settings.eps)
    # The normaliser's cotangent is that of a quotient.
    along = (g * out).sum(axis=1, keepdims=True) * inverse
    column = jax.lax.broadcasted_iota(jnp.int32, g.shape, 1)
    g = inverse * jnp.where(column == plan.e, -along, g)
  q, k = q.astype(jnp.float32), k.astype(jnp.float32)
  dq, dk, dv, before = math.backward(chunk, q, k, v, state, g, dstate, decay)
  refs['dstate'][head] = before
  dv_out = dv[:, : plan.e]
  for name, x in (('dq', dq), ('dk', dk), ('dv', dv_out)):
    ref = refs[name]
    ref[0, rows, lanes(x.shape[1])] = x.astype(ref.dtype)
  # Everything in a query's output grows with its summed decay, everything that
  # a key adds shrinks with it.
  if by_head:
    grows = (g * out - v * dv).sum(axis=1, keepdims=True)
    refs['ddecay'][0, 0, rows, pl.ds(head, 1)] = grows
  elif decay is not None:
    refs['ddecay'][0, rows, lanes(plan.h)] = q * dq - k * dk

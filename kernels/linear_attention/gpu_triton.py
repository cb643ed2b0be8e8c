# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chunked linear attention for NVIDIA GPUs (Pallas Triton).

Forward: grid (value blocks, n, b); a program walks the chunks of its sequence
and keeps its rows of the state, [32, features] f32, in registers. It needs b n
(value blocks) programs of the order of the number of SMs.
Backward, three kernels. Two walk the chunks, forwards with the state and
backwards with its cotangent, grid (feature blocks, n, b), and store both for
every chunk, 4 e features bytes each. The third has a program per chunk, grid
(chunks, n, b): it adds up the gradients over blocks of 32 features.
Bytes: v and out once; q and k once per value block; backward mainly the stored
states. FLOPs per token: chunk (h + e) + 4 features e, and 8 h features per
value block for the feature maps; backward about three times that.

docs/kernels.md says what was verified how, and the times on an H200.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtok_kernels import tuning
from jaxtok_kernels.linear_attention import chunks, cost, features
from jaxtok_kernels.linear_attention import decay as decays
from jaxtok_kernels.linear_attention.operands import Operands, Settings

_BLOCK = 32  # Values per program forward, features per step backward.


def unsupported(x: Operands, settings: Settings) -> str | None:
  """Why this kernel cannot serve a call, or None."""
  for name in ('q', 'k', 'v'):
    dtype = getattr(x, name).dtype
    if dtype not in (jnp.float32, jnp.bfloat16):
      return f'{name} of type {dtype} is not supported'
  h, e = x.q.shape[-1], x.v.shape[-1]
  most = 32 if settings.feature == 'taylor2' else 128
  if h > most:
    return f'q of width {h} > {most} is not supported'
  return f'v of width {e} > 255 is not supported' if e > 255 else None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Static settings; `wide_*` are padded to powers of two, or whole blocks."""

  feature: str
  h: int
  t: int
  chunk: int
  num_warps: int
  wide_h: int
  size: int
  wide_e: int
  exact: bool
  interpret: Any

  @property
  def number(self) -> int:
    return -(-self.t // self.chunk)

  @property
  def length(self) -> int:
    return self.number * self.chunk


def _parts(plan: _Plan) -> list[pl.Slice]:
  """The features in parts whose sizes are powers of two, as Triton wants."""
  found, start = [], 0
  while start < plan.size:
    size = 1 << ((plan.size - start).bit_length() - 1)
    found.append(pl.ds(start, size))
    start += size
  return found


def _power(x: int) -> int:
  return max(16, 1 << (x - 1).bit_length())


def _plan(x: Operands, settings: Settings, interpret) -> _Plan:
  _, t, _, h = x.q.shape
  by_feature = x.decay is not None and x.decay.ndim == 4
  config = tuning.config(
    f'linear_attention{"_gated" if by_feature else ""}',
    'triton',
    x.q.dtype,
    dict(t=t, n=x.q.shape[2], h=h, e=x.v.shape[3]),
    cost.triton(by_feature),
  )
  size = features.feature_dim(settings.feature, h)
  wide_h = _power(h)
  return _Plan(
    feature=settings.feature,
    h=h,
    t=t,
    chunk=config['chunk'],
    num_warps=config['num_warps'],
    wide_h=wide_h,
    size=wide_h if size == h else -(-size // _BLOCK) * _BLOCK,
    wide_e=max(_BLOCK, _power(x.v.shape[-1] + 1)),
    exact=x.q.dtype == jnp.float32,
    interpret=interpret,
  )


def forward(
  x: Operands, settings: Settings, *, save: bool, interpret: Any = False
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  """Outputs, last state and, to `save`, the sums before the division.

  A long sequence is cut into segments that run side by side: a first kernel
  finds what each adds to the state, a second starts each from the state there.
  """
  whole = _plan(x, settings, interpret)
  b, _, n, _ = x.q.shape
  blocks = whole.wide_e // _BLOCK
  segments = cost.segments(blocks * n * b, whole.number)
  plan = dataclasses.replace(whole, t=whole.length // segments)
  operands = _by_segment(_operands(whole, x), segments)
  values = pl.BlockSpec(
    (None, plan.length, None, _BLOCK), lambda i, n, b: (b, 0, n, i)
  )
  state = pl.BlockSpec(
    (None, None, _BLOCK, plan.size), lambda i, n, b: (b, n, i, 0)
  )
  specs = _specs(plan, x) | {'v': values, 'start': state}
  grid = (blocks, n, b * segments)
  states = state, (b * segments, n, plan.wide_e, plan.size)
  start = _pack_state(plan, x.state)[:, None]
  if segments > 1:
    names = set(operands) - {'q'}
    added = {k: v for k, v in operands.items() if k in names}
    (found,) = _call(
      _state_kernel, plan, grid, added, specs, [states], 'states'
    )
    found = found.reshape(b, segments, *found.shape[1:])
    start = _starts(start[:, 0], found, x.decay, plan.length)
  operands['start'] = start.reshape(-1, *start.shape[2:])
  out, last = _call(
    _forward_kernel,
    plan,
    grid,
    operands,
    specs,
    [(values, (b * segments, plan.length, n, plan.wide_e)), states],
    'forward',
  )
  e = x.v.shape[-1]
  out = out.reshape(b, -1, *out.shape[2:])[:, : whole.t, :, : e + 1]
  y = out[..., :e]
  if settings.normalize:
    y = y / (out[..., e:] + settings.eps)
  last = last.reshape(b, segments, *last.shape[1:])[:, -1]
  last = _unpack_state(last, x.state.shape)
  return y.astype(x.q.dtype), last, out if save else None


def _by_segment(operands, segments: int) -> dict[str, jax.Array]:
  """Segments as elements of the batch."""

  def cut(x):
    return x.reshape(x.shape[0] * segments, -1, *x.shape[2:])

  found = dict(operands)
  for name in ('q', 'k', 'v'):
    found[name] = cut(operands[name])
  if 'total' in operands:
    found['total'] = cut(operands['total'])
  for name in ('coarse', 'fine'):
    if name in operands:  # [b, n, t]
      found[name] = cut(operands[name].swapaxes(1, 2)).swapaxes(1, 2)
  return found


def _starts(
  start_bnef: jax.Array,
  added_bgnef: jax.Array,
  decay: jax.Array | None,
  length: int,
) -> jax.Array:
  """The state before each segment `[b, g, n, e, f]`.

  Args:
    start_bnef: State before the first.
    added_bgnef: What each segment adds to a state of zero.
    decay: Log-decay of each token, per head or per feature, or None.
    length: Tokens per segment.
  """
  b, segments, n, _, f = added_bgnef.shape
  keep_bgnf = jnp.ones((b, segments, n, 1))
  if decay is not None:
    more = ((0, 0), (0, segments * length - decay.shape[1]), (0, 0))
    decay = decay[..., None] if decay.ndim == 3 else decay
    decay = jnp.pad(decay, (*more, (0, 0)))
    decay = decay.reshape(b, segments, length, n, -1).sum(2)
    if decay.shape[-1] > 1:
      decay = jnp.pad(decay, (*((0, 0),) * 3, (0, f - decay.shape[-1])))
    keep_bgnf = jnp.exp(decay)
  found = [start_bnef]
  for i in range(segments - 1):
    keep = keep_bgnf[:, i, :, None]
    found.append(keep * found[-1] + added_bgnef[:, i])
  return jnp.stack(found, axis=1)


def _call(kernel, plan: _Plan, grid, operands, specs, outs, name):
  names = tuple(operands)
  return pl.pallas_call(
    functools.partial(kernel, plan, names),
    grid=grid,
    in_specs=[specs[x] for x in names],
    out_specs=[spec for spec, _ in outs],
    out_shape=[jax.ShapeDtypeStruct(x, jnp.float32) for _, x in outs],
    compiler_params=plt.CompilerParams(num_warps=plan.num_warps, num_stages=1),
    interpret=plan.interpret,
    name=f'linear_attention_{name}',
  )(*operands.values())


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
  out, e = saved, x.v.shape[-1]
  g = dy.astype(jnp.float32)
  if settings.normalize:
    inverse = 1 / (out[..., e:] + settings.eps)
    along = (g * out[..., :e]).sum(-1, keepdims=True) * inverse
    g = inverse * jnp.concatenate([g, -along], -1)
  else:
    g = jnp.pad(g, ((0, 0),) * 3 + ((0, 1),))
  operands = _operands(plan, x)
  operands['g'] = _rows(plan, g.astype(x.q.dtype), plan.wide_e)
  names = {'x': 'k', 'y': 'v'}
  states, _ = _walk(plan, x, operands, names, x.state, reverse=False)
  names = {'x': 'q', 'y': 'g'}
  dstates, dstart = _walk(plan, x, operands, names, dstate, reverse=True)
  operands |= {'states': states, 'dstates': dstates}
  dq, dk, dv = _gradients(plan, x, operands)
  dq, dk = (y[:, : plan.t, :, : plan.h] for y in (dq, dk))
  dv = dv[:, : plan.t, :, : e + 1]
  # Everything in a query's output grows with its summed decay, everything that
  # a key adds shrinks with it.
  if x.decay is None:
    decay = None
  elif x.decay.ndim == 3:
    v = _with_ones(x).astype(jnp.float32)
    decay = (g * out - v * dv).sum(-1)
  else:
    decay = x.q * dq - x.k * dk
  return Operands(
    q=dq.astype(x.q.dtype),
    k=dk.astype(x.k.dtype),
    v=dv[..., :e].astype(x.v.dtype),
    state=_unpack_state(dstart, x.state.shape),
    decay=decay,
  )


def _with_ones(x: Operands) -> jax.Array:
  ones = jnp.ones_like(x.v[..., :1])
  if x.valid is not None:
    ones = jnp.where(x.valid[..., None, None], ones, 0)
  return jnp.concatenate([x.v, ones], -1)


def _rows(plan: _Plan, x: jax.Array, width: int) -> jax.Array:
  """Whole chunks of padded heads."""
  pads = ((0, 0), (0, plan.length - plan.t), (0, 0), (0, width - x.shape[-1]))
  return jnp.pad(x, pads)


def _operands(plan: _Plan, x: Operands) -> dict[str, jax.Array]:
  found = {
    'q': _rows(plan, x.q, plan.wide_h),
    'k': _rows(plan, x.k, plan.wide_h),
    'v': _rows(plan, _with_ones(x), plan.wide_e),
  }
  if plan.feature == 'taylor2':
    made = chunks.taylor_matrices(plan.h, plan.wide_h, plan.size)
    names = ('left', 'right', 'bias')
    found |= {k: jnp.asarray(v) for k, v in zip(names, made, strict=True)}
  if x.decay is not None:
    by_feature = x.decay.ndim == 4
    decay = x.decay if by_feature else x.decay[..., None]
    decay = _rows(plan, decay, plan.wide_h if by_feature else 1)
    cut = decay.reshape(*decay.shape[:1], plan.number, plan.chunk, -1)
    if by_feature:
      found['total'] = jnp.cumsum(cut, axis=2).reshape(decay.shape)
    else:
      sums = decays.running_sums(cut, axis=2)
      sums = [y.reshape(decay.shape[:3]).swapaxes(1, 2) for y in sums]
      found['coarse'], found['fine'] = sums
  return found


def _pack_state(plan: _Plan, x_bnfe: jax.Array) -> jax.Array:
  """`[b, n, e, f]`, padded."""
  f, e = x_bnfe.shape[2:]
  pads = ((0, 0), (0, 0), (0, plan.wide_e - e), (0, plan.size - f))
  return jnp.pad(x_bnfe.swapaxes(2, 3).astype(jnp.float32), pads)


def _unpack_state(x: jax.Array, shape) -> jax.Array:
  return x[:, :, : shape[3], : shape[2]].swapaxes(2, 3)


def _specs(plan: _Plan, x: Operands, *, chunk: bool = False) -> dict[str, Any]:
  """A head's whole sequence, or one of its chunks; whole matrices."""
  length = plan.chunk if chunk else plan.length
  at = (lambda i: i) if chunk else (lambda i: 0)
  tokens = lambda width: pl.BlockSpec(
    (None, length, None, width), lambda i, n, b: (b, at(i), n, 0)
  )
  matrix = pl.BlockSpec((plan.wide_h, plan.size), lambda *_: (0, 0))
  by_head = pl.BlockSpec((None, None, length), lambda i, n, b: (b, n, at(i)))
  return {
    'q': tokens(plan.wide_h),
    'k': tokens(plan.wide_h),
    'v': tokens(plan.wide_e),
    'g': tokens(plan.wide_e),
    'left': matrix,
    'right': matrix,
    'bias': pl.BlockSpec((2, plan.size), lambda *_: (0, 0)),
    'total': tokens(plan.wide_h),
    'coarse': by_head,
    'fine': by_head,
  }


def _math(plan: _Plan, refs, part=slice(None)) -> chunks.Math:
  """With the matrices of some features."""
  matrices = None
  if 'left' in refs:
    matrices = (
      refs['left'][:, part],
      refs['right'][:, part],
      refs['bias'][0, part][None, :],
      refs['bias'][1, part][None, :],
    )
  dot = functools.partial(chunks.dot, exact=plan.exact)
  return chunks.Math(plan.feature, plan.h, dot, matrices)


def _causal(plan: _Plan) -> jax.Array:
  row = jnp.arange(plan.chunk)
  return row[:, None] >= row[None, :]


def _decay(plan: _Plan, refs, start) -> chunks.Decay | None:
  """Factors of the chunk that starts at token `start` of the reference."""
  part = pl.ds(start, plan.chunk)
  if 'coarse' in refs:
    sums = [refs[x][part] for x in ('coarse', 'fine')]
    last = [refs[x][start + (plan.chunk - 1)] for x in ('coarse', 'fine')]
    return chunks.decay_by_head(
      _causal(plan),
      *(x[:, None] for x in sums),
      *(x[None, :] for x in sums),
      last,
    )
  if 'total' not in refs:
    return None
  ref = refs['total']
  total = ref[part, :]
  middle = ref[start + plan.chunk // 2, :][None, :]
  end = ref[start + (plan.chunk - 1), :][None, :]
  return chunks.Decay(
    query=jnp.exp(total - middle),
    key=jnp.exp(middle - total),
    start=jnp.exp(total),
    end=jnp.exp(end - total),
    keep=jnp.exp(end),
  )


def _forward_kernel(plan: _Plan, names, *refs) -> None:
  refs = dict(zip((*names, 'out', 'last'), refs, strict=True))
  parts, causal = _parts(plan), _causal(plan)
  maths = [_math(plan, refs, part) for part in parts]

  def body(i, states):
    start = i * plan.chunk
    rows = pl.ds(start, plan.chunk)
    decay = _decay(plan, refs, start)
    q, k, v = (refs[x][rows, :] for x in 'qkv')
    a, _ = maths[0].similarities(q, k, causal, decay)
    out, later = maths[0].dot(a, v, chunks.NN), []
    for math, state in zip(maths, states, strict=True):
      phi, _ = math.features(q)
      phi = phi if decay is None else phi * decay.start
      out = out + math.dot(phi, state, chunks.NT)
      later.append(_added(math, state, k, v, decay))
    refs['out'][rows, :] = out
    return tuple(later)

  states = tuple(refs['start'][:, part] for part in parts)
  states = jax.lax.fori_loop(0, plan.number, body, states)
  for part, state in zip(parts, states, strict=True):
    refs['last'][:, part] = state


def _added(math: chunks.Math, state, k, v, decay):
  """The state after a chunk, of the features of `math`."""
  phi, _ = math.features(k)
  if decay is not None:
    phi, state = phi * decay.end, decay.keep * state
  return state + math.dot(v, phi, chunks.TN)


def _state_kernel(plan: _Plan, names, *refs) -> None:
  """What a segment adds to the state."""
  refs = dict(zip((*names, 'last'), refs, strict=True))
  parts = _parts(plan)
  maths = [_math(plan, refs, part) for part in parts]

  def body(i, states):
    start = i * plan.chunk
    rows = pl.ds(start, plan.chunk)
    decay = _decay(plan, refs, start)
    k, v = refs['k'][rows, :], refs['v'][rows, :]
    return tuple(
      _added(math, state, k, v, decay)
      for math, state in zip(maths, states, strict=True)
    )

  zero = lambda part: jnp.zeros((_BLOCK, part.size), jnp.float32)
  states = jax.lax.fori_loop(0, plan.number, body, tuple(map(zero, parts)))
  for part, state in zip(parts, states, strict=True):
    refs['last'][:, part] = state


def _walk(plan: _Plan, x: Operands, operands, names, state, *, reverse: bool):
  """States before each chunk, or their cotangents after it, and the last."""
  b, _, n, _ = x.q.shape
  used = ('left', 'right', 'bias', 'total', 'coarse', 'fine')
  named = {k: v for k, v in operands.items() if k in used}
  named |= {k: operands[v] for k, v in names.items()}
  named['start'] = _pack_state(plan, state)
  block = min(_BLOCK, plan.size)
  specs = _specs(plan, x)
  specs |= {'x': specs['q'], 'y': specs['v']}
  columns = lambda rows: pl.BlockSpec((rows, block), lambda i, n, b: (0, i))
  if plan.feature == 'taylor2':
    specs |= {'left': columns(plan.wide_h), 'right': columns(plan.wide_h)}
    specs['bias'] = columns(2)
  else:
    # Features are columns of x.
    tokens = pl.BlockSpec(
      (None, plan.length, None, block), lambda i, n, b: (b, 0, n, i)
    )
    specs['x'] = tokens
    specs['total'] = tokens
  one = pl.BlockSpec(
    (None, None, plan.wide_e, block), lambda i, n, b: (b, n, 0, i)
  )
  every = pl.BlockSpec(
    (None, None, plan.number, plan.wide_e, block),
    lambda i, n, b: (b, n, 0, 0, i),
  )
  specs['start'] = one
  return _call(
    functools.partial(_walk_kernel, reverse),
    plan,
    (plan.size // block, n, b),
    named,
    specs,
    [
      (every, (b, n, plan.number, plan.wide_e, plan.size)),
      (one, (b, n, plan.wide_e, plan.size)),
    ],
    'cotangents' if reverse else 'states',
  )


def _walk_kernel(reverse: bool, plan: _Plan, names, *refs) -> None:
  refs = dict(zip((*names, 'states', 'last'), refs, strict=True))
  math = _math(plan, refs)

  def body(i, state):
    i = plan.number - 1 - i if reverse else i
    start = i * plan.chunk
    part = pl.ds(start, plan.chunk)
    refs['states'][i, :, :] = state
    phi, _ = math.features(refs['x'][part, :])
    if (decay := _decay(plan, refs, start)) is not None:
      phi = phi * (decay.start if reverse else decay.end)
      state = decay.keep * state
    return state + math.dot(refs['y'][part, :], phi, chunks.TN)

  state = jax.lax.fori_loop(0, plan.number, body, refs['start'][...])
  refs['last'][...] = state


def _gradients(plan: _Plan, x: Operands, operands):
  """Cotangents of q, k and of v with its normaliser, padded."""
  b, _, n, _ = x.q.shape
  states = pl.BlockSpec(
    (None, None, None, plan.wide_e, plan.size),
    lambda i, n, b: (b, n, i, 0, 0),
  )
  specs = _specs(plan, x, chunk=True) | {'states': states, 'dstates': states}
  heads = (specs['q'], (b, plan.length, n, plan.wide_h))
  values = (specs['v'], (b, plan.length, n, plan.wide_e))
  return _call(
    _gradients_kernel,
    plan,
    (plan.number, n, b),
    operands,
    specs,
    [heads, heads, values],
    'gradients',
  )


def _gradients_kernel(plan: _Plan, names, *refs) -> None:
  refs = dict(zip((*names, 'dq', 'dk', 'dv'), refs, strict=True))
  decay, causal = _decay(plan, refs, 0), _causal(plan)
  q, k, v, g = (refs[x][...] for x in 'qkvg')
  block = plan.size if plan.feature != 'taylor2' else min(_BLOCK, plan.size)

  def part_of(i, carry):
    """Adds what passes through the states of some features."""
    part = pl.ds(i * block, block)
    math = _math(plan, refs, part)
    return tuple(
      x + y
      for x, y in zip(
        carry,
        math.through_states(
          q,
          k,
          v,
          g,
          refs['states'][:, part],
          refs['dstates'][:, part],
          decay,
        ),
        strict=True,
      )
    )

  start = _math(plan, {}).inside(q, k, v, g, causal, decay)
  dq, dk, dv = jax.lax.fori_loop(0, plan.size // block, part_of, start)
  refs['dq'][...], refs['dk'][...], refs['dv'][...] = dq, dk, dv

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The shapes at which kernels are compiled ahead of time and timed."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxtok_kernels as kernels
from jaxtok_kernels import masks
from jaxtok_kernels.flash_attention import cost as flash_cost
from jaxtok_kernels.hardware import Work
from jaxtok_kernels.linear_attention import cost as linear_cost
from jaxtok_kernels.prefix_attention import cost as prefix_cost
from jaxtok_kernels.score_topk import cost as score_cost
from jaxtok_kernels.selected_decode import cost as decode_cost
from jaxtok_kernels.tree_attention import cost as tree_cost


@dataclasses.dataclass(frozen=True)
class Case:
  """One call of a kernel.

  Attributes:
    kernel: Name of the public function.
    name: Shape and kind, unique within the kernel.
    run: Takes the implementation and the operands.
    draw: Makes the operands from a PRNG key: random normal, valid indices.
    work: What the call has to do.
    implementations: Which implementations of the kernel serve it.
    rival: Computes the same by other means, mostly
      `jax.nn.dot_product_attention`; takes its `implementation` ('tokamax' for
      that library) and the operands. None if there is none.
    rival_draw: Makes the rival's operands from those of `draw`; None if they
      are the same.
  """

  kernel: str
  name: str
  run: Callable[..., Any]
  draw: Callable[[jax.Array], tuple[Any, ...]]
  work: Work
  implementations: tuple[str, ...]
  rival: Callable[..., Any] | None = None
  rival_draw: Callable[..., tuple[Any, ...]] | None = None

  def shapes(self) -> tuple[Any, ...]:
    """Operands as shapes."""
    return jax.eval_shape(self.draw, jax.random.key(0))


def _normal(key: jax.Array, *shapes, dtype=jnp.bfloat16) -> list[jax.Array]:
  keys = jax.random.split(key, len(shapes))
  return [
    jax.random.normal(k, x, dtype) for k, x in zip(keys, shapes, strict=True)
  ]


_ALL = ('tpu', 'triton', 'mosaic_gpu')
_TWO = ('tpu', 'triton')


def _documents(t: int) -> jax.Array:
  """Segment ids of eight documents of unequal length, `[1, t]`."""
  edges = jnp.asarray([0, 1, 3, 4, 8, 9, 13, 15]) * (t // 16)
  row = jnp.arange(t)[:, None]
  return (row >= edges).sum(-1, dtype=jnp.int32)[None]


_MASKS = {
  'full': lambda t: masks.full(),
  'causal': lambda t: masks.causal(),
  'window': lambda t: masks.window(1024),
  'sinks': lambda t: masks.sinks(4, 1020),
  'prefix': lambda t: masks.prefix(jnp.asarray([t // 2])),
  'packed': lambda t: masks.packed(_documents(t)),
}


def _flash(kind: str, b: int, t: int, n: int, k: int, h: int, grad: bool):
  mask = _MASKS[kind](t)
  sizes = dict(
    pairs=mask.pairs(t, t, b),
    b=b,
    t=t,
    s=t,
    num_heads=n,
    num_kv_heads=k,
    head_dim=h,
  )

  def attend(implementation, q, k, v):
    return kernels.flash_attention(
      q, k, v, mask=_MASKS[kind](t), implementation=implementation
    )

  def rival(implementation, q, k, v):
    if implementation == 'tokamax':
      import tokamax  # Compared with where it is installed.

      return tokamax.dot_product_attention(q, k, v, is_causal=kind == 'causal')
    return jax.nn.dot_product_attention(
      q, k, v, is_causal=kind == 'causal', implementation=implementation
    )

  def backward(fn, implementation, *args):
    loss = lambda *x: fn(implementation, *x).astype(jnp.float32).sum()
    return jax.grad(loss, argnums=(0, 1, 2))(*args)

  wrap = functools.partial(functools.partial, backward)
  heads = f'{n}/{k}' if n != k else str(n)
  # Mosaic has no backward kernel: its gradient would time Triton's.
  names = _TWO if grad else _ALL
  work = flash_cost.backward if grad else flash_cost.forward
  return Case(
    kernel='flash_attention',
    name=f'{kind} [{b},{t},{heads},{h}] {"grad" if grad else "forward"}',
    run=wrap(attend) if grad else attend,
    draw=lambda key: tuple(
      _normal(key, (b, t, n, h), (b, t, k, h), (b, t, k, h))
    ),
    # A gradient call runs the forward pass too.
    work=work(**sizes)
    if not grad
    else _sum(flash_cost.forward(**sizes), flash_cost.backward(**sizes)),
    implementations=names,
    rival=(wrap(rival) if grad else rival)
    if kind in ('full', 'causal')
    else None,
  )


def _sum(a: Work, b: Work) -> Work:
  return Work(a.flops + b.flops, a.num_bytes + b.num_bytes, a.exps + b.exps)


def small() -> list[Case]:
  """Cases of the other kernels whose dense reference fits everywhere."""
  return [
    _prefix(7, 300, 20, 4, 2, 64),
    _gather(3, 500, 96, 8, 2, 64),
    _paged(3, 256, 16, 8, 2, 64),
    _tree(2, 256, 16, 8, 2, 64),
    _linear(2, 300, 2, 16, 64),
    _topk(3, 3000, 100),
    _blocks(2, 512, 16, 5, 8, 2, 64),
    _paged_tree(2, 256, 16, 16, 8, 2, 64),
    _decode_scores(2, 500, 8, 2, 64),
    _soft_vote(2, 500, 8),
    _column_sums(2, 200, 4, 2, 64),
    _write(3, 200, 2, 64),
    _compact(2, 2, 256, 8, 2, 64),
  ]


def _prefix(b: int, p: int, s: int, n: int, k: int, h: int) -> Case:
  def draw(key):
    q, kp, vp, ks, vs = _normal(
      key, (b, 1, n, h), *[(1, p, k, h)] * 2, *[(b, s, k, h)] * 2
    )
    group = jnp.zeros(b, jnp.int32)
    level = kernels.PrefixLevel(kp, vp, jnp.asarray([p]), group)
    return q, (level,), ks, vs, jnp.full(b, s, jnp.int32)

  def run(implementation, *args):
    return kernels.shared_prefix_attention(*args, implementation=implementation)

  work = prefix_cost.forward(
    prefix_lens=[p],
    prefix_rows=[b],
    suffix_lens=[s] * b,
    t=1,
    num_heads=n,
    num_kv_heads=k,
    head_dim=h,
  )

  def unshared(q, levels, ks, vs, length):
    del length
    (level,) = levels
    whole = lambda x, y: jnp.concatenate([jnp.repeat(x, b, axis=0), y], axis=1)
    return q, whole(level.k_mpkh, ks), whole(level.v_mpkh, vs)

  def rival(implementation, q, k, v):
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)

  name = f'{b} sequences, prefix {p}, suffix {s}, {n}/{k} heads of {h}'
  return Case(
    'shared_prefix_attention', name, run, draw, work, _ALL, rival, unshared
  )


def _gather(b: int, num: int, size: int, n: int, k: int, h: int) -> Case:
  def draw(key):
    q, rows = _normal(key, (b, 1, n, h), (num, 2 * k, h))
    ids = jax.random.randint(key, (b, 1, size), 0, num)
    return q, rows, jnp.sort(ids), jnp.full((b, 1), size, jnp.int32)

  def run(implementation, *args):
    return kernels.gather_decode(*args, implementation=implementation)

  work = decode_cost.forward(
    tokens_read=b * size,
    b=b,
    t=1,
    num_heads=n,
    num_kv_heads=k,
    head_dim=h,
    list_entries=b * size,
  )
  name = f'{b} x {size} of {num} tokens, {n}/{k} heads of {h}'
  return Case('gather_decode', name, run, draw, work, _TWO)


def _paged(b: int, s: int, page: int, n: int, k: int, h: int) -> Case:
  num = b * s // page

  def draw(key):
    q, pages = _normal(key, (b, 1, n, h), (num, page, 2 * k, h))
    table = jax.random.permutation(key, num).reshape(b, -1)
    return q, pages, table.astype(jnp.int32), jnp.full(b, s, jnp.int32)

  def run(implementation, *args):
    return kernels.paged_decode(*args, implementation=implementation)

  work = decode_cost.forward(
    tokens_read=b * s, b=b, t=1, num_heads=n, num_kv_heads=k, head_dim=h
  )
  name = f'{b} x {s} tokens in pages of {page}, {n}/{k} heads of {h}'
  return Case('paged_decode', name, run, draw, work, _TWO)


def _tree(b: int, s: int, g: int, n: int, k: int, h: int) -> Case:
  def draw(key):
    arrays = _normal(
      key, (b, g, n, h), *[(b, s, k, h)] * 2, *[(b, g, k, h)] * 2
    )
    parent = jnp.broadcast_to((jnp.arange(g) - 1) // 2, (b, g))
    return *arrays[:3], jnp.full(b, s), *arrays[3:], parent.at[:, 0].set(-1)

  def run(implementation, *args):
    *args, parent = args
    return kernels.tree_attention(
      *args, parent_bg=parent, implementation=implementation
    )

  work = tree_cost.forward(
    cache_lens=[s] * b, drafts=g, num_heads=n, num_kv_heads=k, head_dim=h
  )
  name = f'{b} trees of {g}, cache {s}, {n}/{k} heads of {h}'
  return Case('tree_attention', name, run, draw, work, _TWO)


def _linear(b: int, t: int, n: int, h: int, e: int) -> Case:
  def draw(key):
    return tuple(_normal(key, (b, t, n, h), (b, t, n, h), (b, t, n, e)))

  def run(implementation, *args):
    return kernels.linear_attention(*args, implementation=implementation)

  work = linear_cost.forward(b=b, t=t, num_heads=n, head_dim=h, value_dim=e)
  name = f'taylor2 [{b},{t},{n},{h}] values {e}'
  return Case('linear_attention', name, run, draw, work, _TWO)


def _topk(rows: int, size: int, k: int) -> Case:
  def run(implementation, x):
    return kernels.topk_threshold(x, k, implementation=implementation)

  return Case(
    'topk_threshold',
    f'{k} of {size}, {rows} rows',
    run,
    lambda key: tuple(_normal(key, (rows, size), dtype=jnp.float32)),
    score_cost.topk_threshold(rows=rows, size=size, k=k),
    _TWO,
    rival=lambda _, x: jax.lax.top_k(x, k)[1],
  )


def accelerator() -> list[Case]:
  """Cases for TPUs and GPUs."""
  grads = [('causal', 64), ('causal', 128), ('causal', 256), ('packed', 128)]
  return [
    _flash('causal', 2, 8192, 16, 16, 64, False),
    _flash('causal', 2, 8192, 16, 16, 128, False),
    _flash('full', 2, 8192, 16, 16, 128, False),
    _flash('causal', 2, 8192, 16, 16, 256, False),
    _flash('causal', 4, 4096, 32, 8, 128, False),
    *(
      _flash(kind, 2, 8192, 16, 16, 128, False)
      for kind in ('window', 'sinks', 'prefix', 'packed')
    ),
    *(_flash(kind, 2, 8192, 16, 16, h, True) for kind, h in grads),
    _prefix(256, 16384, 128, 32, 8, 128),
    _prefix(1024, 16384, 128, 32, 8, 128),
    _gather(16, 65536, 2048, 32, 8, 128),
    _paged(16, 8192, 16, 32, 8, 128),
    _paged(16, 8192, 64, 32, 8, 128),
    _paged(16, 65536, 64, 32, 8, 128),
    _tree(8, 8192, 64, 32, 8, 128),
    _linear(2, 32768, 16, 16, 64),
    # What linear attention replaces at this length.
    dataclasses.replace(
      _flash('causal', 2, 32768, 16, 16, 64, False), rival=None
    ),
    _topk(8, 131072, 2048),
    *selections(),
    *linear(),
  ]


def cpu() -> list[Case]:
  """Cases for CPUs, in float32; one step takes up to a second on two cores."""
  small = [
    _flash('causal', 32, 256, 4, 4, 32, False),
    _flash('causal', 32, 256, 4, 4, 32, True),
    _flash('full', 8, 512, 4, 4, 64, False),
    _flash('causal', 8, 512, 4, 4, 64, True),
    _flash('causal', 1, 2048, 8, 2, 64, False),
    _flash('causal', 1, 2048, 8, 2, 64, True),
    _prefix(64, 4096, 32, 8, 2, 64),
  ]
  # Memory grows with the length, not with its square: no rival fits.
  long = [
    dataclasses.replace(_flash('causal', 1, t, 1, 1, 64, grad), rival=None)
    for t, grad in ((8192, True), (32768, False), (32768, True))
  ]
  return [
    dataclasses.replace(x, draw=_float32(x.draw), implementations=('xla',))
    for x in (*small, *long)
  ] + cpu_selections()


def _float32(draw):
  return lambda key: jax.tree.map(lambda x: x.astype(jnp.float32), draw(key))


def _blocks(b: int, s: int, block: int, num: int, n: int, k: int, h: int):
  """Lists of blocks that differ between key heads."""

  def draw(key):
    q, keys, values = _normal(key, (b, 1, n, h), *[(b, s, k, h)] * 2)
    shape = (b, k, s // block)
    order = jnp.argsort(jax.random.uniform(key, shape), axis=-1)
    ids = jnp.sort(order[..., :num]).astype(jnp.int32)
    return q, keys, values, ids, jnp.full((b, k), num, jnp.int32)

  def run(implementation, *args):
    return kernels.block_decode(
      *args, block=block, implementation=implementation
    )

  work = decode_cost.forward(
    tokens_read=b * num * block,
    b=b,
    t=1,
    num_heads=n,
    num_kv_heads=k,
    head_dim=h,
    list_entries=b * k * num,
  )
  name = f'{b} x {num} of {s // block} blocks of {block}, {n}/{k} heads of {h}'
  return Case('block_decode', name, run, draw, work, _TWO)


def _paged_tree(b: int, s: int, page: int, g: int, n: int, k: int, h: int):
  num = b * s // page

  def draw(key):
    q, pages, *new = _normal(
      key, (b, g, n, h), (num, page, 2 * k, h), *[(b, g, k, h)] * 2
    )
    table = jax.random.permutation(key, num).reshape(b, -1).astype(jnp.int32)
    parent = jnp.broadcast_to((jnp.arange(g) - 1) // 2, (b, g))
    return q, pages, table, jnp.full(b, s), *new, parent.at[:, 0].set(-1)

  def run(implementation, *args):
    *args, parent = args
    return kernels.paged_tree_attention(
      *args, parent_bg=parent, implementation=implementation
    )

  work = tree_cost.forward(
    cache_lens=[s] * b, drafts=g, num_heads=n, num_kv_heads=k, head_dim=h
  )
  name = (
    f'{b} trees of {g}, {s} tokens in pages of {page}, {n}/{k} heads of {h}'
  )
  return Case('paged_tree_attention', name, run, draw, work, _TWO)


def _decode_scores(b: int, s: int, n: int, k: int, h: int) -> Case:
  def draw(key):
    return (*_normal(key, (b, n, h), (b, s, k, h)), jnp.full(b, s, jnp.int32))

  def run(implementation, *args):
    return kernels.decode_scores(*args, implementation=implementation)

  work = score_cost.decode_scores(
    b=b, s=s, num_heads=n, num_kv_heads=k, head_dim=h
  )
  name = f'{b} x {s} keys, {n}/{k} heads of {h}'
  return Case('decode_scores', name, run, draw, work, _TWO)


def _soft_vote(b: int, s: int, n: int) -> Case:
  def draw(key):
    return _normal(key, (b, n, s), dtype=jnp.float32)[0], jnp.ones((b, s), bool)

  def run(implementation, *args):
    return kernels.soft_vote(*args, implementation=implementation)

  work = score_cost.soft_vote(b=b, s=s, num_heads=n)
  return Case('soft_vote', f'{b} x {s}, {n} heads', run, draw, work, _TWO)


def _column_sums(b: int, t: int, n: int, k: int, h: int) -> Case:
  mask = masks.causal()

  def draw(key):
    q, keys = _normal(key, (b, t, n, h), (b, t, k, h))
    return q, keys, jnp.full((b, t, n), 8.0)

  def run(implementation, *args):
    return kernels.column_sums(
      *args, mask=masks.causal(), implementation=implementation
    )

  work = score_cost.column_sums(
    pairs=mask.pairs(t, t, b),
    b=b,
    t=t,
    s=t,
    num_heads=n,
    num_kv_heads=k,
    head_dim=h,
  )
  name = f'causal [{b},{t},{n}/{k},{h}]'
  return Case('column_sums', name, run, draw, work, _TWO)


def _write(b: int, s: int, k: int, h: int) -> Case:
  """One token per sequence; caches are not donated here and so are copied."""

  def draw(key):
    arrays = _normal(key, *[(b, s, k, h)] * 2, *[(b, 1, k, h)] * 2)
    return *arrays, jax.random.randint(key, (b, 1), 0, s)

  def run(implementation, *args):
    return kernels.write_kv(*args, implementation=implementation)

  work = Work(flops=0.0, num_bytes=4.0 * (s + 1) * b * k * h * 2)
  name = f'{b} tokens into {b} x {s}, {k} heads of {h}'
  return Case('write_kv', name, run, draw, work, _TWO)


def _compact(l: int, b: int, s: int, g: int, k: int, h: int) -> Case:
  def draw(key):
    (cache,) = _normal(key, (l, b, s, k, h))
    accept = jnp.broadcast_to(2 * jnp.arange(g, dtype=jnp.int32), (b, g))
    return cache, jnp.full(b, s - 2 * g, jnp.int32), accept

  def run(implementation, *args):
    return kernels.compact_kv(*args, implementation=implementation)

  work = Work(flops=0.0, num_bytes=4.0 * l * b * (s + g) * k * h)
  name = f'{l} layers, {g} of {2 * g} drafts, {b} x {s}, {k} heads of {h}'
  return Case('compact_kv', name, run, draw, work, _TWO)


def selections() -> list[Case]:
  """Scores, selections, sparse decoding, trees and cache writes."""
  return [
    _blocks(16, 65536, 64, 128, 32, 8, 128),
    _paged_tree(8, 8192, 64, 64, 32, 8, 128),
    _decode_scores(8, 65536, 28, 4, 128),
    _soft_vote(8, 65536, 28),
    _column_sums(2, 8192, 16, 16, 128),
    _write(16, 8192, 8, 128),
    _compact(4, 8, 4096, 16, 8, 128),
  ]


def _gradient(case: Case, argnums: tuple[int, ...], work: Work) -> Case:
  """Time of forward and backward of the first result's sum."""

  def run(implementation, *args):
    loss = lambda *x: case.run(implementation, *x)[0].astype(jnp.float32).sum()
    return jax.grad(loss, argnums=argnums)(*args)

  return dataclasses.replace(
    case, name=f'{case.name} grad', run=run, work=_sum(case.work, work)
  )


def _gated(b: int, t: int, n: int, h: int, e: int) -> Case:
  """Gated linear attention: a decay per feature."""

  def draw(key):
    q, k, decay, v = _normal(key, *[(b, t, n, h)] * 3, (b, t, n, e))
    return q, k, v, -jax.nn.softplus(decay.astype(jnp.float32))

  def run(implementation, *args):
    *args, decay = args
    return kernels.linear_attention(
      *args,
      feature='identity',
      normalize=False,
      decay=decay,
      implementation=implementation,
    )

  work = linear_cost.forward(
    b=b, t=t, num_heads=n, head_dim=h, value_dim=e, feature='identity', chunk=16
  )
  name = f'gated [{b},{t},{n},{h}] values {e}'
  return Case('linear_attention', name, run, draw, work, _TWO)


def linear() -> list[Case]:
  """Linear attention beyond the forward pass of `accelerator`."""
  sizes = dict(b=2, t=8192, num_heads=16, head_dim=16, value_dim=64)
  taylor = _linear(2, 8192, 16, 16, 64)
  gated = _gated(2, 8192, 16, 64, 128)
  own = dict(b=2, t=8192, num_heads=16, head_dim=64, value_dim=128, chunk=16)
  own['feature'] = 'identity'
  return [
    _gradient(taylor, (0, 1, 2), linear_cost.backward(**sizes)),
    gated,
    _gradient(gated, (0, 1, 2, 3), linear_cost.backward(**own)),
  ]


def cpu_selections() -> list[Case]:
  """Sparse decoding by size of the selection, top-k, chunks, for CPUs."""
  found = [
    *(_gather(4, 65536, size, 8, 2, 64) for size in (1024, 2048, 4096, 8192)),
    _blocks(4, 16384, 64, 32, 8, 2, 64),
    _tree(4, 4096, 32, 8, 2, 64),
    _topk(4, 131072, 1024),
    *(_chunked(1, 4096, 4, 16, 64, chunk) for chunk in (32, 64, 128, 256)),
  ]
  return [
    dataclasses.replace(x, draw=_wide(x.draw), implementations=('xla',))
    for x in found
  ]


def _wide(draw):
  """Operands in float32, indices as they are."""
  widen = lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
  return lambda key: jax.tree.map(widen, draw(key))


def _chunked(b: int, t: int, n: int, h: int, e: int, chunk: int) -> Case:
  case = _linear(b, t, n, h, e)

  def run(implementation, *args):
    return kernels.linear_attention(
      *args, chunk=chunk, implementation=implementation
    )

  return dataclasses.replace(case, name=f'{case.name} chunk {chunk}', run=run)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public functions: tree attention and the bits it needs.

On TPU and GPU one kernel walks the cache and then the tree: it is the decoding
kernel over all blocks or pages of the cache, with the tree as its tail. Only
that last part is masked by bits.
"""

import functools
import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch
from jaxtok_kernels.flash_attention.api import check_shapes
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.selected_decode.units import Pool, Tail, Units
from jaxtok_kernels.state import AttentionState, empty, stats_dtype
from jaxtok_kernels.tree_attention import reference, xla

_PALLAS = {'tpu': 'tpu', 'triton': 'gpu_triton'}
_AVAILABLE = ('reference', 'xla', *_PALLAS)
_BLOCK = 128  # Tokens of a contiguous cache per copy, if its length allows.


def ancestor_bits(parent_bg: jax.Array) -> jax.Array:
  """Which drafts each draft may see: its ancestors and itself.

  Args:
    parent_bg: int32; parent of each node, -1 for children of the last cached
      token. Parents come before their children.

  Returns:
    uint32 `[b, g, ceil(g / 32)]`; bit `j` of node `i` is set iff `j` is `i` or
    an ancestor of `i`.
  """
  b, g = parent_bg.shape
  words = -(-g // 32)
  node = jnp.arange(g)
  own = jnp.where(
    (node[:, None] >> 5) == jnp.arange(words),
    jnp.uint32(1) << (node & 31).astype(jnp.uint32)[:, None],
    jnp.uint32(0),
  )
  # One more node, its own parent, without bits: the root of every tree.
  bits = jnp.concatenate([own, jnp.zeros((1, words), jnp.uint32)])
  bits = jnp.broadcast_to(bits, (b, g + 1, words))
  jump = jnp.where(parent_bg < 0, g, parent_bg).astype(jnp.int32)
  jump = jnp.concatenate([jump, jnp.full((b, 1), g, jnp.int32)], axis=1)
  # After i doublings a node knows its 2 ** i nearest ancestors.
  for _ in range(max(1, (g - 1).bit_length())):
    bits = bits | jnp.take_along_axis(bits, jump[..., None], axis=1)
    jump = jnp.take_along_axis(jump, jump, axis=1)
  return bits[:, :g]


def tree_attention(
  q_bgnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  cache_len_b: jax.Array,
  k_new_bgkh: jax.Array,
  v_new_bgkh: jax.Array,
  *,
  tree_bits: jax.Array | None = None,
  parent_bg: jax.Array | None = None,
  valid_bg: jax.Array | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  implementation: str = 'auto',
) -> AttentionState:
  """Attention of draft tokens over the cache and their ancestors.

  Axis g counts the drafts (nodes) of a tree. Rotary embeddings are the
  caller's: a node stands at position `cache_len + depth`. No gradients.

  Args:
    q_bgnh: Queries of the drafts.
    k_bskh: Cached keys.
    v_bskh: Cached values.
    cache_len_b: int32, valid slots of the cache.
    k_new_bgkh: Keys of the drafts.
    v_new_bgkh: Values of the drafts.
    tree_bits: uint32 `[b, g, ceil(g / 32)]` from `ancestor_bits`.
    parent_bg: int32 parents, instead of `tree_bits`.
    valid_bg: bool; nodes that exist. Others see nothing and nobody sees them.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The state of each draft; `out` is float32.

  Raises:
    ValueError: If shapes do not fit, or not exactly one of `tree_bits` and
      `parent_bg` is given.
    NotImplementedError: If the named implementation cannot serve the call, or
      on differentiation.
  """
  check_shapes(q_bgnh, k_bskh, v_bskh, ('q_bgnh', 'k_bskh', 'v_bskh'))
  heads = (*k_bskh.shape[2:], v_bskh.shape[3])
  _check(q_bgnh, heads, cache_len_b, k_new_bgkh, v_new_bgkh)
  bits, valid_bg = _tree(q_bgnh, tree_bits, parent_bg, valid_bg)
  if not k_bskh.shape[1]:  # One block that nobody sees.
    more = ((0, 0), (0, _BLOCK), (0, 0), (0, 0))
    k_bskh, v_bskh = jnp.pad(k_bskh, more), jnp.pad(v_bskh, more)
    cache_len_b = jnp.zeros_like(cache_len_b)
  b, s = k_bskh.shape[:2]
  # Blocks of the cache are units of a pool, without moving it.
  block = math.gcd(s, _BLOCK)
  cut = lambda x: x.reshape(b * s // block, block, *x.shape[2:])
  first = jnp.arange(s // block, dtype=jnp.int32)
  row = jnp.arange(b, dtype=jnp.int32)[:, None]
  units = _units(row * (s // block) + first, cache_len_b, valid_bg, block)
  return _run(
    'tree_attention',
    implementation,
    Options.of(q_bgnh.shape[-1], scale, softcap),
    q_bgnh,
    (Pool(cut(k_bskh), cut(v_bskh)), units),
    Tail(k_new_bgkh, v_new_bgkh, bits),
    (k_bskh, v_bskh, cache_len_b, valid_bg),
  )


def paged_tree_attention(
  q_bgnh: jax.Array,
  pages_pzch: jax.Array,
  page_table_bu: jax.Array,
  cache_len_b: jax.Array,
  k_new_bgkh: jax.Array,
  v_new_bgkh: jax.Array,
  *,
  tree_bits: jax.Array | None = None,
  parent_bg: jax.Array | None = None,
  valid_bg: jax.Array | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  implementation: str = 'auto',
) -> AttentionState:
  """`tree_attention` over a paged cache.

  Args:
    q_bgnh: Queries of the drafts.
    pages_pzch: `[p, page, 2 k, h]`, as in `paged_decode`.
    page_table_bu: int32, pages of each sequence in order; entries past its end
      must be valid page numbers (e.g. 0).
    cache_len_b: int32, cached tokens of each sequence.
    k_new_bgkh: Keys of the drafts.
    v_new_bgkh: Values of the drafts.
    tree_bits: As in `tree_attention`.
    parent_bg: As in `tree_attention`.
    valid_bg: As in `tree_attention`.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The state of each draft; `out` is float32. No gradients.

  Raises:
    ValueError: As `tree_attention`.
    NotImplementedError: As `tree_attention`.
  """
  if pages_pzch.ndim != 4 or pages_pzch.shape[2] % 2:
    raise ValueError(
      f'pages_pzch has shape {pages_pzch.shape}; it must be [p, page, 2 k, h].'
    )
  _, page, rows, h = pages_pzch.shape
  _check(q_bgnh, (rows // 2, h, h), cache_len_b, k_new_bgkh, v_new_bgkh)
  if page_table_bu.ndim != 2 or page_table_bu.shape[0] != q_bgnh.shape[0]:
    raise ValueError(
      f'page_table_bu has shape {page_table_bu.shape}; it must be '
      f'[{q_bgnh.shape[0]}, pages].'
    )
  bits, valid_bg = _tree(q_bgnh, tree_bits, parent_bg, valid_bg)
  if not page_table_bu.shape[1]:  # One page that nobody sees.
    page_table_bu = jnp.zeros((q_bgnh.shape[0], 1), jnp.int32)
    cache_len_b = jnp.zeros_like(cache_len_b)
  units = _units(page_table_bu.astype(jnp.int32), cache_len_b, valid_bg, page)
  return _run(
    'paged_tree_attention',
    implementation,
    Options.of(q_bgnh.shape[-1], scale, softcap),
    q_bgnh,
    (Pool(pages_pzch), units),
    Tail(k_new_bgkh, v_new_bgkh, bits),
    None,
  )


def _check(q, heads, cache_len_b, k_new, v_new) -> None:
  """`heads` are the key heads of the cache, their width, that of values."""
  if q.ndim != 4:
    raise ValueError(f'q_bgnh has shape {q.shape}; it must have 4 axes.')
  b, g, n, h = q.shape
  k, width, value_width = heads
  if h != width or not k or n % k:
    raise ValueError(
      f'q_bgnh has {n} heads of width {h}, the cache {k} key heads of width '
      f'{width}: the widths must be equal and the key heads divide the query '
      'heads.'
    )
  wanted = {
    'k_new_bgkh': (k_new, (b, g, k, h)),
    'v_new_bgkh': (v_new, (b, g, k, value_width)),
    'cache_len_b': (cache_len_b, (b,)),
  }
  for name, (x, shape) in wanted.items():
    if x.shape != shape:
      raise ValueError(
        f'{name} has shape {x.shape}; it must be {shape}: as many drafts as '
        f'q_bgnh {q.shape}, heads as the cache.'
      )


def _tree(q_bgnh, tree_bits, parent_bg, valid_bg):
  """Checked bits of existing nodes, and which nodes exist."""
  if (tree_bits is None) == (parent_bg is None):
    raise ValueError('Give exactly one of tree_bits and parent_bg.')
  b, g = q_bgnh.shape[:2]
  for name, x in (('parent_bg', parent_bg), ('valid_bg', valid_bg)):
    if x is not None and x.shape != (b, g):
      raise ValueError(f'{name} has shape {x.shape}; it must be {(b, g)}.')
  bits = ancestor_bits(parent_bg) if tree_bits is None else tree_bits
  if bits.shape != (b, g, -(-g // 32)):
    raise ValueError(
      f'tree_bits has shape {bits.shape}; it must be {(b, g, -(-g // 32))}.'
    )
  if valid_bg is None:
    valid_bg = jnp.ones((b, g), bool)
  return _only_valid(bits, valid_bg), valid_bg


def _only_valid(bits: jax.Array, valid_bg: jax.Array) -> jax.Array:
  """Clears rows and columns of nodes that do not exist."""
  b, g, words = bits.shape
  padded = jnp.pad(valid_bg, ((0, 0), (0, 32 * words - g)))
  lanes = padded.reshape(b, words, 32).astype(jnp.uint32)
  columns = (lanes << jnp.arange(32, dtype=jnp.uint32)).sum(
    -1, dtype=jnp.uint32
  )
  return jnp.where(valid_bg[..., None], bits & columns[:, None], 0)


def _units(ids_bu, cache_len_b, valid_bg, unit: int) -> Units:
  """All blocks of the caches; nodes that do not exist see none of them."""
  length = cache_len_b.astype(jnp.int32)[:, None]
  first = jnp.arange(ids_bu.shape[1], dtype=jnp.int32) * unit
  return Units(
    ids=ids_bu[:, None],
    count=-(-length // unit),
    first=jnp.broadcast_to(first, ids_bu.shape)[:, None],
    limit=jnp.where(valid_bg, length, 0),
  )


def _module(name: str) -> Any:
  """Pallas is slow to import, so only what is used is."""
  return importlib.import_module(
    f'jaxtok_kernels.selected_decode.{_PALLAS[name]}'
  )


def _run(kernel, implementation, options, q, context, tail, contiguous):
  unsupported = lambda name: (
    _module(name).unsupported(q, *context) if name in _PALLAS else None
  )
  found = dispatch.choose(kernel, implementation, _AVAILABLE, unsupported)
  if 0 in q.shape[:3]:
    return empty((*q.shape[:3], tail.v.shape[3]), stats_dtype(q.dtype))
  interpret = dispatch.interpret()
  call = lambda name, *arrays: AttentionState(
    *_no_gradient(kernel, name, options, interpret, *arrays)
  )
  state = dispatch.run(found, call, q, context, tail, contiguous)
  dispatch.record(found)
  return state


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def _no_gradient(
  kernel, name, options, interpret, q, context, tail, contiguous
):
  del kernel
  if name in _PALLAS:
    used = (tail.bits[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    used = used.max(1).reshape(q.shape[0], -1)[:, : q.shape[1]] > 0
    # Nodes that nobody sees may hold NaN, which 0 * NaN would leak.
    clean = lambda x: jnp.where(used[..., None, None], x, 0)
    tail = Tail(clean(tail.k), clean(tail.v), tail.bits)
    state = _module(name).forward(
      q, *context, options, tail=tail, interpret=interpret
    )
  else:
    form = reference if name == 'reference' else xla
    if contiguous is None:
      state = form.paged_tree_attention(q, context, tail, options)
    else:
      state = form.tree_attention(q, *contiguous, tail, options)
  return tuple(state)


@_no_gradient.defjvp
def _no_gradient_jvp(kernel, *_):
  raise NotImplementedError(
    f'{kernel} has no gradients: it serves decoding. Use flash_attention with '
    'masks.tree to train on trees.'
  )

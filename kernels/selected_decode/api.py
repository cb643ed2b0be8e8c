# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Public functions: token lists, block lists, page tables."""

import functools
import importlib

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch
from jaxtok_kernels.flash_attention.api import check_shapes
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.flash_attention.xla import Options
from jaxtok_kernels.masks import MAX_POS
from jaxtok_kernels.selected_decode import reference, xla
from jaxtok_kernels.selected_decode.pages import PagedKV
from jaxtok_kernels.selected_decode.units import Pool, Units, is_empty
from jaxtok_kernels.state import AttentionState

_PALLAS = {'tpu': 'tpu', 'triton': 'gpu_triton'}
_AVAILABLE = ('reference', 'xla', *_PALLAS)


def gather_decode(
  q_btnh: jax.Array,
  rows_rch: jax.Array,
  idx: jax.Array,
  count: jax.Array,
  *,
  rope: tuple[jax.Array, jax.Array] | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  implementation: str = 'auto',
) -> AttentionState:
  """Attention over selected tokens of a pool of rows.

  Differentiable in the queries and the rows (scatter-add; not tuned); `rope`
  counts as constant.

  Args:
    q_btnh: Queries; all t of a sequence see all its selected tokens.
    rows_rch: `[r, 2 k, h]`; row 2 i of a token is key head i, 2 i + 1 its
      value.
    idx: int32 `[b, k|1, u]`, row numbers; entries past `count` (-1) are
      ignored.
    count: int32 `[b, k|1]`, number of selected tokens.
    rope: cos and sin `[u, h / 2]`, float32; rotates the gathered keys to the
      compacted positions (keys are cached before rotation; rotate q yourself).
      Its gradient is zero.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The state over the selected tokens, `out` in float32; empty lists give
    `(0, -inf)`.

  Raises:
    ValueError: If shapes do not fit.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  _check_axes('rows_rch', rows_rch, '[r, 2 k, h]')
  _check_queries('rows_rch', q_btnh, rows_rch.shape[1] / 2, rows_rch.shape[2])
  _check_lists('idx', idx, count, q_btnh.shape[0], rows_rch.shape[1] // 2)
  cos, sin = jax.lax.stop_gradient(rope or (None, None))
  table = (idx.shape[-1], q_btnh.shape[-1] // 2)
  if rope and not cos.shape == sin.shape == table:
    raise ValueError(
      f'rope has tables of shape {cos.shape} and {sin.shape}; they must be '
      f'{table}: one row per list entry.'
    )
  units = Units(
    ids=jnp.maximum(idx, 0).astype(jnp.int32),
    count=count.astype(jnp.int32),
    first=jnp.zeros(idx.shape, jnp.int32),
    limit=jnp.full(q_btnh.shape[:2], MAX_POS, jnp.int32),
    cos=cos,
    sin=sin,
  )
  pool = Pool(rows_rch[:, None])
  return _decode(
    'gather_decode', q_btnh, pool, units, scale, softcap, implementation
  )


def block_decode(
  q_btnh: jax.Array,
  k_bskh: jax.Array,
  v_bskh: jax.Array,
  block_idx: jax.Array,
  count: jax.Array,
  *,
  block: int,
  length_b: jax.Array | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  implementation: str = 'auto',
) -> AttentionState:
  """Attention over selected blocks of per-sequence caches.

  Args:
    q_btnh: Queries of the t newest tokens.
    k_bskh: Cached keys; s is a multiple of `block`.
    v_bskh: Cached values.
    block_idx: int32 `[b, k|1, u]`, block numbers, -1 padded at the end.
    count: int32 `[b, k|1]`, number of selected blocks.
    block: Static; tokens per block.
    length_b: int32, valid tokens of each sequence, the t newest included: query
      `i` sees positions below `length - t + 1 + i`. Default: all slots.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The state over the selected blocks, `out` in float32.

  Raises:
    ValueError: If shapes do not fit.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  check_shapes(q_btnh, k_bskh, v_bskh)
  b, s, k, _ = k_bskh.shape
  _check_lists('block_idx', block_idx, count, b, k)
  if block < 1:
    raise ValueError(f'block={block} must be at least 1.')
  if s % block:
    raise ValueError(f'k_bskh has {s} slots, no multiple of block={block}.')
  ids = jnp.maximum(block_idx, 0).astype(jnp.int32)
  offset = jnp.arange(b, dtype=jnp.int32)[:, None, None] * (s // block)
  units = Units(
    ids=ids + offset,
    count=count.astype(jnp.int32),
    first=ids * block,
    limit=_limits(q_btnh, length_b),
  )
  cut = lambda x: x.reshape(b * s // block, block, *x.shape[2:])
  pool = Pool(cut(k_bskh), cut(v_bskh))
  return _decode(
    'block_decode', q_btnh, pool, units, scale, softcap, implementation
  )


def paged_decode(
  q_btnh: jax.Array,
  pages_pzch: jax.Array,
  page_table_bu: jax.Array,
  length_b: jax.Array,
  *,
  block_idx: jax.Array | None = None,
  count: jax.Array | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  implementation: str = 'auto',
) -> AttentionState:
  """Attention over pages, all of a sequence or a selection.

  Args:
    q_btnh: Queries of the t newest tokens.
    pages_pzch: `[p, page, 2 k, h]`, heads interleaved as in `gather_decode`.
    page_table_bu: int32, pages of each sequence in order; entries past its end
      must be valid page numbers (e.g. 0).
    length_b: int32, tokens of each sequence, the t newest included: query `i`
      sees positions below `length - t + 1 + i`.
    block_idx: int32 `[b, k|1, m]`; selects logical pages (entries of the page
      table), -1 padded at the end. Default: all.
    count: int32 `[b, k|1]`, number of selected pages; needs `block_idx`.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    implementation: Static; see `jaxtok_kernels.flash_attention`.

  Returns:
    The state over the pages, `out` in float32.

  Raises:
    ValueError: If shapes do not fit.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  paged = PagedKV(pages_pzch, page_table_bu)
  check_pages(q_btnh, paged)
  if (block_idx is None) != (count is None):
    raise ValueError('block_idx and count must be given together.')
  limit = _limits(q_btnh, length_b)
  if block_idx is None:
    units = paged.units(length_b, q_btnh.shape[1])
  else:
    _, page, heads, _ = pages_pzch.shape
    _check_lists('block_idx', block_idx, count, q_btnh.shape[0], heads // 2)
    units = _page_units(page_table_bu, block_idx, count, page, limit)
  return _decode(
    'paged_decode',
    q_btnh,
    paged.pool,
    units,
    scale,
    softcap,
    implementation,
  )


def check_pages(
  q_btnh: jax.Array,
  paged: PagedKV,
  names: tuple[str, str] = ('pages_pzch', 'page_table_bu'),
) -> None:
  """Raises ValueError if queries and pages do not fit each other."""
  pages, table = paged.pages_pzch, paged.page_table_bu
  _check_axes(names[0], pages, '[p, page, 2 k, h]')
  _check_queries(names[0], q_btnh, pages.shape[2] / 2, pages.shape[3])
  _check_axes(names[1], table, '[b, u]')
  if table.shape[0] != q_btnh.shape[0]:
    raise ValueError(
      f'{names[1]} has shape {table.shape}; it must have {q_btnh.shape[0]} '
      'rows, one per sequence of q_btnh.'
    )


def _page_units(page_table_bu, block_idx, count, page: int, limit) -> Units:
  """Pages of the pool for selected logical pages."""
  logical = jnp.maximum(block_idx, 0).astype(jnp.int32)
  table = jnp.broadcast_to(
    page_table_bu[:, None].astype(jnp.int32),
    (*logical.shape[:2], page_table_bu.shape[1]),
  )
  return Units(
    ids=jnp.take_along_axis(table, logical, axis=-1),
    count=count.astype(jnp.int32),
    first=logical * page,
    limit=limit,
  )


def _limits(q_btnh, length_b) -> jax.Array:
  b, t = q_btnh.shape[:2]
  if length_b is None:
    return jnp.full((b, t), MAX_POS, jnp.int32)
  if length_b.shape != (b,):
    raise ValueError(f'length_b has shape {length_b.shape}; it must be ({b},).')
  row = jnp.arange(t, dtype=jnp.int32)
  return length_b.astype(jnp.int32)[:, None] - (t - 1) + row


def _check_axes(name: str, x: jax.Array, axes: str) -> None:
  if x.ndim != axes.count(',') + 1:
    raise ValueError(
      f'{name} has shape {x.shape}; it must have the axes {axes}.'
    )


def _check_queries(name: str, q, num_kv_heads: float, width: int) -> None:
  _check_axes('q_btnh', q, '[b, t, n, h]')
  n, h = q.shape[2:]
  # An odd number of interleaved heads gives half a key head.
  if h != width or num_kv_heads < 1 or num_kv_heads % 1 or n % num_kv_heads:
    raise ValueError(
      f'q_btnh has {n} heads of width {h}, {name} {num_kv_heads:g} key heads '
      f'of width {width}: the widths must be equal and the key heads divide '
      'the query heads.'
    )


def _check_lists(name: str, ids, count, b: int, k: int) -> None:
  if ids.ndim != 3 or ids.shape[0] != b or ids.shape[1] not in (1, k):
    raise ValueError(
      f'{name} has shape {ids.shape}; it must be [{b}, 1 or {k}, entries].'
    )
  if count.shape != ids.shape[:2]:
    raise ValueError(
      f'count has shape {count.shape}; it must be {ids.shape[:2]} as {name}.'
    )


def _decode(kernel, q, pool, units, scale, softcap, implementation):
  options = Options.of(q.shape[-1], scale, softcap)
  found = dispatch.choose(
    kernel,
    implementation,
    _AVAILABLE,
    lambda name: _unsupported(name, q, pool, units),
  )
  call = lambda name, *arrays: _call(name, options, *arrays)
  return dispatch.run(found, call, q, pool, units)


def _module(name: str):
  """Pallas is slow to import, so only what is used is."""
  return importlib.import_module(
    f'jaxtok_kernels.selected_decode.{_PALLAS[name]}'
  )


def _unsupported(name: str, q, pool, units) -> str | None:
  if name not in _PALLAS:
    return None
  return _module(name).unsupported(q, pool, units)


def _call(name, options, q, pool, units) -> AttentionState:
  if name == 'reference':
    return reference.decode(
      q, pool, units, scale=options.scale, softcap=options.softcap
    )
  return _attend(Static.here(name, options), q, pool, units)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static, q, pool, units):
  if static.name == 'xla' or is_empty(q, pool, units):
    return xla.forward(q, pool, units, static.options)
  return _module(static.name).forward(
    q, pool, units, static.options, interpret=static.interpret
  )


def _attend_fwd(static, q, pool, units):
  state = _attend(static, q, pool, units)
  return state, (q, pool, units, state)


def _attend_bwd(static, residuals, cotangent):
  """The XLA form serves all implementations: it is for training."""
  q, pool, units, state = residuals
  delta = (state.out * cotangent.out).sum(-1) - cotangent.lse
  dq, dpool = xla.backward(
    q, pool, units, state.lse, cotangent.out, delta, static.options
  )
  return dq, dpool, None


_attend.defvjp(_attend_fwd, _attend_bwd)

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public function: checks, dispatch and one gradient for all parts."""

import functools

import jax
from jaxtok_kernels import dispatch
from jaxtok_kernels.flash_attention import implementations
from jaxtok_kernels.flash_attention import xla as flash_xla
from jaxtok_kernels.flash_attention.api import check_shapes
from jaxtok_kernels.flash_attention.implementations import Static
from jaxtok_kernels.prefix_attention import parts, reference
from jaxtok_kernels.prefix_attention.levels import PrefixLevel
from jaxtok_kernels.selected_decode.api import check_pages
from jaxtok_kernels.selected_decode.pages import PagedKV
from jaxtok_kernels.state import AttentionState, empty, merge, stats_dtype

_AVAILABLE = ('reference', *implementations.NAMES)


def shared_prefix_attention(
  q_btnh: jax.Array,
  levels: tuple[PrefixLevel, ...],
  suffix_k_bskh: jax.Array | PagedKV,
  suffix_v_bskh: jax.Array | None,
  suffix_len_b: jax.Array,
  *,
  scale: float | None = None,
  softcap: float | None = None,
  fuse: bool = False,
  implementation: str = 'auto',
) -> AttentionState:
  """Decodes sequences that share prefixes, reading each prefix once.

  Equal to attention over the concatenation of each sequence's prefixes and its
  suffix. Differentiable in q, the prefixes and the suffix; a prefix's gradient
  sums over the sequences of its group.

  Args:
    q_btnh: Queries of the t newest tokens of each sequence.
    levels: Shared prefixes, from the root of the tree to its leaves.
    suffix_k_bskh: Keys of each sequence's own part, the newest t included; or
      its keys and values as a `PagedKV`, which decoding reads page by page.
    suffix_v_bskh: Values likewise; None with pages.
    suffix_len_b: int32; valid keys of each suffix. Query `i` sees the first
      `suffix_len - t + 1 + i`.
    scale: Factor on `q.k`; default `h ** -0.5`.
    softcap: Static; bound on the scores, None for none.
    fuse: Static; whether the kernel of the suffix starts from the prefixes'
      state instead of writing one of its own for a merge afterwards; results
      differ by rounding. Compiled for v5e (256 sequences of the benchmark) it
      saves 2 % of the bytes with pages and costs 1 % with a contiguous suffix,
      whose state is padded to a tile; elsewhere never counted, nowhere timed:
      hence not the default. On GPUs parts of a long suffix are merged anyway,
      so little can be gained. 'reference' refuses it, and 'mosaic_gpu' where
      flash attention serves the suffix (contiguous, with more than 64 rows per
      key head or in float16), whose kernel takes no state.
    implementation: Static; see `jaxtok_kernels.flash_attention`. The gradient
      is the XLA form's for all of them.

  Returns:
    The state over all keys; `out` is float32.

  Raises:
    ValueError: If shapes do not fit.
    NotImplementedError: If the named implementation cannot serve the call.
  """
  levels = tuple(levels)
  suffix = _suffix(suffix_k_bskh, suffix_v_bskh)
  _check(q_btnh, levels, suffix, suffix_len_b)
  options = flash_xla.Options.of(q_btnh.shape[-1], scale, softcap)
  found = dispatch.choose(
    'shared_prefix_attention',
    implementation,
    _AVAILABLE,
    lambda name: parts.unsupported(name, q_btnh, suffix, suffix_len_b, fuse),
  )
  if 0 in q_btnh.shape[:3]:
    shape = (*q_btnh.shape[:3], parts.suffix_shapes(suffix)[1].shape[3])
    return empty(shape, stats_dtype(q_btnh.dtype))
  call = lambda name, *arrays: _call(name, options, fuse, *arrays)
  return dispatch.run(found, call, q_btnh, levels, suffix, suffix_len_b)


def _suffix(k, v) -> parts.Suffix:
  is_paged = isinstance(k, PagedKV)
  if is_paged != (v is None):
    what = 'a PagedKV, which holds the values too' if is_paged else 'an array'
    raise ValueError(
      f'suffix_k_bskh is {what}, so suffix_v_bskh must '
      f'{"be None" if is_paged else "be one as well"}.'
    )
  return k if is_paged else (k, v)


def _call(name, options, fuse, q, levels, suffix, length) -> AttentionState:
  if name == 'reference':
    return reference.shared_prefix_attention(
      q, levels, suffix, length, scale=options.scale, softcap=options.softcap
    )
  static = Static.here(name, options)
  return _attend(static, fuse, q, levels, suffix, length)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(static, fuse, q, levels, suffix, length):
  if static.name == 'xla':
    level_forward = functools.partial(
      parts.level_forward, options=static.options
    )
  else:
    level_forward = functools.partial(parts.level_forward_tiled, static=static)
  states = [level_forward(q, level) for level in levels]
  own = functools.partial(parts.suffix_forward, q, suffix, length, static)
  if not fuse:
    return merge([own(), *states])
  return own(merge(states) if len(states) > 1 else (states or [None])[0])


def _attend_fwd(static, fuse, q, levels, suffix, length):
  state = _attend(static, fuse, q, levels, suffix, length)
  return state, (q, levels, suffix, length, state)


def _attend_bwd(static, fuse, residuals, cotangent):
  """Every part uses the merged lse and delta: nothing goes through `merge`.

  The XLA form serves all implementations: it is for training, not decoding.
  """
  del fuse  # Forward alone.
  options = static.options
  q, levels, suffix, length, state = residuals
  lse, dout = state.lse, cotangent.out
  delta = (state.out * dout).sum(-1) - cotangent.lse
  dq, dsuffix = parts.suffix_backward(
    q, suffix, length, lse, dout, delta, options
  )
  dlevels = []
  for level in levels:
    part, dk_mpkh, dv_mpkh = parts.level_backward(
      q, level, lse, dout, delta, options
    )
    dq = dq + part.astype(dq.dtype)
    dlevels.append(
      PrefixLevel(
        dk_mpkh.astype(level.k_mpkh.dtype),
        dv_mpkh.astype(level.v_mpkh.dtype),
        parts.no_gradient(level.length_m),
        parts.no_gradient(level.group_b),
      )
    )
  return dq, tuple(dlevels), dsuffix, None


_attend.defvjp(_attend_fwd, _attend_bwd)


def _check(q, levels, suffix, length) -> None:
  if isinstance(suffix, PagedKV):
    names = ('pages_pzch', 'page_table_bu')
    check_pages(q, suffix, tuple(f'suffix_k_bskh.{x}' for x in names))
  else:
    check_shapes(q, *suffix, ('q_btnh', 'suffix_k_bskh', 'suffix_v_bskh'))
  k, v = parts.suffix_shapes(suffix)
  b, _, _, h = q.shape
  if length.shape != (b,):
    raise ValueError(
      f'suffix_len_b has shape {length.shape}; it must be ({b},).'
    )
  for i, level in enumerate(levels):
    m = level.length_m.shape[0]
    if level.k_mpkh.shape != (m, level.k_mpkh.shape[1], k.shape[2], h):
      raise ValueError(
        f'levels[{i}].k_mpkh has shape {level.k_mpkh.shape}; it must be '
        f'[{m}, keys, {k.shape[2]}, {h}].'
      )
    if level.v_mpkh.shape[:3] != level.k_mpkh.shape[:3]:
      raise ValueError(
        f'levels[{i}].v_mpkh has shape {level.v_mpkh.shape}, k_mpkh '
        f'{level.k_mpkh.shape}: they must agree in all but the width.'
      )
    if level.v_mpkh.shape[3] != v.shape[3]:
      raise ValueError(
        f'levels[{i}].v_mpkh has values of width {level.v_mpkh.shape[3]}, the '
        f'suffix of {v.shape[3]}: they must be equal.'
      )
    if level.group_b.shape != (b,):
      raise ValueError(
        f'levels[{i}].group_b has shape {level.group_b.shape}; it must be '
        f'({b},).'
      )

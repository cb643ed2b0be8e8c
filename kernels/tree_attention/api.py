# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public functions: tree attention and the bits it needs."""

import jax
import jax.numpy as jnp
from jaxtok_kernels import dispatch, masks
from jaxtok_kernels.flash_attention import implementations, packing
from jaxtok_kernels.flash_attention.api import flash_attention
from jaxtok_kernels.state import AttentionState, merge
from jaxtok_kernels.tree_attention import reference

_AVAILABLE = ('reference', *implementations.NAMES)


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
  caller's: a node stands at position `cache_len + depth`.

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
    NotImplementedError: If the named implementation cannot serve the call.
  """
  if (tree_bits is None) == (parent_bg is None):
    raise ValueError('Give exactly one of tree_bits and parent_bg.')
  b, g = q_bgnh.shape[:2]
  bits = ancestor_bits(parent_bg) if tree_bits is None else tree_bits
  if bits.shape != (b, g, -(-g // 32)):
    raise ValueError(
      f'tree_bits has shape {bits.shape}; it must be {(b, g, -(-g // 32))}.'
    )
  if valid_bg is None:
    valid_bg = jnp.ones((b, g), bool)
  bits = _only_valid(bits, valid_bg)
  scale = q_bgnh.shape[-1] ** -0.5 if scale is None else float(scale)
  found = dispatch.choose(
    'tree_attention',
    implementation,
    _AVAILABLE,
    lambda name: implementations.unsupported(
      name, q_bgnh, k_bskh, v_bskh, masks.full()
    ),
  )
  call = lambda name, *arrays: _call(name, scale, softcap, *arrays)
  operands = (k_bskh, v_bskh, cache_len_b, k_new_bgkh, v_new_bgkh)
  state = dispatch.run(found, call, q_bgnh, *operands, bits, valid_bg)
  dispatch.record(found)
  return state


def _only_valid(bits: jax.Array, valid_bg: jax.Array) -> jax.Array:
  """Clears rows and columns of nodes that do not exist."""
  b, g, words = bits.shape
  padded = jnp.pad(valid_bg, ((0, 0), (0, 32 * words - g)))
  lanes = padded.reshape(b, words, 32).astype(jnp.uint32)
  columns = (lanes << jnp.arange(32, dtype=jnp.uint32)).sum(
    -1, dtype=jnp.uint32
  )
  return jnp.where(valid_bg[..., None], bits & columns[:, None], 0)


def _call(name, scale, softcap, q, k, v, length, k_new, v_new, bits, valid):
  if name == 'reference':
    return reference.tree_attention(
      q, k, v, length, k_new, v_new, bits, valid, scale=scale, softcap=softcap
    )
  g, k_heads = q.shape[1], k.shape[2]
  context = flash_attention(
    packing.pack(q, k_heads),
    k,
    v,
    mask=packing.pack_mask(
      reference.context_mask(length, valid), q.shape[2] // k_heads
    ),
    scale=scale,
    softcap=softcap,
    return_state=True,
    implementation=name,
  )
  # The tree is one small tile: the XLA form serves all implementations.
  drafts = flash_attention(
    q,
    k_new,
    v_new,
    mask=masks.tree(bits),
    scale=scale,
    softcap=softcap,
    return_state=True,
    implementation='xla',
  )
  return merge([packing.unpack(context, g), drafts])

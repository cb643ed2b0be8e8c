# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""One learned query looks at the bytes of each word: HAT of 2026.

arXiv:2603.15953. Query and bytes stand at the index of their word, so that
RoPE turns both alike and changes no score. As the query is the same for all
words, a byte's score does not depend on which word it is in, and attention is a
softmax over the bytes of each word: no pair of a word and a byte of another one
is ever computed.

Axes: b rows, s bytes, w words, d width of bytes, D of words, n heads, h head
width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.nn import linear, norms, ragged


class WordQuery(nnx.Module):
  """From the states of bytes to one vector per word."""

  def __init__(
    self,
    dim: int,
    out_dim: int,
    *,
    num_heads: int,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    """Creates the parameters.

    Args:
      dim: Width d of bytes; a multiple of `num_heads`.
      out_dim: Width D of words.
      num_heads: Heads n.
      dtype: Of the matmuls.
      rngs: Source of randomness.
    """
    n, h = num_heads, dim // num_heads
    self.norm = norms.Norm(dim)
    query = jax.random.normal(rngs.params(), (n, h))
    self.query = nnx.Param(query, axes=('heads', 'head_dim'))
    project = lambda: linear.Linear(
      (dim,),
      (n, h),
      axes=('embed', 'heads', 'head_dim'),
      dtype=dtype,
      rngs=rngs,
    )
    self.k, self.v = project(), project()
    self.out = linear.Linear(
      (n, h),
      (out_dim,),
      axes=('heads', 'head_dim', 'embed'),
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(
    self, x_bsd: Float[Array, 'b s d'], word_bs: Int[Array, 'b s'], size: int
  ) -> Float[Array, 'b w D']:
    """Vectors of words 0..size-1 (static); of those without bytes it is zero.

    Args:
      x_bsd: States of bytes.
      word_bs: Which word each byte is in; others than 0..size-1 are left out.
      size: Room for words w.
    """
    y_bsd = self.norm(x_bsd)
    n, h = self.query.shape
    score_bsn = jnp.einsum(
      'bsnh,nh->bsn',
      self.k(y_bsd),
      self.query[...].astype(y_bsd.dtype),
      preferred_element_type=jnp.float32,
    )
    score_bsn = score_bsn * h**-0.5
    pool = lambda x, how: ragged.segment_pool(x, word_bs, size, how).values_bwd
    top_bwn = jax.lax.stop_gradient(pool(score_bsn, 'max'))
    is_in_bs1 = ragged.within(word_bs, size)[..., None]
    over_bsn = jnp.where(
      is_in_bs1, score_bsn - ragged.expand(top_bwn, word_bs), -jnp.inf
    )
    weight_bsn = jnp.exp(over_bsn)
    b, s = word_bs.shape
    v_bsnh = self.v(y_bsd).astype(jnp.float32)
    mixed_bsf = (weight_bsn[..., None] * v_bsnh).reshape(b, s, n * h)
    sum_bwnh = pool(mixed_bsf, 'sum').reshape(b, size, n, h)
    total_bwn = jnp.maximum(pool(weight_bsn, 'sum'), 1e-30)
    mean_bwnh = sum_bwnh / total_bwn[..., None]
    return self.out(mean_bwnh.astype(y_bsd.dtype))

  def flops(self, rows: int, words: int) -> float:
    """Matmul FLOPs of `rows` bytes in `words` words."""
    n, h = self.query.shape
    dim, out_dim = self.k.kernel.shape[0], self.out.kernel.shape[-1]
    return 2.0 * n * h * (rows * (2 * dim + 1) + words * out_dim)

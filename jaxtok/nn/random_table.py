# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Token vectors that are drawn anew for each document.

Huang et al. 2023, arXiv:2305.16349, section 2: within a document a symbol has
one Gaussian vector, in the next another, so a model knows symbols only by how
they are used there. All of it is float32: with many symbols and a small width,
vectors of bfloat16 can no longer be told apart.

Axes: b rows, k documents of a row, v vocabulary, t positions, d width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtok.nn import ragged

Tables = Float[Array, '#b k v d']


def draw(
  rng: Array, num_rows: int, num_documents: int, num_tokens: int, dim: int
) -> Tables:
  """Tables of N(0, 1), independent for each document of each row.

  Row i depends on `rng` and i only, not on how many rows there are.
  """
  shape = (num_documents, num_tokens, dim)
  keys_b = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(num_rows))
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys_b)


def mix(
  rng: Array, tables_bkvd: Tables, learned_vd: Float[Array, 'v d'], share: float
) -> Tables:
  """Learned vectors, of which a random share is replaced in each document.

  The same paper's section 5. All occurrences of a symbol are replaced together.
  Random vectors get the root mean square of the learned ones, through which no
  gradient flows.

  Args:
    rng: Chooses what is replaced.
    tables_bkvd: From `draw`.
    learned_vd: The learned table.
    share: Probability that a symbol is replaced; static.
  """
  size = jax.lax.stop_gradient(jnp.sqrt((learned_vd**2).mean()))
  is_new_bkv = jax.random.bernoulli(rng, share, tables_bkvd.shape[:3])
  return jnp.where(is_new_bkv[..., None], size * tables_bkvd, learned_vd)


def lookup(
  tables_bkvd: Tables,
  tokens_bt: Int[Array, 'b t'],
  document_bt: Int[Array, '#b t'],
) -> Float[Array, 'b t d']:
  """The vector of each token.

  Args:
    tables_bkvd: One set of tables per row, or one for all.
    tokens_bt: Token ids; those that do not exist give zeros.
    document_bt: Which table each position uses, in 0..k-1.
  """
  b, t = tokens_bt.shape
  k, v, d = tables_bkvd.shape[1:]
  is_token_bt = (tokens_bt >= 0) & (tokens_bt < v)
  index_bt = jnp.where(is_token_bt, document_bt * v + tokens_bt, -1)
  if len(tables_bkvd) == 1:
    rows_btd = ragged.gather(
      tables_bkvd.reshape(1, k * v, d), index_bt.reshape(1, b * t)
    )
    return rows_btd.reshape(b, t, d)
  return ragged.gather(tables_bkvd.reshape(b, k * v, d), index_bt)


def spread(
  x_btd: Float[Array, 'b t d'], document_bt: Int[Array, '#b t'], num: int
) -> Float[Array, 'b t x']:
  """Puts each state into the block of its document, zeros into the others.

  So that one product with all tables of a row, `scores`, gives the scores by
  the right one. The width is `num * d`.
  """
  if num == 1:
    return x_btd
  hot_btk = jax.nn.one_hot(document_bt, num, dtype=x_btd.dtype)
  return (hot_btk[..., None] * x_btd[:, :, None]).reshape(
    *x_btd.shape[:2], num * x_btd.shape[2]
  )


def scores(
  x_btx: Float[Array, 'b t x'], tables_bkvd: Tables
) -> Float[Array, 'b t v']:
  """Products of spread states with the vectors of all symbols, float32."""
  b, t, k = *x_btx.shape[:2], tables_bkvd.shape[1]
  x_btkd = x_btx.reshape(b, t, k, -1).astype(jnp.float32)
  one = 'a' if len(tables_bkvd) == 1 else 'b'
  return jnp.einsum(
    f'btkd,{one}kvd->btv', x_btkd, tables_bkvd, precision='highest'
  )

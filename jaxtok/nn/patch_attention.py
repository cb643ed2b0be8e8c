# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-attention between bytes and patches: BLT, arXiv:2412.09871, section 3.

A patch is a few vectors, its parts. Parts look at the bytes of their patch, by
a mask; a byte looks at the parts of one patch, which are gathered for it. Both
sides are normalised first, nothing is rotated.

Axes: b rows, t bytes, q queries, s keys, w patches, j parts, d width, n heads,
h head width.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.nn import attention, masks, norms, ragged


class Cross(nnx.Module):
  """`x + attention(norm(x), norm(y))`, or `2 x + ...`."""

  def __init__(
    self,
    dim: int,
    num_heads: int,
    *,
    eps: float = 1e-5,
    double_residual: bool = False,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    """Creates the parameters.

    Args:
      dim: Width d of both sides.
      num_heads: Heads n.
      eps: Of the norms.
      double_residual: Whether the input is added twice, as published code does.
      dtype: Of the matmuls.
      rngs: Source of randomness.
    """
    self.scale_x = 2.0 if double_residual else 1.0
    self.q_norm, self.k_norm = (norms.Norm(dim, eps=eps) for _ in range(2))
    config = attention.Config(
      dim=dim,
      num_heads=num_heads,
      num_kv_heads=num_heads,
      head_dim=dim // num_heads,
      dtype=dtype,
    )
    self.attention = attention.Attention(config, rngs=rngs)

  def __call__(
    self,
    x_bqd: Float[Array, 'b q d'],
    y_bsd: Float[Array, 'b s d'],
    mask: masks.Mask,
    layout: masks.Layout,
  ) -> Float[Array, 'b q d']:
    """Queries look at the keys that the mask lets them see."""
    z_bqd = self.attention.attend(
      self.attention.queries(self.q_norm(x_bqd)),
      *self.attention.keys_values(self.k_norm(y_bsd)),
      mask=mask,
      layout=layout,
    )
    return self.scale_x * x_bqd + z_bqd

  def look(
    self,
    x_btd: Float[Array, 'b t d'],
    parts_bwjd: Float[Array, 'b w j d'],
    unit_bt: Int[Array, 'b t'],
  ) -> Float[Array, 'b t d']:
    """Each byte looks at the parts of its patch; at nothing if there is none.

    Args:
      x_btd: Bytes.
      parts_bwjd: Patches.
      unit_bt: The patch that each byte sees.
    """
    q_btnh = self.attention.queries(self.q_norm(x_btd))
    own: Any = lambda x: ragged.expand(x, unit_bt)
    # Whichever has fewer rows to project.
    is_late = parts_bwjd.shape[1] > x_btd.shape[1]
    y_bwjd = own(parts_bwjd) if is_late else parts_bwjd
    b, w, j, d = y_bwjd.shape
    kv = self.attention.keys_values(self.k_norm(y_bwjd).reshape(b, w * j, d))
    k, v = (x.reshape(b, w, j, *x.shape[2:]) for x in kv)
    k_btjnh, v_btjnh = (k, v) if is_late else (own(k), own(v))
    score_btnj = jnp.einsum(
      'btnh,btjnh->btnj',
      q_btnh,
      k_btjnh,
      preferred_element_type=jnp.float32,
    )
    weight_btnj = jax.nn.softmax(score_btnj * q_btnh.shape[-1] ** -0.5)
    z_btnh = jnp.einsum(
      'btnj,btjnh->btnh', weight_btnj.astype(v_btjnh.dtype), v_btjnh
    )
    return self.scale_x * x_btd + self.attention.out(z_btnh)

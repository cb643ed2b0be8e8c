# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layer of Mamba-2: convolution, scan, gate.

Dao and Gu 2024, arXiv:2405.21060, section 7, with one group of heads:

  z, u, dt = project(x)        u = silu(conv(u)) = x', b, c
  y = scan(dt x', -dt exp(A_log), b, c) + D x'
  out = project(norm(y silu(z))),   dt = softplus(dt + bias)

Axes: b rows, t positions, d width, e inner width, f width of u (e + 2 m), n
heads, h head width, m state width.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtok.config import configclass
from jaxtok.nn import linear, norms, ssd


@configclass
class Config:
  """Hyper-parameters of `Mamba2`."""

  dim: int = 128  # Width d.
  expand: int = 2  # Inner width over d.
  head_dim: int = 64
  state_dim: int = 64  # m.
  conv: int = 4  # Positions that the convolution sees.
  chunk: int = 64  # Of the scan.
  norm_eps: float = 1e-6
  out_std: float = 0.0  # Of the output projection; 0 means 1/sqrt(inner).
  dtype: str = 'float32'

  def __post_init__(self):
    for name in ('dim', 'expand', 'head_dim', 'state_dim', 'conv', 'chunk'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 1.')
    if self.inner % self.head_dim:
      raise ValueError(
        f'expand * dim = {self.inner} must be a multiple of head_dim='
        f'{self.head_dim}.'
      )

  @property
  def inner(self) -> int:
    return self.expand * self.dim

  @property
  def num_heads(self) -> int:
    return self.inner // self.head_dim

  @property
  def conv_dim(self) -> int:
    """Width of what the convolution sees: inputs, b and c."""
    return self.inner + 2 * self.state_dim

  def flops(self, rows: int) -> float:
    """Matmul FLOPs, forward: projections and the scan, with full chunks."""
    width = self.inner + self.conv_dim + self.num_heads + self.inner
    # Scores and sums inside a chunk; into a state and out of it.
    scan = self.chunk * (self.state_dim + self.inner)
    scan += 2 * self.inner * self.state_dim
    return 2.0 * rows * (self.dim * width + scan)


class Mamba2(nnx.Module):
  """See the module."""

  def __init__(self, config: Config, *, rngs: nnx.Rngs):
    self.config = c = config
    project = lambda i, o, std=0.0: linear.Linear(
      (i,), (o,), axes=('embed', 'mlp'), std=std, dtype=c.dtype, rngs=rngs
    )
    uniform = lambda n, low, high: jax.random.uniform(
      rngs.params(), (n,), minval=low, maxval=high
    )
    self.z = project(c.dim, c.inner)
    self.u = project(c.dim, c.conv_dim)
    self.dt = project(c.dim, c.num_heads)
    kernel = jax.random.normal(rngs.params(), (c.conv, c.conv_dim))
    self.conv_kernel = nnx.Param(
      kernel / math.sqrt(c.conv), axes=('position', 'mlp')
    )
    self.conv_bias = nnx.Param(jnp.zeros(c.conv_dim), axes=('mlp',))
    # Step sizes from 0.001 to 0.1, evenly in their logarithms.
    step = jnp.exp(uniform(c.num_heads, math.log(1e-3), math.log(1e-1)))
    self.dt_bias = nnx.Param(step + jnp.log(-jnp.expm1(-step)), axes=('heads',))
    decay = uniform(c.num_heads, 1.0, 16.0)
    self.log_a = nnx.Param(jnp.log(decay), axes=('heads',))
    self.skip = nnx.Param(jnp.ones(c.num_heads), axes=('heads',))
    self.norm = norms.Norm(c.inner, eps=c.norm_eps, axis='mlp')
    self.out = project(c.inner, c.dim, c.out_std)

  def inputs(
    self, x_btd: Float[Array, 'b t d']
  ) -> tuple[Float[Array, 'b t f'], Float[Array, 'b t n']]:
    """What a position gives to itself and later ones: u and dt."""
    return self.u(x_btd), self.dt(x_btd, jnp.float32)

  def mix(
    self,
    u_btf: Float[Array, 'b t f'],
    dt_btn: Float[Array, 'b t n'],
    segment_ids_bt: Int[Array, 'b t'],
  ) -> Float[Array, 'b t e']:
    """Convolution and scan over all positions, float32."""
    c = self.config
    u_btf = jax.nn.silu(
      self._convolve(u_btf.astype(jnp.float32), segment_ids_bt)
    )
    x_bte, b_btm, c_btm = jnp.split(
      u_btf, [c.inner, c.inner + c.state_dim], axis=-1
    )
    x_btnh = x_bte.reshape(*x_bte.shape[:2], c.num_heads, c.head_dim)
    dt_btn = jax.nn.softplus(dt_btn.astype(jnp.float32) + self.dt_bias[...])
    y_btnh = ssd.scan(
      x_btnh * dt_btn[..., None],
      -dt_btn * jnp.exp(self.log_a[...]),
      b_btm,
      c_btm,
      segment_ids_bt,
      chunk=c.chunk,
    )
    y_btnh = y_btnh + self.skip[...][:, None] * x_btnh
    return y_btnh.reshape(x_bte.shape)

  def finish(
    self, x_btd: Float[Array, 'b t d'], y_bte: Float[Array, 'b t e']
  ) -> Float[Array, 'b t d']:
    """Gate, norm and output of positions."""
    z_bte = jax.nn.silu(self.z(x_btd, jnp.float32))
    return self.out(self.norm(y_bte * z_bte))

  def __call__(
    self, x_btd: Float[Array, 'b t d'], segment_ids_bt: Int[Array, 'b t']
  ) -> Float[Array, 'b t d']:
    """The layer over whole rows; documents do not see each other."""
    y_bte = self.mix(*self.inputs(x_btd), segment_ids_bt)
    return self.finish(x_btd, y_bte)

  def _convolve(self, u_btf, segment_ids_bt) -> Any:
    """Each channel by itself, over this position and those before it."""
    t, kernel_kf = u_btf.shape[1], self.conv_kernel[...]
    y_btf = self.conv_bias[...] + kernel_kf[-1] * u_btf
    for back in range(1, self.config.conv):
      move = lambda x, back=back: jnp.pad(
        x, ((0, 0), (back, 0)) + ((0, 0),) * (x.ndim - 2)
      )[:, :t]
      # What stands in front of the row is zero anyway.
      is_own_bt = move(segment_ids_bt) == segment_ids_bt
      past_btf = jnp.where(is_own_bt[..., None], move(u_btf), 0.0)
      y_btf = y_btf + kernel_kf[-1 - back] * past_btf
    return y_btf

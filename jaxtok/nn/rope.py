# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rotary positions: Su et al. 2021, arXiv:2104.09864, in half-split form.

Dimension i of a head is paired with i + h/2 (as Llama and Qwen do, not with
i + 1 as in the paper); pair i turns by `position * theta**(-2i/h)`. Positions
are always explicit, and angles are float32: in bfloat16 positions beyond 256
would collide.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxtok.config import configclass

SCALINGS = ('none', 'linear', 'llama3')


@configclass
class Config:
  """Frequencies of the rotation."""

  theta: float = 10_000.0
  fraction: float = 1.0  # Part of the head that turns; the rest is untouched.
  scaling: str = 'none'  # 'linear' and 'llama3' stretch a trained context.
  factor: float = 1.0  # How many times longer the context becomes.
  # 'llama3' only: wavelengths below original/high are kept, above original/low
  # divided by `factor`, between them interpolated.
  low_frequency_factor: float = 1.0
  high_frequency_factor: float = 4.0
  original_max_len: int = 8192

  def __post_init__(self):
    if self.scaling not in SCALINGS:
      raise ValueError(f'rope scaling={self.scaling!r} must be in {SCALINGS}.')
    if self.theta <= 0 or self.factor <= 0:
      raise ValueError(
        f'rope theta={self.theta} and factor={self.factor} must be > 0.'
      )
    if not 0 < self.fraction <= 1:
      raise ValueError(f'rope fraction={self.fraction} must be in (0, 1].')
    if self.high_frequency_factor <= self.low_frequency_factor:
      raise ValueError(
        f'rope high_frequency_factor={self.high_frequency_factor} must exceed '
        f'low_frequency_factor={self.low_frequency_factor}.'
      )


def frequencies(head_dim: int, config: Config) -> np.ndarray:
  """Radians per position of each pair, float64 [turning dimensions / 2].

  Raises:
    ValueError: If the turning part of the head is not even.
  """
  turning = int(head_dim * config.fraction)
  if turning % 2 or turning == 0:
    raise ValueError(
      f'RoPE turns {turning} of head_dim={head_dim} dimensions (fraction='
      f'{config.fraction}); that must be an even number > 0.'
    )
  freq = config.theta ** (-np.arange(0, turning, 2) / turning)
  if config.scaling == 'linear':
    return freq / config.factor
  if config.scaling == 'llama3':
    low, high = config.low_frequency_factor, config.high_frequency_factor
    turns = config.original_max_len * freq / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * freq + (1 - keep) * freq / config.factor
  return freq


def rotation(
  positions_bt: Int[Array, 'b t'], head_dim: int, config: Config
) -> tuple[Float[Array, 'b t r'], Float[Array, 'b t r']]:
  """Cosine and sine of each pair's angle, float32."""
  freq_r = jnp.asarray(frequencies(head_dim, config), jnp.float32)
  angle_btr = positions_bt[..., None].astype(jnp.float32) * freq_r
  return jnp.cos(angle_btr), jnp.sin(angle_btr)


def rotate(
  x_btnh: Num[Array, 'b t n h'],
  rotation_btr: tuple[Float[Array, '#b t r'], Float[Array, '#b t r']],
) -> Num[Array, 'b t n h']:
  """Turns the pairs of each head; dimensions beyond 2r pass through.

  Turning by `rotation(p2 - p1)` after `rotation(p1)` equals `rotation(p2)`, so
  cached keys can be moved.
  """
  cos_btnr, sin_btnr = (r[:, :, None, :] for r in rotation_btr)
  r = cos_btnr.shape[-1]
  x = x_btnh.astype(jnp.float32)
  a_btnr, z_btnr = x[..., :r], x[..., r : 2 * r]
  turned = [
    a_btnr * cos_btnr - z_btnr * sin_btnr,
    z_btnr * cos_btnr + a_btnr * sin_btnr,
  ]
  y = jnp.concatenate([*turned, x[..., 2 * r :]], axis=-1)
  return y.astype(x_btnh.dtype)

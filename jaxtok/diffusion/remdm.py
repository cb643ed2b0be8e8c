# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""ReMDM: revealed tokens may be masked again, so that errors are repaired.

Wang et al. 2025, arXiv:2503.00307. In a step from alpha_t to alpha_s a revealed
position is masked with probability sigma, and a masked one revealed with
probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), so that the share
of masked positions is that of the schedule for any

  0 <= sigma <= sigma_max = min(1, (1 - alpha_s) / alpha_t).

The rules of the paper are given to `ancestral.decode(remask=...)`. Their
numbers are leaves of a pytree. Axes: b rows, t positions.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _rule(cls):
  cls = dataclasses.dataclass(frozen=True)(cls)
  names = [f.name for f in dataclasses.fields(cls)]
  return jax.tree_util.register_dataclass(cls, names, [])


def sigma_max(
  alpha_t: Float[Array, ''], alpha_s: Float[Array, '']
) -> Float[Array, '']:
  """Largest remasking probability; 1 where nothing is revealed yet."""
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.minimum(1.0, (1 - alpha_s) / jnp.maximum(alpha_t, tiny))


def _everywhere(canvas, sigma):
  return jnp.broadcast_to(sigma, canvas.tokens_bt.shape)


@_rule
class Cap:
  """`min(eta, sigma_max)`; the paper's eta is 0.008 at 1024 steps."""

  eta: Any

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    sigma = jnp.minimum(self.eta, sigma_max(alpha_t, alpha_s))
    return _everywhere(canvas, sigma)


@_rule
class Rescale:
  """`eta sigma_max`; the paper's eta is 0.015 at 1024 steps."""

  eta: Any

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    return _everywhere(canvas, self.eta * sigma_max(alpha_t, alpha_s))


@_rule
class Confidence:
  """`eta sigma_max softmax(-psi)` over the revealed positions of the row.

  psi is the probability that the token had when it was revealed. Choosing by it
  prefers to drop unlikely tokens, so even with an exact denoiser the samples
  are not those of the data; the other rules keep the distribution. The paper's
  eta is 1.
  """

  eta: Any = 1.0

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    is_open_bt = is_free_bt & ~canvas.is_masked_bt
    score_bt = jnp.where(is_open_bt, -canvas.psi_bt, -jnp.inf)
    # A row without revealed positions has only -inf, whose softmax is nan.
    score_bt = jnp.where(is_open_bt.any(-1, keepdims=True), score_bt, 0.0)
    share_bt = jnp.where(is_open_bt, jax.nn.softmax(score_bt, axis=-1), 0.0)
    return self.eta * sigma_max(alpha_t, alpha_s) * share_bt


@_rule
class Loop:
  """`min(eta, sigma_max)` while alpha stands still; see `loop_alphas`."""

  eta: Any

  def __call__(self, canvas, is_free_bt, alpha_t, alpha_s):
    sigma = jnp.minimum(self.eta, sigma_max(alpha_t, alpha_s))
    return _everywhere(canvas, jnp.where(alpha_t == alpha_s, sigma, 0.0))


def loop_alphas(
  num_steps: int,
  *,
  alpha_on: float = 0.9,
  t_on: float = 0.55,
  t_off: float = 0.05,
) -> Float[Array, 'n']:
  """Alphas that rise linearly to `alpha_on`, stand still, and rise to 1.

  Args:
    num_steps: Static; there is one alpha more.
    alpha_on: Where alpha stands still.
    t_on: Time, from 1 down to 0, at which it begins to.
    t_off: Time at which it ends.

  Raises:
    ValueError: If the numbers are out of order.
  """
  if not (0 < alpha_on < 1 and 0 < t_off < t_on < 1):
    raise ValueError(
      f'alpha_on={alpha_on} must be in (0, 1), and 0 < t_off={t_off} < '
      f't_on={t_on} < 1.'
    )
  t = 1 - jnp.arange(num_steps + 1) / num_steps
  rise = alpha_on * (1 - t) / (1 - t_on)
  end = 1 - (1 - alpha_on) * t / t_off
  return jnp.where(t > t_on, rise, jnp.where(t > t_off, alpha_on, end))

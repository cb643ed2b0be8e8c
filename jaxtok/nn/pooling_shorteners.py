# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shorteners that make one position of several; see `nn.shorteners`.

  Boundaries   a learned predictor of units, mean-pooled: Nawrot et al. 2023,
               arXiv:2211.09761, section 3
  Convolution  one position of every `rate`: Clark et al. 2022 (CANINE),
               arXiv:2103.06874, section 3.2

MrT5's paper (arXiv:2410.20771, section 5) compares with both as BP and CP. In
which position's place a unit goes on, for the relative position bias, is our
choice: the last of `Boundaries`, the first of `Convolution`.

Axes: b rows, s positions of the encoder, d width, w groups, r rate.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.nn import linear, ragged, segmenters, shorteners


@configclass
class Boundaries:
  """Hyper-parameters of `BoundaryPredictor`; defaults are Nawrot et al.'s."""

  hidden: int = 0  # Width of the predictor; 0 means dim.
  bias: float = -1.0  # Initial, of the logit: few boundaries at first.
  temperature: float = 0.5  # Of the relaxed Bernoulli draws.
  prior: float = 0.2  # Share of positions that should end a unit.
  weight: float = 1.0  # Of the prior's loss.

  def __post_init__(self):
    if not 0 < self.prior < 1:
      raise ValueError(f'prior={self.prior} must be in (0, 1).')
    if self.temperature <= 0 or self.weight < 0:
      raise ValueError(
        f'temperature={self.temperature} must be > 0, weight={self.weight} >= '
        '0.'
      )

  def make(self, dim: int, rngs: nnx.Rngs) -> 'BoundaryPredictor':
    return BoundaryPredictor(self, dim, rngs=rngs)


class BoundaryPredictor(nnx.Module):
  """Draws where units end and pools each into its mean.

  Gradients reach the predictor through the draw (straight through) and the
  weights of the mean. It draws in evaluation too, as the published code does,
  but always the same numbers. A document ends a unit. The loss is `-log
  Binomial(n, prior)(number of ends) / n` of each row, averaged.
  """

  is_soft = False

  def __init__(self, config: Boundaries, dim: int, *, rngs: nnx.Rngs):
    self.config = config
    hidden = config.hidden or dim
    self.up = linear.Linear(
      (dim,), (hidden,), axes=('embed', 'mlp'), use_bias=True, rngs=rngs
    )
    self.down = linear.Linear(
      (hidden,), (1,), axes=('mlp', 'gate'), use_bias=True, rngs=rngs
    )
    self.down.bias[...] += config.bias

  def __call__(
    self, x_bsd, *, tokens_bs, segment_ids_bs, rng
  ) -> shorteners.Shortened:
    """See `shorteners.Shortener`."""
    del tokens_bs
    valid_bs, s = segment_ids_bs != 0, x_bsd.shape[1]
    y_bsd = jax.nn.gelu(self.up(x_bsd.astype(jnp.float32)))
    end_bs = self._draw(self.down(y_bsd)[..., 0], segment_ids_bs, rng)
    before_bs = jnp.cumsum(end_bs, axis=1) - end_bs
    unit_bs = jnp.where(valid_bs, before_bs.astype(jnp.int32), -1)
    # 1, with the gradient of one more position for each end before.
    weight_bs1 = _straight(jnp.ones_like(before_bs), before_bs)[..., None]
    pool = lambda x: ragged.segment_pool(x, unit_bs, s, 'sum').values_bwd
    total_bwd = pool(x_bsd.astype(jnp.float32) * weight_bs1)
    num_bw1 = pool(weight_bs1)
    mean_bwd = total_bwd / jnp.maximum(num_bw1, 1e-9)
    keep_bs = (end_bs > 0.5) & valid_bs
    return shorteners.Shortened(
      ragged.expand(mean_bwd.astype(x_bsd.dtype), unit_bs),
      keep_bs,
      None,
      self.config.weight * self._prior_loss(end_bs, valid_bs),
      {'deleted': shorteners.lost(keep_bs, segment_ids_bs)},
    )

  def _draw(self, logit_bs, segment_ids_bs, rng) -> Float[Array, 'b s']:
    """Exactly 1 where a unit ends, else 0; the gradient of a relaxed draw."""
    rng = jax.random.key(0) if rng is None else rng
    noise_bs = jax.random.logistic(rng, logit_bs.shape)
    soft_bs = jax.nn.sigmoid((logit_bs + noise_bs) / self.config.temperature)
    end_bs = _straight((soft_bs > 0.5).astype(jnp.float32), soft_bs)
    after_bs = jnp.pad(segment_ids_bs, ((0, 0), (0, 1)))[:, 1:]
    end_bs = jnp.where(segment_ids_bs != after_bs, 1.0, end_bs)
    return jnp.where(segment_ids_bs == 0, 0.0, end_bs)

  def _prior_loss(
    self, end_bs: Float[Array, 'b s'], valid_bs: Bool[Array, 'b s']
  ) -> Float[Array, '']:
    p, k_b = self.config.prior, end_bs.sum(axis=1)
    n_b = valid_bs.sum(axis=1).astype(jnp.float32)
    log_ways_b = gammaln(n_b + 1) - gammaln(k_b + 1) - gammaln(n_b - k_b + 1)
    log_prob_b = log_ways_b + k_b * jnp.log(p) + (n_b - k_b) * jnp.log1p(-p)
    is_row_b = n_b > 0
    loss_b = jnp.where(is_row_b, -log_prob_b / jnp.maximum(n_b, 1.0), 0.0)
    return loss_b.sum() / jnp.maximum(is_row_b.sum(), 1)

  def flops(self, rows: int) -> float:
    """See `shorteners.Shortener`."""
    dim, hidden = self.up.kernel.shape
    return 2.0 * rows * hidden * (dim + 1)


def _straight(
  hard: Float[Array, '...'], soft: Float[Array, '...']
) -> Float[Array, '...']:
  """The value of `hard` with the gradient of `soft`."""
  return hard + (soft - jax.lax.stop_gradient(soft))


@configclass
class Convolution:
  """Hyper-parameters of `StridedConvolution`."""

  rate: int = 4  # Positions that become one.

  def __post_init__(self):
    if self.rate < 1:
      raise ValueError(f'rate={self.rate} must be >= 1.')

  def make(self, dim: int, rngs: nnx.Rngs) -> 'StridedConvolution':
    return StridedConvolution(self, dim, rngs=rngs)


class StridedConvolution(nnx.Module):
  """A linear map of `rate` states at a time, counted from a document's first.

  A row of several documents may have more groups than one in every `rate`
  positions; then the map is computed at all positions.
  """

  is_soft = False

  def __init__(self, config: Convolution, dim: int, *, rngs: nnx.Rngs):
    self.config = config
    self.mix = linear.Linear(
      (config.rate, dim),
      (dim,),
      axes=('length', 'embed', 'mlp'),
      use_bias=True,
      rngs=rngs,
    )

  def __call__(
    self, x_bsd, *, tokens_bs, segment_ids_bs, rng
  ) -> shorteners.Shortened:
    """See `shorteners.Shortener`."""
    del tokens_bs, rng
    rate, s = self.config.rate, x_bsd.shape[1]
    start_bs = segmenters.limit(
      segmenters.first(segment_ids_bs, segment_ids_bs), rate
    )
    start_bs = start_bs & (segment_ids_bs != 0)
    mixed_bsd = ragged.dispatch(
      functools.partial(self._mix, x_bsd, segment_ids_bs, start_bs),
      sorted({-(-s // rate), s}),
      start_bs.sum(axis=1),
    )
    return shorteners.Shortened(
      mixed_bsd,
      start_bs,
      None,
      jnp.zeros(()),
      {'deleted': shorteners.lost(start_bs, segment_ids_bs)},
    )

  def _mix(
    self,
    x_bsd: Float[Array, 'b s d'],
    segment_ids_bs: Int[Array, 'b s'],
    start_bs: Bool[Array, 'b s'],
    room: int,
  ) -> Float[Array, 'b s d']:
    """The mixed state of each group where it starts, 0 elsewhere.

    Groups beyond `room` in a row would be lost.
    """
    rate, (b, _, d) = self.config.rate, x_bsd.shape
    kept = ragged.compact(segment_ids_bs, start_bs, room)
    index_bwr = kept.index_bw[..., None] + jnp.arange(rate)
    index_bx = index_bwr.reshape(b, -1)
    of_group_bwr = ragged.gather(segment_ids_bs, index_bx).reshape(
      index_bwr.shape
    )
    is_own_bwr = (of_group_bwr == kept.values_bwd[..., None]) & (
      kept.valid_bw[..., None]
    )
    group_bwrd = ragged.gather(x_bsd, index_bx).reshape(*index_bwr.shape, d)
    mixed_bwd = self.mix(jnp.where(is_own_bwr[..., None], group_bwrd, 0))
    return ragged.scatter_add(
      jnp.zeros_like(x_bsd), kept.index_bw, mixed_bwd.astype(x_bsd.dtype)
    )

  def flops(self, rows: int) -> float:
    """See `shorteners.Shortener`."""
    rate, dim, _ = self.mix.kernel.shape
    return 2.0 * -(-rows // rate) * rate * dim * dim

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How an encoder loses positions between two of its blocks.

A shortener sees the residual stream and says which positions go on. Those that
delete leave the states alone; those that pool put the state of a unit at one of
its positions, the only one that goes on. Two ways to lose a position:

  softly  it stays, with a negative bias in each attention to it (training)
  hard    it is gone (`ragged.compact`)

Pooling knows only the second. This module has the deletion gate of MrT5
(Kallini et al. 2025, arXiv:2410.20771, section 3.1) and the two deletion rules
that its paper compares with; `nn.pooling_shorteners` the two that pool.

Axes: b rows, s positions of the encoder, d width.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.nn import norms, ragged, rate_control, segmenters
from jaxtok.objectives.base import Mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shortened:
  """What a shortener says.

  Attributes:
    x_bsd: States; where a unit was pooled, the unit's at its position.
    keep_bs: Which positions go on; none of padding.
    bias_bs: What is added to the scores of each key if positions are lost
      softly; None if that is not possible.
    penalty: Added to the loss of each target, nats; a scalar.
    metrics: Name to `Mean` of arrays [b], reported.
  """

  x_bsd: Any
  keep_bs: Any
  bias_bs: Any
  penalty: Any
  metrics: dict[str, Any]


class Shortener(Protocol):
  """Protocol; a module. Its config has `make(dim, rngs)`.

  Attributes:
    is_soft: Whether positions can be lost softly; static.
  """

  is_soft: bool

  def __call__(
    self,
    x_bsd: Float[Array, 'b s d'],
    *,
    tokens_bs: Int[Array, 'b s'],
    segment_ids_bs: Int[Array, 'b s'],
    rng: Array | None,
  ) -> Shortened:
    """Decides.

    Args:
      x_bsd: Residual stream.
      tokens_bs: What the encoder reads.
      segment_ids_bs: Documents, contiguous; 0 is padding.
      rng: Given in training.
    """
    ...

  def flops(self, rows: int) -> float:
    """Matmul FLOPs of a forward pass over `rows` positions."""
    ...

  # One with a controller also has `advance(metrics)`; see `models.base`.


def lost(
  keep_bs: Bool[Array, 'b s'], segment_ids_bs: Int[Array, 'b s']
) -> Mean:
  """Share of the positions, padding not counted, that do not go on."""
  valid_bs = segment_ids_bs != 0
  count = lambda x: x.sum(axis=1).astype(jnp.float32)
  return Mean(count(valid_bs & ~keep_bs), count(valid_bs))


@configclass
class Gate:
  """Hyper-parameters of `DeleteGate`; defaults are the paper's."""

  lowest: float = -30.0  # The gate's value k of a position that is deleted.
  bias: float = 1.0  # Initial; > 0 keeps most positions at first.
  gumbel: bool = False  # Gumbel noise on the gate's logits in training.
  norm_eps: float = 1e-6
  # Steers the share of deleted positions by the weight of the mean gate.
  rate: rate_control.PI = dataclasses.field(default_factory=rate_control.PI)

  def __post_init__(self):
    if self.lowest >= 0:
      raise ValueError(
        f'lowest={self.lowest} must be < 0: it is added to scores of positions '
        'that are deleted.'
      )

  def make(self, dim: int, rngs: nnx.Rngs) -> 'DeleteGate':
    return DeleteGate(self, dim, rngs=rngs)


class DeleteGate(nnx.Module):
  """`G = k sigmoid(-(RMSNorm(x) w + b))`, from k (delete) to 0 (keep).

  A position goes on if G > k/2. The penalty is the mean of G times the
  coefficient of a PI controller, which raises the share that is deleted.
  """

  is_soft = True

  def __init__(self, config: Gate, dim: int, *, rngs: nnx.Rngs):
    self.config = config
    self.norm = norms.Norm(dim, eps=config.norm_eps)
    limit = math.sqrt(6 / (dim + 1))  # Xavier-uniform.
    shape = (dim, 1)
    self.kernel = nnx.Param(
      jax.random.uniform(rngs.params(), shape, minval=-limit, maxval=limit),
      axes=('embed', 'gate'),
    )
    self.bias = nnx.Param(jnp.full(1, config.bias), axes=('gate',))
    self.rate = config.rate.make()

  def __call__(self, x_bsd, *, tokens_bs, segment_ids_bs, rng) -> Shortened:
    """See `Shortener`."""
    del tokens_bs
    c, valid_bs = self.config, segment_ids_bs != 0
    y_bsd = self.norm(x_bsd.astype(jnp.float32))
    logit_bs = (y_bsd @ self.kernel[...])[..., 0] + self.bias[...]
    if c.gumbel and rng is not None:
      logit_bs += jax.random.gumbel(rng, logit_bs.shape)
    gate_bs = c.lowest * jax.nn.sigmoid(-logit_bs)
    gate_bs = jnp.where(valid_bs, gate_bs, c.lowest)
    keep_bs = gate_bs > c.lowest / 2
    total_b = jnp.where(valid_bs, gate_bs, 0.0).sum(axis=1)
    num_b = valid_bs.sum(axis=1).astype(jnp.float32)
    coef = self.rate.coef()
    ones_b = jnp.ones_like(num_b)
    return Shortened(
      x_bsd,
      keep_bs,
      gate_bs,
      coef * total_b.sum() / jnp.maximum(num_b.sum(), 1.0),
      {
        'deleted': lost(keep_bs, segment_ids_bs),
        'gate': Mean(total_b, num_b),
        'gate_weight': Mean(coef * ones_b, ones_b),
      },
    )

  def advance(self, metrics: dict[str, Mean]) -> None:
    """Lets the controller see what a training step deleted."""
    self.rate.update(metrics['deleted'].value)

  def flops(self, rows: int) -> float:
    """See `Shortener`."""
    return 2.0 * rows * self.kernel.shape[0]


def _deletion(x_bsd, keep_bs, segment_ids_bs, lowest: float) -> Shortened:
  """Deletes what is not kept, softly by `lowest`; nothing is learned."""
  keep_bs = keep_bs & (segment_ids_bs != 0)
  return Shortened(
    x_bsd,
    keep_bs,
    jnp.where(keep_bs, 0.0, lowest),
    jnp.zeros(()),
    {'deleted': lost(keep_bs, segment_ids_bs)},
  )


@configclass
class Random:
  """Deletes a random share of the positions.

  The share is drawn from N(mean, std**2) for each batch in training. Without
  an rng it is the mean, and the positions are always the same ones.
  """

  mean: float = 0.5
  std: float = 0.05
  lowest: float = -30.0

  def __post_init__(self):
    if not 0 <= self.mean <= 1 or self.std < 0:
      raise ValueError(
        f'mean={self.mean} must be in [0, 1] and std={self.std} >= 0.'
      )

  def make(self, dim: int, rngs: nnx.Rngs) -> 'RandomDeletion':
    del dim, rngs
    return RandomDeletion(self)


class RandomDeletion(nnx.Module):
  """See `Random`."""

  is_soft = True

  def __init__(self, config: Random):
    self.config = config

  def __call__(self, x_bsd, *, tokens_bs, segment_ids_bs, rng) -> Shortened:
    """See `Shortener`."""
    c, valid_bs = self.config, segment_ids_bs != 0
    share = jnp.float32(c.mean)
    keys = jax.random.split(jax.random.key(0) if rng is None else rng)
    if rng is not None:
      share = jnp.clip(share + c.std * jax.random.normal(keys[0]), 0.0, 1.0)
    draw_bs = jax.random.uniform(keys[1], tokens_bs.shape)
    order_bs = jnp.argsort(jnp.where(valid_bs, draw_bs, 2.0), axis=1)
    rank_bs = jnp.argsort(order_bs, axis=1)
    num_b1 = jnp.round(share * valid_bs.sum(axis=1, keepdims=True))
    return _deletion(x_bsd, rank_bs >= num_b1, segment_ids_bs, c.lowest)

  def flops(self, rows: int) -> float:
    """See `Shortener`."""
    del rows
    return 0.0


@configclass
class Fixed:
  """Deletes the end of each word: of its n bytes the first stay.

  These are `ceil((1 - share) n)`. Words are counted in each row (the published
  code cuts the whole batch at once, and gives all rows the same words).
  """

  share: float = 0.5
  segmenter: Any = dataclasses.field(
    default_factory=lambda: segmenters.Whitespace(offset=3)
  )
  lowest: float = -30.0

  def __post_init__(self):
    if not 0 <= self.share <= 1:
      raise ValueError(f'share={self.share} must be in [0, 1].')

  def make(self, dim: int, rngs: nnx.Rngs) -> 'FixedDeletion':
    del dim, rngs
    return FixedDeletion(self)


class FixedDeletion(nnx.Module):
  """See `Fixed`."""

  is_soft = True

  def __init__(self, config: Fixed):
    self.config = config

  def __call__(self, x_bsd, *, tokens_bs, segment_ids_bs, rng) -> Shortened:
    """See `Shortener`."""
    del rng
    c, s = self.config, tokens_bs.shape[1]
    start_bs = c.segmenter(tokens_bs, segment_ids_bs)
    unit_bs = ragged.segment_ids(start_bs)
    unit_bs = jnp.where(segment_ids_bs != 0, unit_bs, -1)
    ones_bs1 = jnp.ones((*tokens_bs.shape, 1))
    sizes_bw1 = ragged.segment_pool(ones_bs1, unit_bs, s, 'sum').values_bwd
    size_bs = ragged.expand(sizes_bw1, unit_bs)[..., 0]
    # A little less than the product: in float32 it may exceed a whole number.
    num_bs = jnp.ceil((1 - c.share) * size_bs - 1e-4)
    keep_bs = segmenters.place_in_unit(start_bs) < num_bs
    return _deletion(x_bsd, keep_bs, segment_ids_bs, c.lowest)

  def flops(self, rows: int) -> float:
    """See `Shortener`."""
    del rows
    return 0.0

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""BD3-LM: autoregressive over blocks, masked diffusion inside a block.

Arriola et al. 2025, arXiv:2503.09573:

  -log p(x) <= sum over blocks b of the bound of x^b given the clean x^(<b).

Blocks of one token make an autoregressive model, one block makes MDLM. All
blocks are scored in one call: the model reads a noisy and a clean copy of the
row, side by side and at the same positions; a noisy token sees its own block of
the noisy copy and the blocks before it of the clean one, a clean token the
clean copy up to the end of its block.

In training each block has a time of its own, uniform on [`low`, `high`]; a
narrower range than [0, 1] has less variance but its loss is no bound (the
paper's clipped schedules). With `search_every` the range is chosen anew while
the model learns: the one of a grid whose loss varies least over the rows of the
whole batch of one step, in use from the next step on. It is state of the
training, so the model must be a `Model`. Evaluation uses the
any-order bound inside blocks, see `any_order`: the same in expectation for a
denoiser that ignores time, and for blocks of one token exactly the negative
log-likelihood. Blocks count from the first token of a document.

Sample with `block_cache.decode(kind='exact')` and `block_mask`; `ending` gives
texts of any length.

Differs from the paper: the variance that chooses a range is that of the rows of
a training batch, not of validation.

Axes: b rows, t positions of one copy, v vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.diffusion import losses
from jaxtok.models import base as models
from jaxtok.nn import block_masks, masks
from jaxtok.objectives import base, cross_entropy


@configclass
class Config:
  """Hyper-parameters of the block diffusion objective."""

  mask_id: int = -1  # Id of the mask token; see `losses.check_mask_id`.
  block: int = 16  # Tokens of a block.
  low: float = 0.0  # Times of training are uniform between low
  high: float = 1.0  # and high. If low > 0.5 all tokens weigh 1, not 1/t.
  search_every: int = 0  # Steps until low and high are chosen anew; 0: never.
  search_widths: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)  # high - low.
  search_delta: float = 0.05  # Between the values of low that are tried.
  t_min: float = 1e-3  # Largest weight is 1 / t_min.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    losses.check_samples(self.eval_samples)
    block_mask(self.block)
    if self.search_every < 0:
      raise ValueError(f'search_every={self.search_every} must be >= 0 steps.')
    if not self.search_widths or not all(
      0 < w <= 1 for w in self.search_widths
    ):
      raise ValueError(
        f'search_widths={self.search_widths} must be in (0, 1], at least one.'
      )
    if not 0 < self.search_delta <= 1:
      raise ValueError(f'search_delta={self.search_delta} must be in (0, 1].')
    if not 0 < self.t_min < 1:
      raise ValueError(f't_min={self.t_min} must be in (0, 1). Try 1e-3.')
    if not 0 <= self.low < self.high <= 1:
      raise ValueError(
        f'low={self.low} and high={self.high} must be 0 <= low < high <= 1.'
      )

  def ranges(self) -> list[tuple[float, float]]:
    """The grid of `search_every`: pairs (low, high)."""
    found = []
    for width in self.search_widths:
      num = int((1 - width) / self.search_delta + 1e-6) + 1
      found += [(i * self.search_delta, width) for i in range(num)]
    return [(low, min(low + width, 1.0)) for low, width in found]

  def make(self) -> 'BlockDiffusion':
    losses.check_mask_id(self.mask_id)
    return BlockDiffusion(self)


@configclass
class Model:
  """A model with room for the range of times that its training has chosen.

  Its parameters are those of the inner model, under the same names.
  """

  inner: Any = None  # Config of a model without a causal mask.

  @property
  def vocab_size(self) -> int:
    """That of the inner model."""
    return self.inner.vocab_size

  def make(self, rngs: nnx.Rngs) -> nnx.Module:
    """The inner model with a `TimeRange` as `time_range`."""
    model = self.inner.make(rngs)
    model.time_range = TimeRange()
    return model


class RangeState(nnx.Variable):
  """State of a `TimeRange`: scalars, which no optimizer changes."""


class TimeRange(nnx.Module):
  """The range of times in use, float32, and how many steps were done, int32.

  Before the first choice the objective's own `low` and `high` are in use.
  """

  def __init__(self):
    self.low = RangeState(jnp.zeros(()))
    self.high = RangeState(jnp.ones(()))
    self.steps = RangeState(jnp.zeros((), jnp.int32))


def block_mask(block: int) -> block_masks.BlockCausal:
  """What a model trained with this objective sees when it samples."""
  return block_masks.BlockCausal(block)


class BlockDiffusion(losses.Weighted):
  """The objective; with a clipped schedule it reports no bound in training."""

  def __init__(self, config: Config):
    self.config = config
    super().__init__(
      lambda batch, rng: corrupt(batch, rng, config),
      mask_id=config.mask_id,
      eval_samples=config.eval_samples,
      score=lambda *args: scores(*args, block=config.block),
      eval_corrupt=lambda batch, rng: corrupt_exactly(batch, rng, config.block),
    )

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    config = self.config
    if not config.search_every:
      loss = super().__call__(model, batch, rng)
      is_whole = (config.low, config.high) == (0.0, 1.0)
      return loss if is_whole else _without_bounds(loss, {})
    times = self._range(model)
    clipped = losses.Weighted(
      lambda batch, rng: corrupt(batch, rng, config, times),
      mask_id=config.mask_id,
      score=self._score,
    )
    loss, one = clipped(model, batch, rng), jnp.ones(())
    used = {'low': base.Mean(times[0], one), 'high': base.Mean(times[1], one)}
    return _without_bounds(loss, used | self._tried(model, batch, rng))

  def _range(self, model):
    """The range in use."""
    config = self.config
    if not hasattr(model, 'time_range'):
      raise ValueError(
        f'search_every={config.search_every} needs a model that can store the '
        'range. Set model=bd3lm.Model(inner=...).'
      )
    state = model.time_range
    is_new = state.steps[...] < config.search_every
    return (
      jnp.where(is_new, config.low, state.low[...]),
      jnp.where(is_new, config.high, state.high[...]),
    )

  def _is_due(self, model):
    """Whether a range is chosen at the end of this step."""
    return (model.time_range.steps[...] + 1) % self.config.search_every == 0

  def _tried(self, model, batch, rng):
    """What `advance` chooses by: sums over rows for each range of the grid."""
    config, ranges = self.config, self.config.ranges()

    def search():
      loss_nb = row_losses(model, batch, rng, config, ranges)
      loss_nb = jax.lax.stop_gradient(loss_nb)
      return loss_nb.sum(1), (loss_nb**2).sum(1)

    none = lambda: (jnp.zeros(len(ranges)), jnp.zeros(len(ranges)))
    sums = jax.lax.cond(self._is_due(model), search, none)
    num = jnp.float32(batch['targets_bt'].shape[0])
    return {
      '_loss': base.Mean(sums[0], num),
      '_square': base.Mean(sums[1], num),
    }

  def advance(self, model: Any, metrics: dict[str, base.Mean]) -> None:
    """See `objectives.base.Objective`."""
    if not self.config.search_every:
      return
    state, is_due = model.time_range, self._is_due(model)
    variance_n = metrics['_square'].value - metrics['_loss'].value ** 2
    ranges = jnp.asarray(self.config.ranges(), jnp.float32)
    low, high = ranges[jnp.argmin(variance_n)]
    state.low[...] = jnp.where(is_due, low, state.low[...])
    state.high[...] = jnp.where(is_due, high, state.high[...])
    state.steps[...] = state.steps[...] + 1

  def flops(self, model: Any, shape: models.Shape) -> dict[str, float]:
    """Forward FLOPs: two copies, of which one has logits, and the search."""
    parts = model.flops(models.Shape(b=shape.b, t=2 * shape.t))
    parts = parts | {'head': parts.get('head', 0.0) / 2}
    config = self.config
    if not config.search_every:
      return parts
    passes = len(config.ranges()) / config.search_every
    return parts | {'search': passes * sum(parts.values())}


def _without_bounds(loss: base.Loss, more: dict[str, base.Mean]) -> base.Loss:
  kept = {k: v for k, v in loss.metrics.items() if 'bound' not in k}
  return base.Loss(loss.sum_nats, loss.weight, kept | more)


def blocks(
  segment_ids_bt: Int[Array, 'b t'], block: int
) -> tuple[Int[Array, 'b t'], ...]:
  """Of each token: first index of document and block, ends of both."""
  t = segment_ids_bt.shape[1]
  layout = masks.Layout(
    t, t, q_segments_bt=segment_ids_bt, kv_segments_bs=segment_ids_bt
  )
  begin_bt, end_bt = layout.documents()
  index_t = jnp.arange(t)
  first_bt = index_t - (index_t - begin_bt) % block
  return begin_bt, first_bt, jnp.minimum(first_bt + block, end_bt), end_bt


def two_copies(segment_ids_bt: Int[Array, 'b t'], block: int) -> masks.Ranges:
  """The mask of [noisy; clean], two ranges of keys per query."""
  t = segment_ids_bt.shape[1]
  begin_bt, first_bt, last_bt, _ = blocks(segment_ids_bt, block)
  none_bt = jnp.zeros_like(begin_bt)
  pair = lambda a, z: jnp.stack([a, z], axis=-1)
  noisy_btn2 = jnp.stack(
    [pair(first_bt, last_bt), pair(t + begin_bt, t + first_bt)], axis=2
  )
  clean_btn2 = jnp.stack(
    [pair(t + begin_bt, t + last_bt), pair(none_bt, none_bt)], axis=2
  )
  is_text_bt11 = (segment_ids_bt != 0)[:, :, None, None]
  both = [jnp.where(is_text_bt11, x, 0) for x in (noisy_btn2, clean_btn2)]
  return masks.Ranges(jnp.concatenate(both, axis=1))


def scores(
  model: Any,
  batch: dict[str, Array],
  corruption: losses.Corruption,
  mask_id: int,
  rng: Array | None,
  *,
  block: int,
) -> cross_entropy.Scores:
  """Cross-entropy of the masked targets given clean earlier blocks."""
  noisy_bt = losses.masked_tokens(batch, corruption.is_masked_bt, mask_id)
  twice = lambda a, b: jnp.concatenate([a, b], axis=1)
  output = model(
    twice(noisy_bt, batch['targets_bt']),
    positions=twice(batch['positions_bt'], batch['positions_bt']),
    mask=two_copies(batch['segment_ids_bt'], block),
    rng=rng,
  )
  hidden_btd = output.hidden_btd[:, : noisy_bt.shape[1]]
  return losses.masked_cross_entropy(
    model, hidden_btd, batch, corruption.weights_bt, mask_id
  )


def corrupt(
  batch: dict[str, Array], rng: Array, config: Config, times: Any = None
) -> losses.Corruption:
  """Masks at one time per block, weight 1/t; times stratified over blocks.

  Args:
    batch: The rows.
    rng: Of times and masks.
    config: Of the objective.
    times: Lowest and highest time; None takes the config's.
  """
  low, high = (config.low, config.high) if times is None else times
  time_rng, mask_rng = jax.random.split(rng)
  b, t = batch['targets_bt'].shape
  number_bt = _number_of_block(batch['segment_ids_bt'], config.block)
  # A row spreads over all times; rows with more blocks go round again.
  per_row = -(-t // config.block)
  share_bt = (number_bt * b + jnp.arange(b)[:, None]) / (b * per_row)
  u_bt = (jax.random.uniform(time_rng) + share_bt) % 1
  t_bt = low + (high - low) * u_bt
  t_bt = jnp.maximum(t_bt, config.t_min)
  is_masked_bt = losses.mask_at_rate(batch, t_bt, mask_rng)
  weights_bt = jnp.where(jnp.asarray(low) > 0.5, 1.0, 1 / t_bt)
  weights_bt = jnp.where(is_masked_bt, weights_bt, 0.0)
  return losses.Corruption(is_masked_bt, weights_bt * batch['loss_mask_bt'])


def corrupt_exactly(
  batch: dict[str, Array], rng: Array, block: int
) -> losses.Corruption:
  """Masks k of the n targets of each block, weight n/k, k uniform."""
  count_rng, mask_rng = jax.random.split(rng)
  is_target_bt = batch['loss_mask_bt'] > 0
  segment_ids_bt = batch['segment_ids_bt']
  number_bt = _number_of_block(segment_ids_bt, block)
  _, first_bt, _, _ = blocks(segment_ids_bt, block)
  n_bt = _sum_over_block(is_target_bt, number_bt)
  u_bt = jax.random.uniform(count_rng, number_bt.shape)
  u_bt = jnp.take_along_axis(u_bt, number_bt, axis=1)  # One per block.
  # The product may round up to n.
  k_bt = jnp.minimum((u_bt * n_bt).astype(jnp.int32), n_bt - 1) + 1
  noise_bt = jax.random.uniform(mask_rng, number_bt.shape)
  noise_bt = jnp.where(is_target_bt, noise_bt, jnp.inf)
  # Sorting by block keeps blocks where they are.
  order_bt = jnp.lexsort((noise_bt, number_bt), axis=-1)
  rank_bt = jnp.argsort(order_bt, axis=-1) - first_bt
  is_masked_bt = (rank_bt < k_bt) & is_target_bt
  weights_bt = jnp.where(is_masked_bt, n_bt / jnp.maximum(k_bt, 1), 0.0)
  return losses.Corruption(is_masked_bt, weights_bt * batch['loss_mask_bt'])


def _number_of_block(segment_ids_bt, block: int) -> Int[Array, 'b t']:
  """Number of each token's block within its row, from 0."""
  first_bt = blocks(segment_ids_bt, block)[1]
  is_first_bt = first_bt == jnp.arange(first_bt.shape[1])
  return jnp.cumsum(is_first_bt, axis=1) - 1


def _sum_over_block(x_bt: Bool[Array, 'b t'], number_bt):
  """The number of True in each token's block."""
  count = lambda x_t, number_t: jax.ops.segment_sum(
    x_t.astype(jnp.int32), number_t, num_segments=x_t.shape[0]
  )[number_t]
  return jax.vmap(count)(x_bt, number_bt)


def variance(
  model: Any,
  batch: dict[str, Array],
  rng: Array,
  config: Config,
  ranges: Sequence[tuple[float, float]],
) -> Float[Array, 'n']:
  """Variance over rows of the training loss per target for ranges of times.

  The paper trains on the range with the least, chosen anew at each evaluation
  among those of widths 0.5 to 0.9; see `Config.search_every`. Losses of
  different ranges are not scaled to each other (as in the paper), so compare at
  one stage of training. Arguments: see `row_losses`.
  """
  return row_losses(model, batch, rng, config, ranges).var(1)


def row_losses(
  model: Any,
  batch: dict[str, Array],
  rng: Array,
  config: Config,
  ranges: Sequence[tuple[float, float]],
) -> Float[Array, 'n b']:
  """The training loss per target of each row for ranges of times.

  Args:
    model: The model.
    batch: The rows.
    rng: Shared by all ranges.
    config: Of the objective; its own range is not used.
    ranges: Pairs (low, high).
  """
  num_b = jnp.maximum(batch['loss_mask_bt'].sum(1), 1)

  def of_range(times_2):
    corruption = corrupt(batch, rng, config, (times_2[0], times_2[1]))
    nats_bt = scores(
      model, batch, corruption, config.mask_id, None, block=config.block
    ).nats_bt
    return (nats_bt * corruption.weights_bt).sum(1) / num_b

  return jax.lax.map(of_range, jnp.asarray(ranges, jnp.float32))

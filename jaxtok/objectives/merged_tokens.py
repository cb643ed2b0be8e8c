# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""MergeDNA's objective: restore the bases, also from few tokens, also masked.

arXiv:2511.14806, section 3.3. Three passes per step:

1. Merged token reconstruction: cross-entropy of all bases given the tokens.
2. The same from the tokens that latent merging leaves; the local encoder gets
   no gradient. Weight `latent_weight`.
3. Adaptive masked token modelling: of a token whose latent group has g tokens
   the weight is 1/g**2; as many tokens as there are groups are drawn without
   replacement, their bases are masked, and the cross-entropy of those is taken
   after a pass that merges anew, to the same count.

Each of the three counts with its mean over bases.

Axes: b rows, t bases, w tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.config import configclass
from jaxtok.models import base as models
from jaxtok.objectives import base, cross_entropy


@configclass
class Config:
  """Hyper-parameters of `MergedTokens`."""

  mask_id: int = 4  # The mask token; ids above it are targets.
  latent_weight: float = 0.25  # Of the second pass.
  mask_weight: float = 1.0  # Of the third.

  def __post_init__(self):
    if self.latent_weight < 0 or self.mask_weight < 0:
      raise ValueError(
        f'latent_weight={self.latent_weight} and mask_weight='
        f'{self.mask_weight} must be >= 0.'
      )

  def make(self) -> 'MergedTokens':
    return MergedTokens(self)


def group_sizes(group_bw: Int[Array, 'b w']) -> Float[Array, 'b w']:
  """Tokens in the group of each token; 0 for tokens without one."""
  b, w = group_bw.shape
  rows_b1 = jnp.arange(b)[:, None]
  slot_bw = jnp.where(group_bw < 0, w, group_bw)  # There is no group w.
  count = jnp.zeros((b, w), jnp.float32)
  count = count.at[rows_b1, slot_bw].add(1.0, mode='drop')
  return count.at[rows_b1, slot_bw].get(mode='fill', fill_value=0.0)


def draw_tokens(
  size_bw: Float[Array, 'b w'],
  can_bw: Bool[Array, 'b w'],
  num_b: Int[Array, 'b'],
  rng: Array,
) -> Bool[Array, 'b w']:
  """Draws tokens without replacement, with weights `1 / size**2`.

  The largest `num_b` of `log weight + Gumbel noise`: the same law as drawing
  one after the other.
  """
  noise_bw = jax.random.gumbel(rng, size_bw.shape)
  key_bw = noise_bw - 2 * jnp.log(jnp.maximum(size_bw, 1.0))
  key_bw = jnp.where(can_bw, key_bw, -jnp.inf)
  rank_bw = jnp.argsort(jnp.argsort(-key_bw, axis=1), axis=1)
  return (rank_bw < num_b[:, None]) & can_bw


class MergedTokens:
  """Metrics, all over bases:

  nats, accuracy: Of the first pass.
  latent_accuracy: Of the second pass.
  masked_nats, masked_accuracy: Of the third.
  mask_rate: Share of the bases that are masked.
  tokens_per_base: Of the first pass.
  overflow, latent_overflow: Share of the tokens (groups) that found no room.
  """

  def __init__(self, config: Config):
    self.config = config

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    found = self._passes(model, batch, rng, True)
    whole, latent, masked = found['whole'], found['latent'], found['masked']
    weight = found['target_bt'].sum()
    num_masked = found['masked_bt'].sum()
    scale = weight / jnp.maximum(num_masked, 1.0)
    total = (
      whole.total
      + self.config.latent_weight * latent.total
      + self.config.mask_weight * scale * masked.total
    )
    return base.Loss(total, weight, _metrics(found, None))

  def per_row(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> dict[str, base.Mean]:
    """The metrics of each row, without dropout, at the mean compression."""
    return _metrics(self._passes(model, batch, rng, False), 1)

  def flops(self, model: Any, shape: models.Shape) -> dict[str, float]:
    """Forward FLOPs of the three passes; the second has no local encoder."""
    whole, few = model.flops(shape), model.flops(shape, merges=True)
    few.pop('local')
    return {
      name: 2 * whole.get(name, 0.0) + few.get(name, 0.0)
      for name in whole | few
    }

  def _passes(self, model, batch, rng, is_training) -> dict[str, Any]:
    tokens_bt, segments_bt = batch['tokens_bt'], batch['segment_ids_bt']
    draw_rng, *rngs = jax.random.split(rng, 6)
    if not is_training:
      rngs = [None] * 5
    share = model.share(is_training)
    local = model.encode(tokens_bt, segments_bt, share, rngs[0])
    aux = model.aux(local)
    is_target_bt = (tokens_bt > self.config.mask_id) & (segments_bt > 0)
    target_bt = (is_target_bt & aux['target_mask_bt']).astype(jnp.float32)

    def score(states_bwd, local, weights_bt, rng):
      hidden_btd = model.decode(states_bwd, local, segments_bt, rng)
      return cross_entropy.cross_entropy(
        model.logits, hidden_btd, tokens_bt, weights_bt
      )

    latent = model.latent(local.tokens, rng=rngs[1])
    whole = score(latent.states_bwd, local, target_bt, rngs[2])
    fixed = local._replace(tokens=jax.lax.stop_gradient(local.tokens))
    merged = model.latent(fixed.tokens, merges=True, rng=rngs[3])
    few = score(merged.states_bwd, fixed, target_bt, rngs[4])
    size_bw = group_sizes(merged.group_bw)
    can_bw = fixed.tokens.can_merge_bw & fixed.tokens.valid_bw
    drawn_bw = draw_tokens(size_bw, can_bw, merged.num_b, draw_rng)
    masked_bt = _of_tokens(drawn_bw, local.owner_bt) * target_bt
    hidden_bt = jnp.where(masked_bt > 0, self.config.mask_id, tokens_bt)
    again = model.encode(hidden_bt, segments_bt, share, rngs[0])
    # A base that found no room the second time cannot be predicted.
    masked_bt *= model.aux(again)['target_mask_bt']
    latent = model.latent(again.tokens, rng=rngs[1])
    masked = score(latent.states_bwd, again, masked_bt, rngs[2])
    lost = base.Mean(
      merged.overflow_b.astype(jnp.float32), merged.num_b.astype(jnp.float32)
    )
    return {
      'whole': whole,
      'latent': few,
      'masked': masked,
      'target_bt': target_bt,
      'masked_bt': masked_bt,
      'aux': aux['metrics'] | {'latent_overflow': lost},
    }


def _of_tokens(
  drawn_bw: Bool[Array, 'b w'], owner_bt: Int[Array, 'b t']
) -> Float[Array, 'b t']:
  """Whether the token of each base is drawn."""
  rows_b1 = jnp.arange(drawn_bw.shape[0])[:, None]
  owner_bt = jnp.where(owner_bt < 0, drawn_bw.shape[1], owner_bt)
  found_bt = drawn_bw.at[rows_b1, owner_bt].get(mode='fill', fill_value=False)
  return found_bt.astype(jnp.float32)


def _metrics(found: dict[str, Any], axis: int | None) -> dict[str, base.Mean]:
  target_bt, masked_bt = found['target_bt'], found['masked_bt']
  num, num_masked = target_bt.sum(axis), masked_bt.sum(axis)
  total = lambda x_bt, weight_bt: (jax.lax.stop_gradient(x_bt) * weight_bt).sum(
    axis
  )
  whole, masked = found['whole'], found['masked']
  metrics = {
    'nats': base.Mean(total(whole.nats_bt, target_bt), num),
    'accuracy': base.Mean(total(whole.correct_bt, target_bt), num),
    'latent_accuracy': base.Mean(
      total(found['latent'].correct_bt, target_bt), num
    ),
    'masked_nats': base.Mean(total(masked.nats_bt, masked_bt), num_masked),
    'masked_accuracy': base.Mean(
      total(masked.correct_bt, masked_bt), num_masked
    ),
    'mask_rate': base.Mean(num_masked, num),
  }
  for name, mean in found['aux'].items():
    if axis is None:
      mean = base.Mean(mean.total.sum(), mean.weight.sum())
    metrics[name] = mean
  return metrics

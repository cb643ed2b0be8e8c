# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parts of the masked diffusion objectives: masking, scoring, reporting.

What the tokens of a batch are: `targets_bt`, at the places and in the documents
of `positions_bt` and `segment_ids_bt`; only those with a loss mask can be
masked. (`tokens_bt`, the targets one place later, is for models that predict
the next token; nothing here reads it.) A document split over rows is scored in
pieces that do not see each other.

The denoiser is any sequence model without a causal mask. Its logits at a place
are those of the token at that place. The token `mask_id` is never predicted,
and revealed tokens are never charged: the substitution parametrisation of
Sahoo et al. 2024, arXiv:2406.07524.

Axes: b rows, t positions, v vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtok.objectives import base, cross_entropy

IMPOSSIBLE = -1e30  # A logit; its probability is exactly 0 in float32.


class Corruption(NamedTuple):
  """Which targets are masked, and what each of them weighs in the bound.

  `times_b` is what a denoiser that is told the time is told, else None.
  """

  is_masked_bt: Bool[Array, 'b t']
  weights_bt: Float[Array, 'b t']
  times_b: Any = None


Corrupt = Callable[[dict[str, Array], Array], Corruption]


def check_mask_id(mask_id: int) -> None:
  """Raises ValueError if it is negative."""
  if mask_id < 0:
    raise ValueError(
      f'mask_id={mask_id} must be >= 0: an id the tokenizer does not use. Set '
      "model.vocab_size to the tokenizer's + 1 and mask_id to the last id."
    )


def check_crop_rate(crop_rate: float) -> None:
  """Raises ValueError if it is no probability."""
  if not 0 <= crop_rate <= 1:
    raise ValueError(
      f'crop_rate={crop_rate} must be in [0, 1]. LLaDA crops 0.01 of batches.'
    )


def check_samples(num_samples: int) -> None:
  """Raises ValueError if it is not positive."""
  if num_samples < 1:
    raise ValueError(f'eval_samples={num_samples} must be >= 1.')


def cropped(
  batch: dict[str, Array], rng: Array, rate: float
) -> dict[str, Array]:
  """With probability `rate` a batch is cut to a random length, else it is not.

  The length is that of all rows, uniform from 1 to their own. What is behind it
  becomes padding, so that shapes stay.
  """
  hit_rng, length_rng = jax.random.split(rng)
  t = batch['targets_bt'].shape[1]
  length = jax.random.randint(length_rng, (), 1, t + 1)
  length = jnp.where(jax.random.bernoulli(hit_rng, rate), length, t)
  is_kept_t = jnp.arange(t) < length
  names = ('loss_mask_bt', 'segment_ids_bt', 'num_bytes_bt')
  return batch | {k: jnp.where(is_kept_t, batch[k], 0) for k in names}


def mask_at_rate(
  batch: dict[str, Array], rate_b1: Float[Array, 'b #t'], rng: Array
) -> Bool[Array, 'b t']:
  """Masks each target independently with the given probability."""
  shape = batch['targets_bt'].shape
  is_hit_bt = jax.random.uniform(rng, shape) < rate_b1
  return is_hit_bt & (batch['loss_mask_bt'] > 0)


def mask_exactly(
  is_target_bt: Bool[Array, 'b t'], num_masked_b: Int[Array, 'b'], rng: Array
) -> Bool[Array, 'b t']:
  """Masks so many targets of each row, each subset equally likely."""
  noise_bt = jax.random.uniform(rng, is_target_bt.shape)
  noise_bt = jnp.where(is_target_bt, noise_bt, jnp.inf)
  rank_bt = jnp.argsort(jnp.argsort(noise_bt, axis=-1), axis=-1)
  return (rank_bt < num_masked_b[:, None]) & is_target_bt


def masked_tokens(
  batch: dict[str, Array], is_masked_bt: Bool[Array, 'b t'], mask_id: int
) -> Int[Array, 'b t']:
  """The denoiser's input."""
  return jnp.where(is_masked_bt, mask_id, batch['targets_bt'])


def substituted(
  logits_btv: Float[Array, 'b t v'],
  tokens_bt: Int[Array, 'b t'],
  mask_id: int,
) -> Float[Array, 'b t v']:
  """Log-probabilities of the clean tokens, float32.

  The mask token is impossible, and a revealed token stays what it is. A
  denoiser that `samplers.decode` runs needs no such wrapper: it only reads
  masked positions.
  """
  is_mask_v = jnp.arange(logits_btv.shape[-1]) == mask_id
  x_btv = jnp.where(is_mask_v, IMPOSSIBLE, logits_btv.astype(jnp.float32))
  log_probs_btv = jax.nn.log_softmax(x_btv, axis=-1)
  index_v = jnp.arange(logits_btv.shape[-1])
  kept_btv = jnp.where(index_v == tokens_bt[..., None], 0.0, IMPOSSIBLE)
  is_masked_bt1 = (tokens_bt == mask_id)[..., None]
  return jnp.where(is_masked_bt1, log_probs_btv, kept_btv)


def run(
  model: Any,
  batch: dict[str, Array],
  tokens_bt: Array,
  rng: Array | None,
  times_b: Any = None,
) -> Float[Array, 'b t d']:
  """The denoiser's states; targets of different documents do not meet."""
  output = model(
    tokens_bt,
    positions=batch['positions_bt'],
    segment_ids=batch['segment_ids_bt'],
    context=times_b,
    rng=rng,
  )
  return output.hidden_btd


def scores(
  model: Any,
  batch: dict[str, Array],
  corruption: Corruption,
  mask_id: int,
  rng: Array | None,
) -> cross_entropy.Scores:
  """Weighted cross-entropy of the masked targets."""
  tokens_bt = masked_tokens(batch, corruption.is_masked_bt, mask_id)
  hidden_btd = run(model, batch, tokens_bt, rng, corruption.times_b)
  return masked_cross_entropy(
    model, hidden_btd, batch, corruption.weights_bt, mask_id
  )


def masked_cross_entropy(
  model: Any,
  hidden_btd: Float[Array, 'b t d'],
  batch: dict[str, Array],
  weights_bt: Float[Array, 'b t'],
  mask_id: int,
) -> cross_entropy.Scores:
  """Weighted cross-entropy of the targets, of which none is the mask."""

  def logits(hidden_bcd):
    logits_bcv = model.logits(hidden_bcd)
    is_mask_v = jnp.arange(logits_bcv.shape[-1]) == mask_id
    return jnp.where(is_mask_v, IMPOSSIBLE, logits_bcv)

  return cross_entropy.cross_entropy(
    logits, hidden_btd, batch['targets_bt'], weights_bt
  )


def bound_metrics(
  nats: Float[Array, '...'], batch: dict[str, Array], axis: int | None
) -> dict[str, base.Mean]:
  """Metrics of an upper bound on the negative log-likelihood.

  Args:
    nats: Sum over targets; of each row if `axis` is 1.
    batch: The batch.
    axis: None sums over rows.
  """
  targets = batch['loss_mask_bt'].sum(axis)
  num_bytes = batch['num_bytes_bt'].sum(axis).astype(jnp.float32)
  return {
    'nats_bound': base.Mean(nats, targets),
    'bpb_bound': base.Mean(nats / math.log(2), num_bytes),
    'tokens_per_byte': base.Mean(targets, num_bytes),
  }


class Weighted:
  """An objective that is a weighted cross-entropy of masked targets.

  Metrics: `nats_bound` per target and `bpb_bound`, both upper bounds of the
  negative log-likelihood estimated with one mask per row (`eval_samples` masks
  in `per_row`); `accuracy` of masked targets; `mask_rate`.

  Args:
    corrupt: Draws masks and weights. The expected weighted cross-entropy is
      the bound up to `constant`.
    mask_id: The mask token.
    eval_samples: Masks per row in evaluation; static.
    constant: Nats per target that do not depend on the model.
    score: Replaces the cross-entropy of `scores`.
    eval_corrupt: Replaces `corrupt` in `per_row`; its bound may differ.
    is_bound: Whether the training loss is a bound. If not, its metrics have
      neither `nats_bound` nor `bpb_bound`.
    crop_rate: Share of training batches that are `cropped`, so that the model
      also learns short rows; metrics are then of what is left.
  """

  def __init__(
    self,
    corrupt: Corrupt,
    *,
    mask_id: int,
    eval_samples: int = 1,
    constant: float = 0.0,
    score: Callable[..., cross_entropy.Scores] = scores,
    eval_corrupt: Corrupt | None = None,
    is_bound: bool = True,
    crop_rate: float = 0.0,
  ):
    self._corrupt, self.mask_id, self._score = corrupt, mask_id, score
    self._eval_corrupt = eval_corrupt or corrupt
    self._eval_samples, self._constant = eval_samples, constant
    self._is_bound, self._crop_rate = is_bound, crop_rate

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    if self._crop_rate:
      rng, crop_rng = jax.random.split(rng)
      batch = cropped(batch, crop_rng, self._crop_rate)
    mask_rng, model_rng = jax.random.split(rng)
    corruption = self._corrupt(batch, mask_rng)
    found = self._score(model, batch, corruption, self.mask_id, model_rng)
    weight = batch['loss_mask_bt'].sum()
    nats = found.total + self._constant * weight
    masked = corruption.is_masked_bt.sum().astype(jnp.float32)
    correct = (found.correct_bt * corruption.is_masked_bt).sum()
    metrics = bound_metrics(jax.lax.stop_gradient(nats), batch, None) | {
      'accuracy': base.Mean(correct, masked),
      'mask_rate': base.Mean(masked, weight),
    }
    if not self._is_bound:
      metrics = {k: v for k, v in metrics.items() if 'bound' not in k}
    return base.Loss(nats, weight, metrics)

  def per_row(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> dict[str, base.Mean]:
    """The bound of each row, the mean over `eval_samples` masks."""

    def sample(rng):
      corruption = self._eval_corrupt(batch, rng)
      found = self._score(model, batch, corruption, self.mask_id, None)
      return (found.nats_bt * corruption.weights_bt).sum(1)

    rngs = jax.random.split(rng, self._eval_samples)
    nats_b = jax.lax.map(sample, rngs).mean(0)
    nats_b += self._constant * batch['loss_mask_bt'].sum(1)
    return bound_metrics(nats_b, batch, 1)

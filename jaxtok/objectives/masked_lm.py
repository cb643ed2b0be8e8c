# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicts masked tokens from what is on both sides: BERT's objective.

Devlin et al. 2018, arXiv:1810.04805, section 3.1: a share of the tokens is
chosen; most of them become the mask token, some a random token, and some stay.
The loss is the cross-entropy of the chosen ones.

Overlapping k-mers leak: each letter is in k tokens, so a single masked k-mer
can be read off its neighbours. With `span=k` tokens are chosen in runs of k, as
DNABERT does, and of each run one letter is hidden. For that to hold, chosen
tokens must all be masked: `mask_share=1`.

What the tokens of a batch are: `tokens_bt`. Ids below `first_id` are special
and are neither chosen nor drawn; neither is padding.

Axes: b rows, t positions, v vocabulary.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxtok.config import configclass
from jaxtok.objectives import base, cross_entropy


@configclass
class Config:
  """Hyper-parameters of `MaskedLm`."""

  mask_id: int = 4  # The mask token; of `tokenizers.dna`.
  first_id: int = 5  # The least id that may be chosen or drawn.
  rate: float = 0.15  # Share of the tokens that are chosen.
  mask_share: float = 0.8  # Of the chosen ones, how many are masked.
  random_share: float = 0.1  # How many become another token.
  span: int = 1  # Tokens that are chosen together.
  eval_samples: int = 4  # Masks per row in evaluation.

  def __post_init__(self):
    if not 0 < self.rate < 1:
      raise ValueError(f'rate={self.rate} must be in (0, 1). Try 0.15.')
    shares = self.mask_share, self.random_share
    if min(shares) < 0 or sum(shares) > 1:
      raise ValueError(
        f'mask_share={shares[0]} and random_share={shares[1]} must be >= 0 and '
        'sum to at most 1.'
      )
    if not 0 <= self.mask_id < self.first_id:
      raise ValueError(
        f'mask_id={self.mask_id} must be in [0, first_id={self.first_id}): the '
        'mask is a special token.'
      )
    if self.span < 1 or self.eval_samples < 1:
      raise ValueError(
        f'span={self.span} and eval_samples={self.eval_samples} must be >= 1.'
      )

  def make(self) -> 'MaskedLm':
    return MaskedLm(self)


class Corruption(NamedTuple):
  """A batch with some tokens hidden."""

  tokens_bt: Int[Array, 'b t']
  is_chosen_bt: Bool[Array, 'b t']


def choose(
  can_bt: Bool[Array, 'b t'], rate: float, span: int, rng: Array
) -> Bool[Array, 'b t']:
  """Chooses tokens in runs of `span`, each with probability `rate`.

  A run begins at each place with the same probability `1 - (1 - rate)**(1 /
  span)`, so that the runs that cover a place are none with probability `1 -
  rate`; runs may overlap. They also begin before the row.
  """
  b, t = can_bt.shape
  begin = -math.expm1(math.log1p(-rate) / span)
  is_begin = jax.random.bernoulli(rng, begin, (b, t + span - 1))
  covers = [is_begin[:, i : i + t] for i in range(span)]
  return jnp.stack(covers).any(axis=0) & can_bt


class MaskedLm:
  """Cross-entropy of the chosen tokens.

  Metrics:
    nats: Per chosen token.
    accuracy: Share of the chosen tokens with the highest logit; ties share.
    mask_rate: Share of the tokens that are chosen.
    bits_per_masked_base: Bits per source byte of chosen tokens, which compares
      tokenizers. It is no likelihood of the text. Left out are tokens at the
      start of a row, of which the batch does not say how many bytes they have.
  """

  def __init__(self, config: Config):
    self.config = config

  def corrupt(
    self, batch: dict[str, Array], vocab_size: int, rng: Array
  ) -> Corruption:
    """Hides tokens of a batch."""
    c, tokens_bt = self.config, batch['tokens_bt']
    chosen, how, what = jax.random.split(rng, 3)
    can_bt = (tokens_bt >= c.first_id) & (batch['segment_ids_bt'] > 0)
    is_chosen_bt = choose(can_bt, c.rate, c.span, chosen)
    draw_bt = jax.random.uniform(how, tokens_bt.shape)
    random_bt = jax.random.randint(
      what, tokens_bt.shape, c.first_id, vocab_size
    )
    hidden_bt = jnp.where(
      draw_bt < c.mask_share,
      c.mask_id,
      jnp.where(draw_bt < c.mask_share + c.random_share, random_bt, tokens_bt),
    )
    tokens_bt = jnp.where(is_chosen_bt, hidden_bt, tokens_bt)
    return Corruption(tokens_bt, is_chosen_bt)

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    mask_rng, model_rng = jax.random.split(rng)
    scores, is_chosen_bt = self._score(model, batch, mask_rng, model_rng)
    metrics = _metrics(scores, is_chosen_bt, batch, None)
    return base.Loss(scores.total, metrics['nats'].weight, metrics)

  def per_row(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> dict[str, base.Mean]:
    """The metrics of each row without dropout, over `eval_samples` masks."""

    def sample(rng):
      scores, is_chosen_bt = self._score(model, batch, rng, None)
      return _metrics(scores, is_chosen_bt, batch, 1)

    rngs = jax.random.split(rng, self.config.eval_samples)
    samples = jax.lax.map(sample, rngs)
    return jax.tree.map(lambda x: x.sum(0), samples)

  def _score(self, model, batch, mask_rng, model_rng):
    vocab_size = model.config.vocab_size
    tokens_bt, is_chosen_bt = self.corrupt(batch, vocab_size, mask_rng)
    output = model(
      tokens_bt,
      positions=batch['positions_bt'],
      segment_ids=batch['segment_ids_bt'],
      rng=model_rng,
    )
    scores = cross_entropy.cross_entropy(
      model.logits,
      output.hidden_btd,
      batch['tokens_bt'],
      is_chosen_bt.astype(jnp.float32),
    )
    return scores, is_chosen_bt


def _metrics(scores, is_chosen_bt, batch, axis) -> dict[str, base.Mean]:
  chosen_bt = is_chosen_bt.astype(jnp.float32)
  # The charge of a token stands with it as a target, one place before.
  charges_bt = jnp.pad(batch['num_bytes_bt'][:, :-1], ((0, 0), (1, 0)))
  segments_bt = batch['segment_ids_bt']
  before_bt = jnp.pad(segments_bt[:, :-1], ((0, 0), (1, 0)))
  charges_bt = jnp.where(segments_bt == before_bt, charges_bt, 0) * chosen_bt
  num = chosen_bt.sum(axis)
  nats_bt = jax.lax.stop_gradient(scores.nats_bt) * chosen_bt
  bits = jnp.where(charges_bt > 0, nats_bt, 0).sum(axis) / math.log(2)
  tokens = (segments_bt > 0).sum(axis).astype(jnp.float32)
  return {
    'nats': base.Mean(nats_bt.sum(axis), num),
    'accuracy': base.Mean((scores.correct_bt * chosen_bt).sum(axis), num),
    'mask_rate': base.Mean(num, tokens),
    'bits_per_masked_base': base.Mean(bits, charges_bt.sum(axis)),
  }

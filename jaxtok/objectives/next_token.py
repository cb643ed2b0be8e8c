# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicts the next token: maximum likelihood, reported in bits per byte.

Of an encoder-decoder these are the tokens of the decoder, given the whole of
what the encoder reads (`context_bs`).
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.models import base as models
from jaxtok.objectives import base, cross_entropy


@configclass
class Config:
  """Hyper-parameters of `NextToken`."""

  z_loss: float = 0.0  # Coefficient of squared log-normaliser; PaLM: 1e-4.
  num_chunks: int = 0  # Of the logits, see `cross_entropy`; 0: automatic.
  places: int = 1  # > 1: also reports nats and accuracy by place in a window.

  def __post_init__(self):
    if self.z_loss < 0:
      raise ValueError(f'z_loss must be >= 0, got {self.z_loss}. Try 1e-4.')
    if self.num_chunks < 0:
      raise ValueError(
        f'num_chunks must be >= 0, got {self.num_chunks}. 0 is automatic.'
      )
    if self.places < 1:
      raise ValueError(
        f"places must be >= 1, got {self.places}: the tokenizer's "
        'tokens_per_window.'
      )

  def make(self) -> 'NextToken':
    return NextToken(self)


class NextToken:
  """Cross-entropy of each target given the tokens before it.

  Metrics, all exact sums over the targets with weights `loss_mask`:
    nats: Cross-entropy per target.
    bpb: Bits per source byte, from `num_bytes` and nothing else.
    accuracy: Share of targets with the highest logit; ties share.
    tokens_per_byte: Targets per source byte.
    Others: `Output.aux['metrics']` of the model.
    penalty: What the model adds to the loss, per target, nats.
    nats_i, accuracy_i: With `places` > 1, of the targets at positions that are
      i modulo it: the i-th tokens of the tokenizer's windows.
  """

  def __init__(self, config: Config):
    self.config = config

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> base.Loss:
    output = self._output(model, batch, rng)
    batch = _without_lost(batch, output.aux)
    scores = self._scores(model, output, batch)
    metrics = self._metrics(scores, batch, None) | _own(output.aux, None)
    total, weight = scores.total, batch['loss_mask_bt'].sum()
    if (penalty_bt := output.aux.get('penalty_bt')) is not None:
      penalty = (batch['loss_mask_bt'] * penalty_bt).sum()
      total += penalty
      metrics['penalty'] = base.Mean(penalty, weight)
    return base.Loss(total, weight, metrics)

  def per_row(
    self, model: Any, batch: dict[str, Array], rng: Array
  ) -> dict[str, base.Mean]:
    """The metrics of each row without dropout; see `base.RowObjective`.

    All targets count, also those that a model would leave out of training.
    """
    del rng  # The likelihood is exact.
    output = self._output(model, batch, None)
    scores = self._scores(model, output, batch)
    return self._metrics(scores, batch, 1) | _own(output.aux, 1)

  def per_target(self, model: Any, batch: dict[str, Array]) -> Array:
    """Nats of each target [b, t], without dropout."""
    return self._scores(model, self._output(model, batch, None), batch).nats_bt

  def _output(self, model, batch, rng) -> Any:
    return model(
      batch['tokens_bt'],
      positions=batch['positions_bt'],
      segment_ids=batch['segment_ids_bt'],
      rng=rng,
      **_context(batch),
    )

  def _scores(self, model, output, batch) -> cross_entropy.Scores:
    return cross_entropy.cross_entropy(
      functools.partial(model.logits, **output.aux.get('logits', {})),
      output.hidden_btd,
      batch['targets_bt'],
      batch['loss_mask_bt'],
      z_loss=self.config.z_loss,
      num_chunks=self.config.num_chunks,
    )

  def _metrics(self, scores, batch, axis) -> dict[str, base.Mean]:
    places, metrics = self.config.places, _metrics(scores, batch, axis)
    for i in range(places if places > 1 else 0):
      mask_bt = batch['loss_mask_bt'] * (batch['positions_bt'] % places == i)
      weight = mask_bt.sum(axis)
      for name, value_bt in (
        ('nats', scores.nats_bt),
        ('accuracy', scores.correct_bt),
      ):
        total = (value_bt * mask_bt).sum(axis)
        metrics[f'{name}_{i}'] = base.Mean(total, weight)
    return metrics


def _metrics(
  scores: cross_entropy.Scores, batch: dict[str, Array], axis: int | None
) -> dict[str, base.Mean]:
  mask_bt = batch['loss_mask_bt']
  num_bytes = batch['num_bytes_bt'].sum(axis).astype(jnp.float32)
  targets = mask_bt.sum(axis)
  nats = (scores.nats_bt * mask_bt).sum(axis)
  correct = (scores.correct_bt * mask_bt).sum(axis)
  return {
    'nats': base.Mean(nats, targets),
    'bpb': base.Mean(nats / math.log(2), num_bytes),
    'accuracy': base.Mean(correct, targets),
    'tokens_per_byte': base.Mean(targets, num_bytes),
  }


def _context(batch: dict[str, Array]) -> dict[str, Any]:
  """What an encoder reads, if the batch has it."""
  if 'context_bs' not in batch:
    return {}
  segment_ids_bs = batch.get('context_segment_ids_bs')
  return {'context': models.Source(batch['context_bs'], segment_ids_bs)}


def _without_lost(batch: dict[str, Array], aux: dict[str, Any]) -> Any:
  """The batch without the targets that the model could not predict."""
  if (mask_bt := aux.get('target_mask_bt')) is None:
    return batch
  lost = {
    key: batch[key] * mask_bt.astype(batch[key].dtype)
    for key in ('loss_mask_bt', 'num_bytes_bt')
  }
  return batch | lost


def _own(aux: dict[str, Any], axis: int | None) -> dict[str, base.Mean]:
  """Metrics of the model itself, by row or in all."""
  found = aux.get('metrics', {})
  if axis is not None:
    return found
  return {k: base.Mean(m.total.sum(), m.weight.sum()) for k, m in found.items()}

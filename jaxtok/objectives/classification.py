# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of the label of each row.

The model maps rows to logits `[b, c]` (`models.classifier`); labels are
`labels_b`, and -1 leaves a row out.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtok.config import configclass
from jaxtok.objectives import base


@configclass
class Config:
  """Hyper-parameters of `Classification`: none."""

  def make(self) -> 'Classification':
    return Classification()


class Classification:
  """Metrics: `nats` per row, `accuracy`."""

  def __call__(
    self, model: Any, batch: dict[str, Array], rng: Array | None
  ) -> base.Loss:
    logits_bc = model(
      batch['tokens_bt'], segment_ids=batch['segment_ids_bt'], rng=rng
    )
    labels_b = batch['labels_b']
    weight_b = (labels_b >= 0).astype(jnp.float32)
    logprobs_bc = jax.nn.log_softmax(logits_bc.astype(jnp.float32))
    index_b1 = jnp.maximum(labels_b, 0)[:, None]
    picked_b = jnp.take_along_axis(logprobs_bc, index_b1, axis=1)[:, 0]
    total, num = -(picked_b * weight_b).sum(), weight_b.sum()
    correct_b = (logits_bc.argmax(axis=1) == labels_b) * weight_b
    return base.Loss(
      total,
      num,
      {
        'nats': base.Mean(total, num),
        'accuracy': base.Mean(correct_b.sum(), num),
      },
    )

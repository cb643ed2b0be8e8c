# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Naive Bayes on counts of k-mers: the floor that a model must beat."""

import numpy as np
from jaxtyping import Int

from experiments.dna import finetune
from jaxtok.data import labelled
from jaxtok.evals import classification
from jaxtok.tokenizers import dna

_K = 6


def _counts(data: labelled.Labelled) -> Int[np.ndarray, 'n v']:
  tokenizer = dna.Config(k=_K, overlapping=True, fallback=False).make()
  encoded = tokenizer.encode_batch(data.sequences)
  counts = np.zeros((len(data), tokenizer.vocab_size), np.int32)
  np.add.at(
    counts,
    (
      np.repeat(np.arange(len(data)), np.diff(encoded.row_splits)),
      encoded.values,
    ),
    1,
  )
  return counts


def score(task: finetune.Task) -> dict[str, float]:
  """Scores of the test split; counts are smoothed by adding one."""
  train, test = (task.data.read(split) for split in ('train', 'test'))
  num_classes = task.data.num_classes
  member_cn = np.eye(num_classes)[train.labels_n].T
  totals_cv = member_cn @ _counts(train) + 1.0
  law_cv = np.log(totals_cv / totals_cv.sum(axis=1, keepdims=True))
  prior_c = np.log(np.maximum(member_cn.sum(axis=1), 1e-9) / len(train))
  logits_nc = _counts(test) @ law_cv.T + prior_c
  table = classification.confusion(
    test.labels_n, logits_nc.argmax(axis=1), num_classes
  )
  return classification.scores(table)

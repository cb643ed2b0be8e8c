# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of classifications against their definitions in float64."""

import numpy as np
import pytest

from jaxtok.evals import classification


def draw(num_classes, seed, n=300):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, num_classes, n)
  wrong = rng.integers(0, num_classes, n)
  return labels, np.where(rng.random(n) < 0.6, labels, wrong)


@pytest.mark.parametrize('seed', range(3))
def test_matthews_of_two_classes_is_the_correlation_of_the_labels(seed):
  labels, predicted = draw(2, seed)
  table = classification.confusion(labels, predicted, 2)
  want = np.corrcoef(labels.astype(float), predicted.astype(float))[0, 1]
  assert classification.matthews(table) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize('num_classes', [3, 9])
def test_matthews_of_classes_is_the_covariance_of_their_indicators(num_classes):
  labels, predicted = draw(num_classes, 7)
  x, y = np.eye(num_classes)[labels], np.eye(num_classes)[predicted]
  cov = lambda a, b: ((a - a.mean(0)) * (b - b.mean(0))).mean(0).sum()
  want = cov(x, y) / np.sqrt(cov(x, x) * cov(y, y))
  table = classification.confusion(labels, predicted, num_classes)
  assert classification.matthews(table) == pytest.approx(want, abs=1e-12)


def test_matthews_by_hand():
  table = np.array([[6, 2], [1, 3]])
  want = (6 * 3 - 2 * 1) / np.sqrt((6 + 2) * (1 + 3) * (6 + 1) * (2 + 3))
  assert classification.matthews(table) == pytest.approx(want, abs=1e-15)
  assert classification.matthews(np.diag([4, 9, 2])) == 1
  assert classification.matthews(np.array([[0, 5], [5, 0]])) == -1
  assert classification.matthews(np.array([[7, 0], [3, 0]])) == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
  labels, predicted = draw(4, 1)
  table = classification.confusion(labels, predicted, 5)
  for c, got in enumerate(classification.f1(table)):
    both = ((labels == c) & (predicted == c)).sum()
    if c == 4:  # Never seen.
      assert got == 0
      continue
    precision, recall = (
      both / (predicted == c).sum(),
      both / (labels == c).sum(),
    )
    want = 2 * precision * recall / (precision + recall)
    assert got == pytest.approx(want, abs=1e-12)
  found = classification.scores(table)
  assert found['accuracy'] == pytest.approx((labels == predicted).mean())
  assert found['macro_f1'] == pytest.approx(classification.f1(table).mean())


def test_classes_that_do_not_exist_are_refused():
  with pytest.raises(ValueError, match=r'labels must be in \[0, num_classes=2'):
    classification.confusion(np.array([0, 2]), np.array([0, 1]), 2)

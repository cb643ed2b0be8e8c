# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether a model of compressed text can learn to spell.

After Lester et al. 2024, arXiv:2404.03626: an M2 is trained further for a few
hundred steps, on words followed by their letters, and tested on other words.
Word and letters are documents of their own, `BOS word BOS w o r d BOS`, each
coded by the model's own tokenizer. The form of the task is ours.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtok.analysis import fit
from jaxtok.data import tokens


@dataclasses.dataclass(frozen=True)
class Spelling:
  """What was learned.

  Attributes:
    nats: Of each step, per target [steps].
    before: On held-out words, before training.
    after: And after it. `exact` is the share of words spelled right.
  """

  nats: np.ndarray
  before: fit.Score
  after: fit.Score


def spelled(word: bytes) -> bytes:
  """The letters with spaces between them."""
  return b' '.join(word[i : i + 1] for i in range(len(word)))


def is_held_out(word: bytes) -> bool:
  """A fifth of all words, by a hash."""
  return hashlib.blake2b(word, digest_size=1).digest()[0] < 51


def make_rows(
  tokenizer: Any, words: Sequence[bytes], length: int = 0
) -> fit.Rows:
  """Rows of words with their letters as targets.

  Args:
    tokenizer: Of the model.
    words: Any bytes.
    length: Of the rows; 0 means that of the longest one.
  """
  bos = [tokens.bos_id(tokenizer)]
  asked = tokenizer.encode_batch(words).rows()
  answers = tokenizer.encode_batch([spelled(word) for word in words]).rows()
  parts = [
    (np.concatenate([bos, x, bos]), np.concatenate([y, bos]))
    for x, y in zip(asked, answers, strict=True)
  ]
  longest = max(len(x) + len(y) for x, y in parts)
  places = getattr(tokenizer, 'tokens_per_window', 1)
  return fit.make_rows(parts, length or longest, places)


def measure(
  model: Any,
  tokenizer: Any,
  words: Sequence[bytes],
  *,
  steps: int = 200,
  batch_size: int = 32,
  lr: float = 1e-3,
  seed: int = 0,
) -> Spelling:
  """Trains a model in place on the words that are not held out.

  Args:
    model: E.g. `run.model`.
    tokenizer: E.g. `run.tokenizer`.
    words: See `stability.common_words`.
    steps: Of training.
    batch_size: Words per step.
    lr: Highest learning rate.
    seed: Of the batches.

  Raises:
    ValueError: If the words leave nothing to train or to test on.
  """
  test = [word for word in words if is_held_out(word)]
  learn = [word for word in words if not is_held_out(word)]
  if not test or not learn:
    raise ValueError(
      f'{len(words)} words leave {len(learn)} to train and {len(test)} to '
      'test on. Give more.'
    )
  length = make_rows(tokenizer, words).ids.shape[1]
  rows, held_out = (make_rows(tokenizer, x, length) for x in (learn, test))
  before = fit.score(model, held_out)
  nats = fit.train(
    model, rows, steps=steps, batch_size=batch_size, lr=lr, seed=seed
  )
  return Spelling(nats, before, fit.score(model, held_out))

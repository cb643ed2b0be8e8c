# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Balanced brackets of several kinds with holes (Dyck-k infilling).

The prompt is the word with holes, the answer the whole word; any balanced word
that keeps what is given is right. Tokens: openers 0..kinds-1, closers
kinds..2 kinds-1, the hole, the mask.
"""

import numpy as np

from jaxtok.config import configclass
from jaxtok.tasks import base


@configclass
class Brackets:
  """The task."""

  kinds: int = 3
  length: int = 24  # Of the word.
  hole_share: float = 0.5

  def __post_init__(self):
    base.require(
      'Brackets',
      kinds=(self.kinds, self.kinds >= 1, '>= 1'),
      length=(self.length, self.length >= 2 and self.length % 2 == 0, 'even'),
      hole_share=(self.hole_share, 0 < self.hole_share <= 1, 'in (0, 1]'),
    )

  @property
  def prompt_len(self) -> int:
    return self.length

  @property
  def answer_len(self) -> int:
    return self.length

  @property
  def hole(self) -> int:
    return 2 * self.kinds

  @property
  def mask_id(self) -> int:
    return self.hole + 1

  @property
  def vocab_size(self) -> int:
    return self.hole + 2

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: shapes of words are uniform, so are kinds."""
    half, word, stack = self.length // 2, [], []
    num_open = half
    for position in range(self.length):
      left = self.length - position
      # Share of the ways to finish that go up next (ballot numbers).
      height = len(stack)
      up = (left - height) * (height + 2) / (2 * left * (height + 1))
      if num_open and rng.random() < up:
        stack.append(int(rng.integers(self.kinds)))
        word.append(stack[-1])
        num_open -= 1
      else:
        word.append(self.kinds + stack.pop())
    is_hole = rng.random(self.length) < self.hole_share
    prompt = np.where(is_hole, self.hole, word)
    return np.concatenate([prompt, word]).astype(np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`: a stack, and the given brackets are kept."""
    prompt, answer = np.split(np.asarray(tokens_bt), 2, axis=1)
    kept = ((prompt == answer) | (prompt == self.hole)).all(-1)
    return kept & np.array([self._is_balanced(row) for row in answer.tolist()])

  def _is_balanced(self, word: list[int]) -> bool:
    stack: list[int] = []
    for token in word:
      if token < self.kinds:
        stack.append(token)
      elif (
        token >= 2 * self.kinds
        or not stack
        or stack.pop() != token - self.kinds
      ):
        return False
    return not stack

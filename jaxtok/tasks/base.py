# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a task is, and how its records are drawn.

A record is a row of tokens: a prompt and then an answer of fixed length. Record
i of a seed depends on nothing else, so any part of an endless data set can be
made anywhere, in any order.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Verifiable(Protocol):
  """Rows of a prompt and an answer that is right or wrong.

  Attributes:
    prompt_len: Tokens of the prompt.
    answer_len: Tokens of the answer.
    vocab_size: Number of tokens, the mask among them.
    mask_id: The mask token, which no answer contains.
  """

  prompt_len: int
  answer_len: int
  vocab_size: int
  mask_id: int

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """Whether the answers of whole rows are right, bool [b]."""
    ...


@runtime_checkable
class Task(Verifiable, Protocol):
  """Protocol of tasks: endless records."""

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """One record, int32 [prompt_len + answer_len]."""
    ...


@runtime_checkable
class Stored(Verifiable, Protocol):
  """A task of numbered records, e.g. of a file, in place of `draw`."""

  def record(self, seed: int, index: int) -> np.ndarray:
    """See `record`."""
    ...


def record(task: Task | Stored, seed: int, index: int) -> np.ndarray:
  """Record `index` of the data set of a seed."""
  if isinstance(task, Stored):
    return task.record(seed, index)
  return task.draw(np.random.default_rng((seed, index)))


def batch(task: Task | Stored, seed: int, start: int, num: int) -> np.ndarray:
  """Records start to start + num - 1, int32 [num, t]."""
  return np.stack([record(task, seed, start + i) for i in range(num)])


def answer_positions(task: Verifiable) -> np.ndarray:
  """True at the positions of the answer, bool [t]."""
  return np.arange(task.prompt_len + task.answer_len) >= task.prompt_len


def require(owner: str, **rules: tuple[Any, bool, str]) -> None:
  """Raises a ValueError for the first field whose rule does not hold.

  Args:
    owner: Name of the config.
    **rules: Field to its value, whether it is fine, and the rule in words.
  """
  for name, (value, is_fine, rule) in rules.items():
    if not is_fine:
      raise ValueError(f'{owner}.{name}={value} must be {rule}.')

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reach a target from a few numbers, each used once.

The prompt is the numbers and the target, the answer one equation per step, for
example 3*4=12,12-5=7. Text over digits, + - * / = , and EOS; then the mask.
"""

import fractions
import re

import numpy as np

from jaxtok.config import configclass
from jaxtok.tasks import base

_TEXT = '0123456789+-*/=,'
EOS, _MASK = len(_TEXT), len(_TEXT) + 1
_WIDTH = 3  # Digits of a number in the prompt and of a result.
_EQUATION = re.compile(r'(\d+)([-+*/])(\d+)=(\d+)')


@configclass
class Countdown:
  """The task."""

  min_numbers: int = 3
  max_numbers: int = 4
  max_number: int = 20  # Of those in the prompt; results are below 1000.

  def __post_init__(self):
    low, high, most = self.min_numbers, self.max_numbers, self.max_number
    base.require(
      'Countdown',
      min_numbers=(low, 2 <= low <= high, 'in [2, max_numbers]'),
      max_number=(most, 1 <= most < 1000, 'in [1, 999]'),
    )

  mask_id = _MASK
  vocab_size = _MASK + 1

  @property
  def prompt_len(self) -> int:
    return (self.max_numbers + 1) * (_WIDTH + 1)

  @property
  def answer_len(self) -> int:
    # A step: two operands, a result, two signs and a comma.
    return (self.max_numbers - 1) * (3 * _WIDTH + 3) - 1

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """See `base.Task`: random numbers, combined by random legal steps."""
    num = int(rng.integers(self.min_numbers, self.max_numbers + 1))
    numbers = [int(x) for x in rng.integers(1, self.max_number + 1, num)]
    pool, steps = list(numbers), []
    while len(pool) > 1:
      i, j = (int(x) for x in rng.choice(len(pool), 2, replace=False))
      options = [
        (sign, int(value))
        for sign in '+-*/'
        if (value := _apply(pool[i], sign, pool[j])) is not None
      ]
      if not options:
        continue
      sign, value = options[int(rng.integers(len(options)))]
      steps.append(f'{pool[i]}{sign}{pool[j]}={value}')
      pool = [x for k, x in enumerate(pool) if k not in (i, j)] + [value]
    prompt = ','.join([*map(str, numbers), f'={pool[0]}'])
    row = [*_encode(prompt, self.prompt_len)]
    return np.array(row + _encode(','.join(steps), self.answer_len), np.int32)

  def is_correct(self, tokens_bt: np.ndarray) -> np.ndarray:
    """See `base.Task`: true equations, each number once, the last is it."""
    return np.array([self._is_solved(row) for row in tokens_bt.tolist()])

  def _is_solved(self, row: list[int]) -> bool:
    prompt = _decode(row[: self.prompt_len])
    answer = _decode(row[self.prompt_len :])
    if prompt is None or not answer:
      return False
    *given, target = prompt.split(',')
    pool = [fractions.Fraction(x) for x in given]
    value = None
    for text in answer.split(','):
      match = _EQUATION.fullmatch(text)
      if match is None:
        return False
      left, sign, right, result = match.groups()
      for operand in (left, right):
        if int(operand) not in pool:
          return False
        pool.remove(fractions.Fraction(operand))
      value = _apply(int(left), sign, int(right))
      if value is None or value != int(result):
        return False
      pool.append(fractions.Fraction(value))
    return len(pool) == 1 and value == int(target[1:])


def _apply(a: int, sign: str, b: int) -> int | None:
  """The result; None if it is negative, broken or too long."""
  if sign == '/':
    value = a // b if b and a % b == 0 else None
  else:
    value = {'+': a + b, '-': a - b, '*': a * b}[sign]
  return value if value is not None and 0 <= value < 10**_WIDTH else None


def _encode(text: str, length: int) -> list[int]:
  ids = [_TEXT.index(c) for c in text]
  return ids + [EOS] * (length - len(ids))


def _decode(ids: list[int]) -> str | None:
  """Text before the first EOS; None if anything else follows it."""
  end = ids.index(EOS) if EOS in ids else len(ids)
  if any(i != EOS for i in ids[end:]) or any(i > EOS for i in ids):
    return None
  return ''.join(_TEXT[i] for i in ids[:end])

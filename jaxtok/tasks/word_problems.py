# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word problems with written-out steps, in the format of GSM8K.

Cobbe et al. 2021, arXiv:2110.14168: the answer shows each step, its result in
double angle brackets, and the number that was asked for behind '####'.

  Ann has 7 eggs. She buys 5. She eats 3. How many eggs has she now?
  7+5=<<7+5=12>>12
  12-3=<<12-3=9>>9
  #### 9

Steps add, take away or multiply; no number is negative or above `largest`.
"""

import numpy as np

from jaxtok.config import configclass

_NAMES = ('Ann', 'Eve', 'Ida', 'Mia', 'Zoe')
_THINGS = ('eggs', 'pens', 'cups', 'keys', 'nuts')
_PLUS = ('buys', 'finds', 'gets')
_MINUS = ('eats', 'loses', 'sells')
MARKER = b'#### '


@configclass
class WordProblems:
  """Pairs of a question and an answer; record i depends on (seed, i)."""

  min_steps: int = 1
  max_steps: int = 3
  largest: int = 99  # Of all numbers.

  def __post_init__(self):
    if not 1 <= self.min_steps <= self.max_steps:
      raise ValueError(
        f'min_steps={self.min_steps} and max_steps={self.max_steps} must be '
        '1 <= min_steps <= max_steps.'
      )
    if self.largest < 4:
      raise ValueError(f'largest={self.largest} must be >= 4.')

  @property
  def key(self) -> str:
    """Equal keys mean equal records."""
    return f'word_problems:{self.min_steps},{self.max_steps},{self.largest}'

  @property
  def longest(self) -> tuple[int, int]:
    """Bounds on the bytes of a question and of an answer."""
    digits = len(str(self.largest))
    step = len('She sells 3 times as many. ') + digits
    question = len('Ann has  eggs. How many eggs has she now?') + digits
    line = len('+=<<+=>>\n') + 6 * digits
    return (
      question + self.max_steps * step,
      self.max_steps * line + len(MARKER) + digits,
    )

  def draw(self, rng: np.random.Generator) -> tuple[bytes, bytes]:
    """One record."""
    pick = lambda words: words[int(rng.integers(len(words)))]
    thing = pick(_THINGS)
    now = int(rng.integers(1, self.largest // 2 + 1))
    texts, lines = [f'{pick(_NAMES)} has {now} {thing}.'], []
    for _ in range(int(rng.integers(self.min_steps, self.max_steps + 1))):
      sign, number = self._step(rng, now)
      then = {'+': now + number, '-': now - number, '*': now * number}[sign]
      if sign == '*':
        texts.append(f'She gets {number} times as many.')
      else:
        texts.append(f'She {pick(_PLUS if sign == "+" else _MINUS)} {number}.')
      term = f'{now}{sign}{number}'
      lines.append(f'{term}=<<{term}={then}>>{then}\n')
      now = then
    texts.append(f'How many {thing} has she now?')
    answer = ''.join(lines).encode() + MARKER + str(now).encode()
    return ' '.join(texts).encode(), answer

  def _step(self, rng: np.random.Generator, now: int) -> tuple[str, int]:
    """A sign and a number that keep the result in [1, largest]."""
    room = self.largest - now
    signs = ['+'] * (room > 0) + ['-'] * (now > 1)
    signs += ['*'] * (2 * now <= self.largest)
    sign = signs[int(rng.integers(len(signs)))]
    most = {'+': room, '-': now - 1, '*': min(self.largest // now, 9)}[sign]
    return sign, int(rng.integers(2 if sign == '*' else 1, most + 1))

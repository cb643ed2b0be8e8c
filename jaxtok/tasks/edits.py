# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Strings to be rewritten: the diagnostic tasks of MrT5.

Kallini et al. 2025, arXiv:2410.20771, section 4: random ASCII letters behind
'#', of which parts are to be deleted or merged. What a model should not need to
look at twice is known, so a deletion gate can be judged.

  vowels      'delete every vowel'
  contextual  'delete a vowel behind a lower-case consonant'
  merge       'write D for ABC'

Which bytes an answer leaves out `is_dropped` says. How often the letters of a
merge are drawn next to each other is our choice: by chance it is almost never.
"""

import re
import string

import numpy as np

from jaxtok.config import configclass

KINDS = ('vowels', 'contextual', 'merge')
_LETTERS = np.frombuffer(string.ascii_letters.encode(), np.uint8)
_VOWELS = b'aeiouAEIOU'
_PATTERNS = {
  'vowels': rb'[aeiouAEIOU]',
  'contextual': rb'(?<=[b-df-hj-np-tv-z])[aeiouAEIOU]',
  'merge': rb'ABC',
}


@configclass
class Edits:
  """Pairs of a string and what it becomes; record i depends on (seed, i)."""

  kind: str = 'vowels'
  length: int = 64  # Ids that the encoder reads, with '#' and EOS.
  merge_share: float = 0.1  # Of the places of a 'merge' that begin an ABC.

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'kind={self.kind!r} must be one of {", ".join(KINDS)}.')
    if self.length < 3:
      raise ValueError(f"length={self.length} must be >= 3: '#', letters, EOS.")
    if not 0 <= self.merge_share <= 1:
      raise ValueError(f'merge_share={self.merge_share} must be in [0, 1].')

  @property
  def key(self) -> str:
    """Equal keys mean equal records."""
    return f'edits:{self.kind},{self.length},{self.merge_share!r}'

  def draw(self, rng: np.random.Generator) -> tuple[bytes, bytes]:
    """One record: a string of `length - 1` bytes, and the answer."""
    letters = rng.choice(_LETTERS, self.length - 2)
    if self.kind == 'merge':
      for i in np.flatnonzero(rng.random(self.length - 4) < self.merge_share):
        letters[i : i + 3] = (65, 66, 67)
    source = b'#' + letters.tobytes()
    return source, self.answer(source)

  def answer(self, source: bytes) -> bytes:
    """What a string becomes."""
    new = b'D' if self.kind == 'merge' else b''
    return re.sub(_PATTERNS[self.kind], new, source)

  def is_dropped(self, source: bytes) -> np.ndarray:
    """Which bytes the answer says nothing of, bool [len(source)].

    Of each ABC two of three: which, is the model's choice; here the last.
    """
    dropped = np.zeros(len(source), bool)
    skip = 1 if self.kind == 'merge' else 0
    for match in re.finditer(_PATTERNS[self.kind], source):
      dropped[match.start() + skip : match.end()] = True
    return dropped

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which texts a token stands for, by its place in the window.

Lester et al. 2024, arXiv:2404.03626. The first token of a window narrows down
how its text begins, whatever follows. A later token means something else after
each first token, so alone it says next to nothing.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class WindowTexts:
  """The windows of a text, by place and token.

  Attributes:
    texts: For each place and token of it that occurs, the source bytes of the
      windows that have it there, with how often.
    places: Tokens per window.
    num_values: Values of a token.
  """

  texts: dict[tuple[int, int], collections.Counter]
  places: int
  num_values: int

  def counts(self) -> np.ndarray:
    """Windows with each token at each place [places, values]."""
    return self._table(lambda texts: texts.total())

  def num_texts(self) -> np.ndarray:
    """Different texts of those windows [places, values]."""
    return self._table(len)

  def agreement(self, num_bytes: int = 1) -> np.ndarray:
    """Share of those windows that begin with the most frequent beginning.

    Args:
      num_bytes: How much of the text counts as its beginning.

    Returns:
      [places, values]; nan where the token does not occur.
    """

    def share(texts):
      heads = collections.Counter()
      for text, count in texts.items():
        heads[text[:num_bytes]] += count
      return max(heads.values()) / texts.total()

    return self._table(share, np.nan)

  def common(self, place: int, token: int, num: int = 5) -> list[bytes]:
    """The most frequent texts of a token, ties in alphabetical order."""
    found = self.texts.get((place, token), collections.Counter())
    return sorted(found, key=lambda text: (-found[text], text))[:num]

  def _table(self, value, default=0.0) -> np.ndarray:
    table = np.full((self.places, self.num_values), default, float)
    for (place, token), texts in self.texts.items():
      table[place, token] = value(texts)
    return table


def collect(tokenizer: Any, documents: Sequence[bytes]) -> WindowTexts:
  """Collects the windows of documents.

  Args:
    tokenizer: Of `tokenizers.neural`, with windows of whole tokens.
    documents: Texts.
  """
  places = tokenizer.tokens_per_window
  texts = collections.defaultdict(collections.Counter)
  pairs = tokenizer.encode_batch_with_offsets(documents)
  for document, (ids, offsets) in zip(documents, pairs, strict=True):
    # The first token of a window is charged with all of its bytes.
    starts, ends = offsets[::places, 0], offsets[::places, 1]
    windows = [
      document[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    for place in range(places):
      for token, text in zip(ids[place::places].tolist(), windows, strict=True):
        texts[place, token][text] += 1
  num_values = tokenizer.vocab_size - len(tokenizer.special.ids())
  return WindowTexts(dict(texts), places, num_values)

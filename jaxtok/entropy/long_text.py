# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of one long text, coded at many places at once.

Where a window starts depends on all windows before it, so one text is one lane.
But with the model reset at each window nothing else depends on them, and two
codings of a text that start at different places soon agree on a window's start,
and then for ever (like Huffman codes, which synchronise themselves). So the
text is cut into overlapping pieces, which are coded side by side; each is used
from the first start on which it and the piece before agree. If two pieces do
not agree within their overlap, the later one is coded anew from where the
earlier one ends. The result is that of coding from start to end.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Codes texts, each followed by EOS, to words [n, w] and spans [n].
Encode = Callable[[list[bytes]], list[tuple[np.ndarray, np.ndarray]]]

# In windows of the most symbols: after so many, starts agree all but surely.
OVERLAP = 64
PIECE = 4 * OVERLAP


class _Piece(NamedTuple):
  """Windows of a piece that do not depend on where the piece was cut.

  Attributes:
    begin: Where the piece starts in the text.
    starts: Where its windows start, then where the last one ends.
    words: Their words.
  """

  begin: int
  starts: np.ndarray
  words: np.ndarray


def is_long(num_bytes: int, max_symbols: int) -> bool:
  """Whether a text is worth cutting."""
  return num_bytes > 2 * PIECE * max_symbols


def encode(
  text: bytes, encode_texts: Encode, max_symbols: int
) -> tuple[np.ndarray, np.ndarray]:
  """Codes a text, followed by EOS.

  Args:
    text: The text.
    encode_texts: Codes several texts from their start.
    max_symbols: The most symbols in a window.

  Returns:
    Words and how many symbols each covers, as `encode_texts([text])[0]`.
  """
  step, overlap = PIECE * max_symbols, OVERLAP * max_symbols
  # Each piece but the last stops before the end.
  begins = list(range(0, max(1, len(text) - overlap), step))
  stops = [min(begin + step + overlap, len(text)) for begin in begins]
  coded = encode_texts([text[a:b] for a, b in zip(begins, stops, strict=True)])
  pieces = [
    _certain(begin, stop, *windows, len(text), max_symbols)
    for begin, stop, windows in zip(begins, stops, coded, strict=True)
  ]
  now, place, found = pieces[0], 0, []
  for later, stop in zip(pieces[1:], stops[1:], strict=True):
    common = np.intersect1d(now.starts, later.starts[:-1])
    common = common[common >= max(place, later.begin)]
    meeting = int(common[0]) if len(common) else int(now.starts[-1])
    found.append(_between(now, place, meeting))
    now, place = later, meeting
    if not len(common):
      [windows] = encode_texts([text[meeting:stop]])
      now = _certain(meeting, stop, *windows, len(text), max_symbols)
  found.append(_between(now, place, int(now.starts[-1])))
  words, spans = zip(*found, strict=True)
  return np.concatenate(words), np.concatenate(spans)


def _certain(begin, stop, words, spans, length, max_symbols) -> _Piece:
  """Drops windows that would be others if the text went on after `stop`."""
  edges = begin + np.concatenate([[0], np.cumsum(spans, dtype=np.int64)])
  num = len(words)
  if stop < length:  # A window looks at most at one symbol behind its last.
    num = int(np.searchsorted(edges[:-1], stop - max_symbols))
  return _Piece(begin, edges[: num + 1], words[:num])


def _between(piece: _Piece, start: int, stop: int) -> tuple:
  """Words and spans of the windows that start in [start, stop)."""
  a, b = np.searchsorted(piece.starts, [start, stop])
  spans = np.diff(piece.starts[a : b + 1]).astype(np.int32)
  return piece.words[a:b], spans

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text inside arbitrary bytes: maximal valid UTF-8 runs and invalid bytes.

Python's `surrogateescape` marks every byte that is no part of valid UTF-8 as
one of the 128 characters U+DC80..U+DCFF, which valid text cannot contain.
"""

import re

import numpy as np
from jaxtyping import Int, UInt32

_ESCAPED = re.compile('([\udc80-\udcff]+)')
_FIRST_ESCAPE = 0xDC00  # Plus the byte.


def runs(data: bytes) -> list[str | bytes]:
  """Cuts bytes into valid text and invalid bytes, in turn.

  Returns:
    Pieces that join to `data`: the even ones are text (perhaps empty), the
    odd ones are runs of invalid bytes.
  """
  try:
    return [data.decode('utf-8')]
  except UnicodeDecodeError:
    pieces = _ESCAPED.split(data.decode('utf-8', 'surrogateescape'))
  return [
    piece.encode('utf-8', 'surrogateescape') if i % 2 else piece
    for i, piece in enumerate(pieces)
  ]


def codepoints(text: str) -> UInt32[np.ndarray, 'c']:
  """The code points of a text, escaped bytes included, uint32."""
  data = text.encode('utf-32-le', 'surrogatepass')
  return np.frombuffer(data, np.uint32)


def shift_escapes(data: bytes, first: int) -> str | None:
  """Decodes with byte 0x80 + k, where invalid, as character `first + k`.

  Args:
    data: Any bytes.
    first: The first of 128 characters.

  Returns:
    The text; None if `data` itself contains one of those characters.
  """
  points = codepoints(data.decode('utf-8', 'surrogateescape')).copy()
  if ((points >= first) & (points < first + 128)).any():
    return None
  low, high = _FIRST_ESCAPE + 0x80, _FIRST_ESCAPE + 0xFF
  is_escape = (points >= low) & (points <= high)
  points[is_escape] += np.uint32(first - low)
  return points.tobytes().decode('utf-32-le')


def char_starts(text: str) -> Int[np.ndarray, 'c_plus_1']:
  """Byte offset of each character and of the end, int64.

  Escaped bytes count as the one byte that they stand for.
  """
  points = codepoints(text)
  widths = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
  widths[(points >= _FIRST_ESCAPE + 0x80) & (points <= 0xDCFF)] = 1
  starts = np.zeros(len(points) + 1, np.int64)
  np.cumsum(widths, out=starts[1:])
  return starts

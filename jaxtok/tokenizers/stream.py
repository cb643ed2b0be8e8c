# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows text while it is generated, never half a character."""

import codecs
from collections.abc import Callable
from typing import Any


class StreamDecoder:
  """Turns ids into text one by one; emits only complete UTF-8 characters.

  The pieces, with the `flush` at the end, join to `decode_text(ids)`: bytes
  that can no longer become valid UTF-8 come out as U+FFFD.
  """

  def __init__(self, decode: Callable[[Any], bytes], *, incremental: bool):
    """Starts with no text.

    Args:
      decode: Ids to bytes.
      incremental: Whether `decode` of a row is the concatenation of `decode`
        of each id. If not, every push decodes the whole row again, and a text
        that was already emitted is not taken back.
    """
    self._decode = decode
    self._incremental = incremental
    self._ids: list[int] = []
    self._emitted = ''
    self._utf8 = codecs.getincrementaldecoder('utf-8')('replace')

  def push(self, token: int) -> str:
    """Adds an id; returns the text that is now complete, maybe none."""
    if self._incremental:
      return self._utf8.decode(self._decode([token]))
    self._ids.append(int(token))
    self._utf8.reset()
    return self._new(self._utf8.decode(self._decode(self._ids)).rstrip('�'))

  def flush(self) -> str:
    """Ends the text; returns U+FFFD for a character that was cut short."""
    if self._incremental:
      return self._utf8.decode(b'', final=True)
    return self._new(self._decode(self._ids).decode('utf-8', 'replace'))

  def _new(self, text: str) -> str:
    if not text.startswith(self._emitted):
      return ''
    new, self._emitted = text[len(self._emitted) :], text
    return new

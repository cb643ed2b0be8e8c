# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""How bytes and texts are shown: in a terminal and in a notebook."""

import codecs
import dataclasses
import html
import re

# Everything that could move the cursor or hide text, but tab and newline.
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]')


def _escape(match: re.Match[str]) -> str:
  code = ord(match[0])
  return f'\\x{code:02x}' if code < 256 else f'\\u{code:04x}'


def printable(data: bytes) -> str:
  """Text of any bytes; what is not printable UTF-8 is shown as `\\xff`."""
  return _CONTROL.sub(_escape, data.decode('utf-8', 'backslashreplace'))


class StreamPrinter:
  """Turns pieces of bytes into printable text, never splitting a character."""

  def __init__(self):
    self._decoder = codecs.getincrementaldecoder('utf-8')('backslashreplace')

  def push(self, data: bytes, final: bool = False) -> str:
    """Returns the text that is complete now; `final` flushes the rest."""
    return _CONTROL.sub(_escape, self._decoder.decode(data, final))


def _pre(inner: str) -> str:
  style = 'white-space: pre-wrap; overflow-wrap: anywhere'
  return f'<pre style="{style}">{inner}</pre>'


class Text(str):
  """A string that a notebook shows with its line breaks."""

  def _repr_html_(self) -> str:
    return _pre(html.escape(self))


@dataclasses.dataclass(frozen=True)
class Sample:
  """A prompt and what a model made of it, both bytes."""

  prompt: bytes
  continuation: bytes

  def __bytes__(self) -> bytes:
    return self.prompt + self.continuation

  def __str__(self) -> str:
    return printable(bytes(self))

  def _repr_html_(self) -> str:
    prompt = html.escape(printable(self.prompt))
    rest = html.escape(printable(self.continuation))
    return _pre(f'<b>{prompt}</b>{rest}')


class Samples(list[Sample]):
  """Several samples; shown one below the other."""

  def __str__(self) -> str:
    return '\n\n'.join(
      f'--- sample {i + 1} of {len(self)} ---\n{sample}'
      for i, sample in enumerate(self)
    )

  def _repr_html_(self) -> str:
    return '<hr>'.join(sample._repr_html_() for sample in self)

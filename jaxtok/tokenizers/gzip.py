# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens cut from the gzip of each document.

The baseline "GZip" of Lester et al. 2024, arXiv:2404.03626: zlib's default
level, header and footer kept. A format made for search, not for learning.
"""

import gzip
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.tokenizers import coded


@configclass
class Config:
  """Builds a `GzipTokenizer`."""

  token_bits: int = 16  # 8 or 16.
  level: int = 6  # zlib's default.

  def make(self, documents: Any = None) -> 'GzipTokenizer':
    """Builds the tokenizer; `documents` are not read."""
    del documents
    return GzipTokenizer(token_bits=self.token_bits, level=self.level)


class GzipTokenizer(coded.CodedTokenizer):
  """The gzip stream of a document, a byte or two per token.

  The format does not tell which bytes a token stands for; bytes are charged
  evenly. Ids that are no gzip stream decode as far as they make sense.
  """

  def __init__(self, *, token_bits: int = 16, level: int = 6):
    if not 0 <= level <= 9:
      raise ValueError(f'level={level} must be in 0..9.')
    self.level = level
    super().__init__(token_bits)

  def compress(self, data: Sequence[bytes]) -> list[coded.Coded]:
    return [self._compress(x) for x in data]

  def _compress(self, data: bytes) -> coded.Coded:
    stream = gzip.compress(data, self.level, mtime=0)
    stream += bytes(len(stream) % 2)
    digits = np.frombuffer(stream, '>u2').astype(np.uint16)
    edges = np.arange(len(digits) + 1) * len(data) // len(digits)
    return digits, np.diff(edges)

  def decompress(self, digits: Sequence[np.ndarray]) -> list[bytes]:
    return [_decompress(x.astype('>u2').tobytes()) for x in digits]

  def identity(self) -> dict[str, Any]:
    return {
      'tokenizer': 'gzip',
      'token_bits': self.token_bits,
      'level': self.level,
      'zlib': zlib.ZLIB_RUNTIME_VERSION,
    }

  def save_config(self, path: Any) -> dict[str, Any]:
    del path
    return {'token_bits': self.token_bits, 'level': self.level}

  @classmethod
  def from_config(cls, path: Any, config: dict[str, Any]) -> 'GzipTokenizer':
    del path
    return cls(**config)


def _decompress(stream: bytes) -> bytes:
  """The bytes of a gzip stream, up to where it stops making sense."""
  decoder = zlib.decompressobj(wbits=31)
  try:
    return decoder.decompress(stream)
  except zlib.error:
    decoder, data = zlib.decompressobj(wbits=31), bytearray()
  for i in range(len(stream)):
    try:
      data += decoder.decompress(stream[i : i + 1])
    except zlib.error:
      break
  return bytes(data)

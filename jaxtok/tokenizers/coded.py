# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens that are pieces of a compressed text.

A compressor turns a document into 16-bit digits, and says how many source bytes
went into each; a token is a digit or, with 8-bit tokens, half of one. The end
of the document is part of the code, so decoding stops there by itself. Special
ids come after the 2**8 or 2**16 others: pad, bos, eos.
"""

import abc
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import base
from jaxtok.tokenizers.ragged import Ragged

TOKEN_BITS = (8, 16)

# Digits (uint16) of a document, and source bytes charged to each (sum: all).
Coded = tuple[np.ndarray, np.ndarray]

_SELF_TEST = b'Call me Ishmael. \xe2\x80\xa6\x00\xff' + bytes(range(32, 127))


def check_token_bits(token_bits: int) -> None:
  """Raises ValueError unless tokens can have so many bits."""
  if token_bits not in TOKEN_BITS:
    raise ValueError(f'token_bits={token_bits} must be one of {TOKEN_BITS}.')


class CodedTokenizer(base.Tokenizer):
  """Cuts a compressed document into tokens; subclasses compress."""

  kind: base.Kind = 'context'
  lossless: base.Lossless = 'bytes'

  def __init__(self, token_bits: int, num_values: int = 0):
    """Sets ids up.

    Args:
      token_bits: 8 or 16.
      num_values: How many ids stand for bits; 0 means all 2**token_bits.
    """
    check_token_bits(token_bits)
    self.token_bits = token_bits
    self.tokens_per_window = 16 // token_bits
    first = num_values or 1 << token_bits
    self.special = base.SpecialTokens(pad=first, bos=first + 1, eos=first + 2)
    self.vocab_size = first + 3
    self.prefix, self.suffix = (first + 1,), (first + 2,)
    self.special_text = {
      token: f'<{name}>'.encode()
      for name, token in self.special.by_name().items()
    }

  @abc.abstractmethod
  def compress(self, documents: Sequence[bytes]) -> list[Coded]:
    """Digits of documents, and source bytes charged to each digit."""

  @abc.abstractmethod
  def decompress(self, digits: Sequence[np.ndarray]) -> list[bytes]:
    """The bytes of rows of digits; any digits are valid, if they do decode."""

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    return self._tokens(self.compress([data])[0][0])

  def encode_prompt(self, x: base.Data) -> tuple[Int[np.ndarray, 'n'], bytes]:
    data = base.as_bytes(x)
    if data:
      raise ValueError(
        f'{self!r} cannot continue a prompt of {len(data)} bytes: the code of '
        'its end depends on what follows. Use an empty prompt, or 16-bit '
        'windows that a dictionary codes.'
      )
    return np.zeros(0, np.int32), b''

  def encode_batch(
    self,
    xs: Any,
    *,
    add_special: bool = False,
    num_threads: int | None = None,
  ) -> Ragged:
    del num_threads  # Documents are lanes of one compiled call.
    rows = [
      self._tokens(digits)
      for digits, _ in self.compress([base.as_bytes(x) for x in xs])
    ]
    if add_special:
      rows = [np.concatenate([self.prefix, x, self.suffix]) for x in rows]
    return Ragged.from_rows(rows)

  def encode_batch_with_offsets(
    self, xs: Sequence[base.Data]
  ) -> list[tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]]:
    """`encode_with_offsets` of several documents, side by side."""
    coded = self.compress([base.as_bytes(x) for x in xs])
    return [self._with_offsets(*x) for x in coded]

  def encode_with_offsets(
    self, x: base.Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    data = base.as_bytes(x)
    [(ids, offsets)] = self.encode_batch_with_offsets([data])
    if add_special:
      ids = np.concatenate([self.prefix, ids, self.suffix]).astype(np.int32)
      ends = np.array([[0, 0], [len(data), len(data)]])
      offsets = np.concatenate([ends[:1], offsets, ends[1:]])
    return ids, offsets

  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    ids = base.check_ids(ids, self.vocab_size)
    is_special = ids >= self.vocab_size - 3
    edges = [-1, *np.flatnonzero(is_special).tolist(), len(ids)]
    parts = [ids[a + 1 : b] for a, b in itertools.pairwise(edges)]
    texts = iter(
      self.decompress([self._digits(part) for part in parts if len(part)])
    )
    pieces = []
    for part, edge in zip(parts, edges[1:], strict=True):
      pieces.append(next(texts) if len(part) else b'')
      if edge < len(ids) and not skip_special:
        pieces.append(self.special_text[int(ids[edge])])
    return b''.join(pieces)

  def self_test(self) -> list[int]:
    """Ids of a fixed text, stored with the tokenizer and compared on load."""
    return self.encode_bytes(_SELF_TEST).tolist()

  def check_self_test(self, ids: Sequence[int]) -> None:
    """Raises ValueError if the fixed text has other ids now."""
    if self.self_test() != list(ids):
      raise ValueError(
        f'this {type(self).__name__} gives other ids than when it was saved, '
        'though its files are the same: text coded then would be decoded '
        'wrongly here. If it runs a float model, use it on the machine and '
        'versions it was saved with; otherwise please report this.'
      )

  def _tokens(self, digits: np.ndarray) -> Int[np.ndarray, 'n']:
    if self.token_bits == 16:
      return digits.astype(np.int32)
    return np.frombuffer(digits.astype('>u2').tobytes(), np.uint8).astype(
      np.int32
    )

  def _digits(self, tokens: Int[np.ndarray, 'n']) -> np.ndarray:
    """Digits of tokens; half a digit at the end is left out."""
    if self.token_bits == 16:
      return tokens.astype(np.uint16)
    data = tokens.astype(np.uint8).tobytes()
    return np.frombuffer(data, '>u2', len(data) // 2).astype(np.uint16)

  def _with_offsets(self, digits: np.ndarray, charges: np.ndarray) -> tuple:
    """Tokens and offsets; of tokens that share bytes the first has them."""
    ids = self._tokens(digits)
    charges = charges.astype(np.int64)
    if self.token_bits == 8:
      charges = np.stack([charges, np.zeros_like(charges)], axis=1).reshape(-1)
    ends = np.cumsum(charges)
    return ids, np.stack([ends - charges, ends], axis=1)

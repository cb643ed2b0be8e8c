# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers whose ids stand for fixed strings of bytes.

Decoding is concatenation, so byte offsets are sums of the tokens' lengths and
bits per byte are exact. What must hold is that every byte can be expressed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.tokenizers import base

# Byte values that occur nowhere in valid UTF-8.
NOT_IN_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})


class ConcatTokenizer(base.Tokenizer):
  """Each id stands for a fixed string of bytes; decode concatenates them."""

  def __init__(
    self,
    table: Sequence[bytes],
    special: base.SpecialTokens,
    *,
    kind: base.Kind = 'concat',
    lossless: base.Lossless = 'bytes',
    special_text: Mapping[int, bytes] | None = None,
  ):
    """Checks that every byte can be expressed.

    Args:
      table: The bytes of each id. What special ids hold here is ignored;
        empty strings are ids that `encode` never emits.
      special: Special ids; `pad` may lie outside the table.
      kind: See the module.
      lossless: 'bytes' demands a token for each of the 256 single bytes,
        'text' for those that occur in valid UTF-8.
      special_text: What special ids decode to if they are not skipped;
        `<name>` by default.

    Raises:
      ValueError: If single bytes are missing.
    """
    self.kind, self.lossless, self.special = kind, lossless, special
    self.vocab_size = len(table)
    named = reversed(special.by_name().items())  # Roles win over extra.
    names = {token: f'<{name}>'.encode() for name, token in named}
    self.special_text = names | dict(special_text or {})
    skip = special.ids()
    self._table = [b'' if i in skip else b for i, b in enumerate(table)]
    self._lengths = np.array([len(b) for b in self._table], np.int32)
    self._lengths.flags.writeable = False
    self._byte_ids = self._find_single_bytes()

  def _find_single_bytes(self) -> Int[np.ndarray, '256']:
    ids = np.full(256, -1, np.int32)
    for token in np.flatnonzero(self._lengths == 1)[::-1]:
      ids[self._table[token][0]] = token
    allowed = NOT_IN_UTF8 if self.lossless == 'text' else frozenset()
    if self.lossless != 'no':
      missing = [b for b in range(256) if ids[b] < 0 and b not in allowed]
      if missing:
        shown = ', '.join(f'0x{b:02X}' for b in missing[:8])
        raise ValueError(
          f'the vocabulary has no token for {len(missing)} of the 256 single '
          f'bytes ({shown}{", ..." if len(missing) > 8 else ""}), so it cannot '
          'express every input. A byte-complete vocabulary is required.'
        )
    return ids

  @property
  def token_byte_lengths(self) -> Int[np.ndarray, 'v']:
    return self._lengths

  def token_bytes(self, token: int) -> bytes:
    if token == self.special.pad:
      return b''
    if not 0 <= token < self.vocab_size:
      raise ValueError(
        f'id {token} is outside the vocabulary [0, {self.vocab_size}).'
      )
    return self._table[token]

  def encode_with_offsets(
    self, x: base.Data, *, add_special: bool = False
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n 2']]:
    ids = self.encode(x, add_special=add_special)
    lengths = self._lengths[ids].astype(np.int64)
    ends = np.cumsum(lengths)
    return ids, np.stack([ends - lengths, ends], axis=1)

  def decode(self, ids: Any, *, skip_special: bool = True) -> bytes:
    ids = base.check_ids(ids, self.vocab_size, self.special.pad)
    if skip_special:
      return b''.join([self._table[i] for i in ids.tolist()])
    text = self.special_text
    return b''.join([text.get(i) or self._table[i] for i in ids.tolist()])

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bytes, with a mark behind each word: the tokens of HAT.

  b'to be'  ->  t o _ <word> b e <word>        # rule 'whitespace'

Neitemeier et al. 2025, arXiv:2501.10322: a model spells a word byte by byte and
says by a special token that it is complete. The mark stands for no bytes, so
bits per byte count what it costs, and divide by the text. Words are cut by a
rule of `words`, here, in the data pipeline; when a model generates, it cuts
words itself, by emitting marks.

Ids: byte b, pad 256, bos 257, eos 258, word 259.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.config import configclass
from jaxtok.tokenizers import base, concat, words

WORD = 259
_SPACES = (b' ', b'\t', b'\n', b'\v', b'\f', b'\r')


@configclass
class Config:
  """Builds a `WordByteTokenizer`."""

  rule: str = 'whitespace'  # A key of `words.RULES`.
  longest: int = 64  # Bytes of a word; longer ones are cut.

  def __post_init__(self):
    if self.rule not in words.RULES:
      raise ValueError(
        f'rule={self.rule!r} must be one of {", ".join(words.RULES)}.'
      )
    if self.longest < 1:
      raise ValueError(f'longest={self.longest} must be >= 1.')

  def make(self, documents: Any = None) -> 'WordByteTokenizer':
    """Builds the tokenizer; nothing is trained, `documents` are not read."""
    del documents
    return WordByteTokenizer(self.rule, self.longest)


class WordByteTokenizer(concat.ConcatTokenizer):
  """One token per byte, and one per word."""

  max_tokens_per_byte = 2  # A word of one byte.
  depends_on = ('numpy', 'regex')

  def __init__(self, rule: str = 'whitespace', longest: int = 64):
    config = Config(rule=rule, longest=longest)
    self.rule, self.longest = config.rule, config.longest
    table = [bytes([b]) for b in range(256)] + [b''] * 4
    super().__init__(table, base.SpecialTokens(pad=256, bos=257, eos=258))
    self.prefix, self.suffix = (257,), (258,)

  def encode_bytes(self, data: bytes) -> Int[np.ndarray, 'n']:
    ends = words.split(data, self.rule, self.longest)
    raw = np.frombuffer(data, np.uint8).astype(np.int32)
    return np.insert(raw, ends, WORD).astype(np.int32)

  def encode_prompt(self, x: base.Data) -> tuple[Int[np.ndarray, 'n'], bytes]:
    """The ids of a text that will go on: its last word is open.

    By the rule 'whitespace' a word that ends in white space is complete.
    """
    data = base.as_bytes(x)
    ids = self.encode(data)
    is_closed = self.rule == 'whitespace' and data.endswith(_SPACES)
    return (ids if is_closed or not len(ids) else ids[:-1]), b''

  def split(self, x: base.Data) -> Int[np.ndarray, 'w 2']:
    """Byte ranges of the words, int64."""
    ends = words.split(base.as_bytes(x), self.rule, self.longest)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
    return np.stack([starts, ends], axis=1).astype(np.int64)

  def identity(self) -> dict[str, Any]:
    return {
      'tokenizer': 'word_bytes',
      'rule': self.rule,
      'longest': self.longest,
    }

  def save_config(self, path: Any) -> dict[str, Any]:
    del path
    return {'rule': self.rule, 'longest': self.longest}

  @classmethod
  def from_config(
    cls, path: Any, config: dict[str, Any]
  ) -> 'WordByteTokenizer':
    del path
    return cls(config['rule'], config['longest'])

  def _repr_extra(self) -> str:
    return f'rule={self.rule!r}, longest={self.longest}'

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text in a substitution cipher, with another key for each document.

Huang et al. 2023, arXiv:2305.16349, section 4.2: a model that knows no symbols
reads it like plain text. Only ASCII letters are replaced, an upper-case letter
by the upper case of what its lower case is replaced by. With `switch` a second
key is used behind that share of the document: the loss jumps there, and falls
again as the new key is deciphered. `token_tables` has keys for rows of tokens.
"""

import hashlib
import string
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxtok.config import configclass
from jaxtok.data import source as source_lib

_LOWER, _UPPER = (
  np.frombuffer(x.encode(), np.uint8)
  for x in (string.ascii_lowercase, string.ascii_uppercase)
)


@configclass
class Ciphered:
  """Documents of another source, in cipher."""

  source: Any  # Any source config.
  switch: float = 1.0  # Share of a document that the first key is used for.

  def __post_init__(self):
    if not 0 < self.switch <= 1:
      raise ValueError(f'switch={self.switch} must be in (0, 1].')

  def make(self, split: str) -> 'CipheredSource':
    """The documents of a split."""
    return CipheredSource(self.source.make(split), self.switch)


class CipheredSource:
  """See `Ciphered`."""

  def __init__(self, source: source_lib.Source, switch: float):
    self._source, self._switch = source, switch
    self.key = f'{source.key}:cipher={switch!r}'

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    record = self._source[index]
    return {**record, 'data': encipher(record['data'], self._switch)}


def encipher(data: bytes, switch: float = 1.0) -> bytes:
  """A document in cipher; the keys are a function of the document."""
  digest = hashlib.blake2b(data, digest_size=8).digest()
  rng = np.random.default_rng(int.from_bytes(digest, 'little'))
  x = np.frombuffer(data, np.uint8)
  edge = round(switch * len(x))
  parts = [key(rng)[x[:edge]], key(rng)[x[edge:]]]
  return np.concatenate(parts).tobytes()


def key(rng: np.random.Generator) -> UInt8[np.ndarray, '256']:
  """A random key: what each byte is replaced by."""
  order = rng.permutation(26)
  table = np.arange(256, dtype=np.uint8)
  table[_LOWER], table[_UPPER] = _LOWER[order], _UPPER[order]
  return table


def letter_ids(tokenizer: Any) -> Int[np.ndarray, '2 26']:
  """The ids of the lower-case letters, and of the upper-case ones.

  Raises:
    ValueError: If there are tokens of several bytes.
  """
  if (longest := tokenizer.token_byte_lengths.max()) > 1:
    raise ValueError(
      f'{tokenizer!r} has tokens of {longest} bytes, so a row of tokens cannot '
      'be put into a cipher of letters. Use a tokenizer over bytes.'
    )
  found = [tokenizer.encode(bytes([x])) for x in (*_LOWER, *_UPPER)]
  return np.concatenate(found).reshape(2, 26)


def token_tables(
  tokenizer: Any, rng: np.random.Generator, num_rows: int, num_keys: int = 1
) -> Int[np.ndarray, 'b k v']:
  """Random keys for rows of tokens: what each id is replaced by.

  Args:
    tokenizer: One over bytes.
    rng: Of the keys.
    num_rows: Rows b.
    num_keys: Keys k of each.
  """
  ids = letter_ids(tokenizer)
  every = np.arange(tokenizer.vocab_size, dtype=np.int32)
  tables = np.tile(every, (num_rows, num_keys, 1))
  for row in tables.reshape(-1, len(every)):
    row[ids] = ids[:, rng.permutation(26)]
  return tables

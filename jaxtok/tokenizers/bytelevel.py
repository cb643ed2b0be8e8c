# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE as data: spelling of bytes, regexes, ranks, merges.

In byte-level vocabularies each byte is written as one printable character
(GPT-2, Radford et al. 2019), so that every token is a string of bytes.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

Spec = dict[str, Any]

# Splits of text into words, by the tokenizers that made them known.
PATTERNS = {
  'gpt2': (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|"
    r'\s+(?!\S)|\s+'
  ),
  'cl100k': (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  ),
  'o200k': (
    r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*'
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+'
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r'\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  ),
}


def _make_alphabet() -> list[str]:
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = itertools.count(256)
  return [chr(b if b in printable else next(others)) for b in range(256)]


ALPHABET = _make_alphabet()  # The character that stands for each byte.
_BYTE_OF = {char: byte for byte, char in enumerate(ALPHABET)}


def to_chars(data: bytes) -> str:
  """How a byte-level vocabulary writes some bytes."""
  return ''.join([ALPHABET[b] for b in data])


def to_bytes(token: str) -> bytes | None:
  """The inverse of `to_chars`; None if a character stands for no byte."""
  try:
    return bytes([_BYTE_OF[c] for c in token])
  except KeyError:
    return None


def make_spec(
  vocab: dict[str, int],
  merges: Iterable[Sequence[str]],
  special: dict[str, int],
  pre_tokenizer: dict[str, Any],
  *,
  ignore_merges: bool = False,
) -> Spec:
  """A byte-level BPE tokenizer; special names become vocabulary entries."""
  flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
  added = [
    {'id': i, 'content': name, **flags, 'special': True}
    for name, i in sorted(special.items(), key=lambda item: item[1])
  ]
  model = {
    'type': 'BPE',
    'dropout': None,
    'unk_token': None,
    'continuing_subword_prefix': None,
    'end_of_word_suffix': None,
    'fuse_unk': False,
    'byte_fallback': False,
    'ignore_merges': ignore_merges,
    'vocab': vocab | special,
    'merges': [list(pair) for pair in merges],
  }
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': added,
    'normalizer': None,
    'pre_tokenizer': pre_tokenizer,
    'post_processor': None,
    'decoder': byte_level(use_regex=True),
    'model': model,
  }


def byte_level(*, use_regex: bool) -> dict[str, Any]:
  """The ByteLevel component; with `use_regex` it splits like GPT-2."""
  return {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': False,
    'use_regex': use_regex,
  }


def split_on(pattern: str) -> dict[str, Any]:
  """A pre-tokenizer that splits by a name in `PATTERNS` or a regex."""
  if pattern not in PATTERNS and re.fullmatch(r'\w*', pattern):
    raise ValueError(
      f'pattern={pattern!r} is neither the name of a known split '
      f'({", ".join(PATTERNS)}) nor a regex that could cut text into words.'
    )
  if pattern == 'gpt2':
    return byte_level(use_regex=True)
  regex = {'Regex': PATTERNS.get(pattern, pattern)}
  split = dict(type='Split', pattern=regex, behavior='Isolated', invert=False)
  parts = [split, byte_level(use_regex=False)]
  return {'type': 'Sequence', 'pretokenizers': parts}


def ranks(spec: Spec) -> tuple[dict[bytes, int], list[int]]:
  """Tokens in the order in which BPE makes them.

  Returns:
    Bytes of each token to its rank (the 256 bytes first), and rank to id.
    Tokens that no merge makes follow if the model emits them for whole words
    (`ignore_merges`); otherwise they are never emitted, and left out.
  """
  model, vocab = spec['model'], spec['model']['vocab']
  order = ALPHABET + [left + right for left, right in model['merges']]
  if model.get('ignore_merges'):
    order += list(vocab)
  special = {t['content'] for t in spec['added_tokens'] if t['special']}
  tokens = [t for t in dict.fromkeys(order) if t not in special]
  tokens = [t for t in tokens if to_bytes(t)]
  table = {to_bytes(token): rank for rank, token in enumerate(tokens)}
  return table, [vocab[token] for token in tokens]


def merges_from_ranks(table: dict[bytes, int]) -> list[tuple[str, str]]:
  """The merge that makes each token, in order of rank.

  Args:
    table: Bytes of each token to its rank. Merging any adjacent pair whose
      join is a token, lowest rank first, is what encodes text.

  Returns:
    Pairs in the byte-level spelling. Tokens that this encoding never makes
    from two parts (they are emitted for whole words only) have none.
  """
  merges = []
  for token, rank in sorted(table.items(), key=lambda item: item[1]):
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
      pairs = [a + b for a, b in itertools.pairwise(parts)]
      order = [table.get(pair, rank) for pair in pairs]
      if (lowest := min(order)) >= rank:
        break
      at = order.index(lowest)
      parts[at : at + 2] = [pairs[at]]
    if len(parts) == 2:
      merges.append((to_chars(parts[0]), to_chars(parts[1])))
  return merges

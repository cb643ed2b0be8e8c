# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes objects of `tokenizers` and `tiktoken`; nothing else imports them."""

import json
from collections.abc import Iterable
from typing import Any

import tiktoken
import tokenizers

from jaxtok.tokenizers import bytelevel

VERSIONS = {
  'tokenizers': tokenizers.__version__,
  'tiktoken': tiktoken.__version__,
}


def build(spec: dict[str, Any]) -> tokenizers.Tokenizer:
  """The `tokenizers` object of a tokenizer.json's content.

  Raises:
    ValueError: If that library refuses it.
  """
  try:
    return tokenizers.Tokenizer.from_str(json.dumps(spec))
  except Exception as e:  # The library raises nothing more specific.
    raise ValueError(
      f'`tokenizers` {tokenizers.__version__} cannot read this tokenizer: {e}'
    ) from e


def encoding(
  ranks: dict[bytes, int], pattern: str, special: dict[str, int]
) -> tiktoken.Encoding:
  """The `tiktoken` object of a vocabulary by rank and a regex."""
  return tiktoken.Encoding(
    'jaxtok',
    pat_str=pattern,
    mergeable_ranks=ranks,
    special_tokens=special,
  )


def train_merges(
  texts: Iterable[str],
  num_merges: int,
  pre_tokenizer: dict[str, Any],
  *,
  min_frequency: int,
  max_token_bytes: int,
) -> list[tuple[str, str]]:
  """Trains byte-level BPE; the result depends on the texts alone.

  Args:
    texts: The training text; words do not cross from one to the next.
    num_merges: How many merges to find at most.
    pre_tokenizer: How text is cut into words.
    min_frequency: Pairs seen less often are not merged.
    max_token_bytes: Longest token; 0 sets no limit.

  Returns:
    Pairs of tokens in the byte-level spelling, the most frequent first.
  """
  vocab = {char: byte for byte, char in enumerate(bytelevel.ALPHABET)}
  tokenizer = build(bytelevel.make_spec(vocab, (), {}, pre_tokenizer))
  # The trainer keeps tokens that are shorter than max_token_length.
  limit = dict(max_token_length=max_token_bytes + 1) if max_token_bytes else {}
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=256 + num_merges,
    initial_alphabet=bytelevel.ALPHABET,
    min_frequency=min_frequency,
    show_progress=False,
    **limit,
  )
  tokenizer.train_from_iterator(texts, trainer)
  merges = json.loads(tokenizer.to_str())['model']['merges']
  return [tuple(m.split(' ') if isinstance(m, str) else m) for m in merges]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of models that know nothing, by tokenizer.

Lester et al. 2024, arXiv:2404.03626: what a uniform and a unigram model over
the tokens would need. A tokenizer that has compressed well is good already
under these, so a model has learned something only where it is better.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Trivial:
  """Trivial models of the tokens of a text.

  Attributes:
    num_bytes: Source bytes.
    num_tokens: Tokens, without special ones.
    vocab_size: Values that a token can have, without special ones.
    uniform_nats: Per token: ln(vocab_size).
    unigram_nats: Per token: the entropy of their frequencies in this text.
  """

  num_bytes: int
  num_tokens: int
  vocab_size: int
  uniform_nats: float
  unigram_nats: float

  @property
  def bytes_per_token(self) -> float:
    """How far the tokenizer compresses."""
    return self.num_bytes / self.num_tokens

  @property
  def uniform_bpb(self) -> float:
    """Bits per byte if all values are equally likely."""
    return self.uniform_nats / math.log(2) / self.bytes_per_token

  @property
  def unigram_bpb(self) -> float:
    """Bits per byte of the frequencies, which are taken from the same text."""
    return self.unigram_nats / math.log(2) / self.bytes_per_token


def entropy_nats(counts: Int[np.ndarray, '*v']) -> float:
  """Plug-in entropy of counts, in nats; 0 log 0 = 0."""
  counts = counts[counts > 0]
  total = counts.sum()
  return float(math.log(total) - (counts * np.log(counts)).sum() / total)


def measure(tokenizer: Any, documents: Iterable[bytes]) -> Trivial:
  """Counts the tokens of documents.

  Args:
    tokenizer: Any without loss.
    documents: At least one byte in all.

  Raises:
    ValueError: If the documents are empty.
  """
  documents = list(documents)
  ids = tokenizer.encode_batch(documents).values
  if not len(ids):
    raise ValueError('documents hold no bytes, so there are no tokens.')
  vocab_size = tokenizer.vocab_size - len(tokenizer.special.ids())
  return Trivial(
    num_bytes=sum(map(len, documents)),
    num_tokens=len(ids),
    vocab_size=vocab_size,
    uniform_nats=math.log(vocab_size),
    unigram_nats=entropy_nats(np.bincount(ids)),
  )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gaps that begin inside a token, filled in several ways.

Held-out texts get a gap (Bavarian et al. 2022, arXiv:2207.14255) whose
beginning lies inside a token, as where a programmer stops typing. The bytes
that are missing are scored after the same prompt, cut in the ways of
`decoding.byte_infill`.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import fim
from jaxtok.decoding import byte_infill, byte_probs
from jaxtok.evals import base

# Prefix of a metric: order of the prompt, and how its end is cut.
WAYS = {
  '': ('spm', 'covers'),
  'healed_': ('spm', 'healed'),
  'tokens_': ('spm', 'tokens'),
  'psm_tokens_': ('psm', 'tokens'),
}


@configclass
class Config:
  """What to measure, and how often."""

  every_steps: int = 0  # 0: only after the last step.
  split: str = 'validation'
  max_bytes: int = 0  # Of source text from the split's start; 0: all.
  num_gaps: int = 200
  text_bytes: int = 256  # Longest text around a gap, with it.
  gap_bytes: int = 16  # Longest gap.
  match_bytes: int = 4  # Shortest gap; so many bytes must be the most likely.
  batch_size: int = 16  # Gaps at once.
  # Of the special tokens before prefix, suffix and middle.
  names: tuple[str, ...] = fim.NAMES

  def __post_init__(self):
    for name, least in (
      *(('every_steps', 0), ('max_bytes', 0), ('num_gaps', 1)),
      *(('match_bytes', 1), ('batch_size', 1)),
      *(('gap_bytes', self.match_bytes), ('text_bytes', self.gap_bytes + 2)),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f'{name} must be >= {least}, got {getattr(self, name)}.'
        )
    if len(self.names) != 3:
      raise ValueError(f'names={self.names} must be three special tokens.')

  def make(self, context: base.Context) -> 'Gaps':
    """Builds the eval."""
    return Gaps(self, context)


@dataclasses.dataclass(frozen=True)
class Gap:
  """A text in three parts; the prefix ends inside a token of the text."""

  prefix: bytes
  middle: bytes
  suffix: bytes


class Gaps:
  """Mean cost of the bytes that are missing.

  Returns:
    bpb: Bits per byte of the gaps, after SPM prompts, by the sum over covers.
    bpb_se: Its standard error, from the gaps' total bits.
    first_bits: Bits of each gap's first byte.
    match: Share of the gaps whose first `match_bytes` bytes are what the most
      likely bytes one after the other would be.
    healed_, tokens_ and psm_tokens_ before these: token healing, and the
      encoding of the prefix as it is, in both orders.
    gaps, bytes, corpus: How much was measured, and on what text.
  """

  def __init__(self, config: Config, context: base.Context):
    self._config, self._context = config, context

  def __call__(self, model: Any, rng: Any) -> dict[str, float | str]:
    del rng  # The gaps are the same each time.
    config, context = self._config, self._context
    found = cut(self._texts(), context.tokenizer, config)
    byte_model = byte_probs.ByteModel(model, context.tokenizer)
    return measure(byte_model, found, config) | {
      'corpus': context.corpus_id(config.split, config.max_bytes)
    }

  def _texts(self) -> Iterable[bytes]:
    """The first document of each row."""
    config, context = self._config, self._context
    for ids in context.first_documents(config.split, config.max_bytes):
      yield context.tokenizer.decode(ids)[: config.text_bytes]


def cut(
  texts: Iterable[bytes],
  tokenizer: Any,
  config: Config,
  firsts: Iterable[int] | None = None,
) -> list[Gap]:
  """Gaps in texts, one in each that has room.

  Args:
    texts: Any.
    tokenizer: Of kind 'concat'.
    config: How many gaps, how long.
    firsts: Byte of each text before which no gap begins; None means 0.

  Raises:
    ValueError: If no token can be cut.
  """
  rng, gaps = np.random.default_rng(0), []
  firsts = itertools.repeat(0) if firsts is None else firsts
  for text, first in zip(texts, firsts, strict=False):  # May never end.
    lengths = tokenizer.token_byte_lengths[tokenizer.encode(text)]
    is_inside = np.ones(len(text) + 1, bool)
    is_inside[np.cumsum(lengths)] = False
    is_inside[: max(first, 1)] = False
    is_inside[max(len(text) - config.match_bytes + 1, 0) :] = False
    places = np.flatnonzero(is_inside)
    if places.size:
      low = int(rng.choice(places))
      most = min(config.gap_bytes, len(text) - low)
      high = low + int(rng.integers(config.match_bytes, most + 1))
      gaps.append(Gap(text[:low], text[low:high], text[high:]))
    if len(gaps) == config.num_gaps:
      return gaps
  if not gaps:
    raise ValueError(
      'no text has a token of two bytes or more with '
      f'match_bytes={config.match_bytes} behind it, so no gap can begin inside '
      'one. Use longer texts, or a tokenizer with longer tokens.'
    )
  return gaps


def measure(
  model: byte_probs.ByteModel, gaps: list[Gap], config: Config
) -> dict[str, float]:
  """The numbers of `Gaps`, without the text's."""
  prefix, suffix, middle = fim.marks(model.tokenizer, config.names)
  result, sizes = {}, np.array([len(gap.middle) for gap in gaps])
  for name, (order, ending) in WAYS.items():
    prompts = byte_infill.Config(
      prefix=prefix, suffix=suffix, middle=middle, order=order, cut=ending
    )
    parts = [
      _score(model, gaps[low : low + config.batch_size], prompts)
      for low in range(0, len(gaps), config.batch_size)
    ]
    bits, is_best = (
      [row for part in parts for row in part[i]] for i in range(2)
    )
    totals = np.array([row.sum() for row in bits])
    result[f'{name}bpb'] = float(totals.sum() / sizes.sum())
    excess = totals - result[f'{name}bpb'] * sizes
    result[f'{name}bpb_se'] = float(math.sqrt((excess**2).sum()) / sizes.sum())
    result[f'{name}first_bits'] = float(np.mean([row[0] for row in bits]))
    result[f'{name}match'] = float(
      np.mean([row[: config.match_bytes].all() for row in is_best])
    )
  return result | {'gaps': len(gaps), 'bytes': int(sizes.sum())}


def _score(
  model: byte_probs.ByteModel, gaps: list[Gap], config: byte_infill.Config
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Bits of each byte of the gaps, and whether it is the most likely."""
  longest = max(len(gap.middle) for gap in gaps)
  state = byte_infill.start(
    model,
    [gap.prefix for gap in gaps],
    [gap.suffix for gap in gaps],
    num_bytes=longest,
    config=config,
  )
  bits = [np.zeros(len(gap.middle)) for gap in gaps]
  is_best = [np.zeros(len(gap.middle), bool) for gap in gaps]
  for place in range(longest):
    law = state.logprobs()
    symbols = [
      gap.middle[place] if place < len(gap.middle) else -1 for gap in gaps
    ]
    for i, symbol in enumerate(symbols):
      if symbol >= 0:
        bits[i][place] = -law[i, symbol] / math.log(2)
        is_best[i][place] = law[i].argmax() == symbol
    if place < longest - 1:
      state.append(symbols)
  return bits, is_best

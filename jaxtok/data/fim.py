# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Documents with a gap, for models that fill in the middle.

Bavarian et al. 2022, arXiv:2207.14255, section 3. A share of the documents is
cut at two random bytes, also inside tokens, and written in another order:

  PSM   <PRE> prefix <SUF> suffix <MID> middle
  SPM   <PRE> <SUF> suffix <MID> prefix middle

(SPM in the form of their appendix D, which goes with PSM.) Each part is
encoded by itself, so that a model reads cut tokens. With `spm='joined'`
prefix and middle of SPM are encoded as one text, as for Code Llama (Rozière et
al. 2023, arXiv:2308.12950, section 2.3): then no token is cut before the
middle, and prompts that end inside a token need `decoding.byte_infill`.

All parts are predicted, as in the paper; marks are charged with no bytes.
Documents are far longer than the rows of small models, which would see the end
of no gap: `piece_bytes` cuts documents into pieces first, each with a gap of
its own (the paper's context-level FIM, section 4.4).

Only the training split has gaps, the same in each epoch; other splits are
plain text, so that bits per byte are those of other models.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxtok.config import configclass
from jaxtok.data import text
from jaxtok.data import tokens as tokens_lib

NAMES = ('<PRE>', '<SUF>', '<MID>')
SPM = ('apart', 'joined')

_CUTS = 6  # Key of random numbers, unlike those of other modules.


@configclass
class Config(text.Config):
  """Text with gaps; the tokenizer needs the special tokens `names`."""

  rate: float = 0.5  # Share of the pieces that get a gap.
  spm_rate: float = 0.5  # Share of these in SPM order; others are PSM.
  spm: str = 'apart'  # Or 'joined': prefix and middle of SPM in one encoding.
  piece_bytes: int = 0  # Documents are cut into pieces so long; 0: they stay.
  cut_seed: int = 0  # Of the gaps.
  names: tuple[str, ...] = NAMES  # Before prefix, suffix and middle.

  def __post_init__(self):
    super().__post_init__()
    for name in ('rate', 'spm_rate'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'{name}={getattr(self, name)} must be in [0, 1].')
    for name in ('piece_bytes', 'cut_seed'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 0.')
    if self.spm not in SPM:
      raise ValueError(f'spm={self.spm!r} must be one of {", ".join(SPM)}.')
    if len(self.names) != 3:
      raise ValueError(
        f'names={self.names} must be three special tokens: before the prefix, '
        'the suffix and the middle.'
      )

  def make(self, tokenizer: Any, cache_dir: Any = None) -> 'GappedText':
    """Builds the pipeline.

    Raises:
      ValueError: If the tokenizer cannot encode parts, or has no marks.
    """
    self.__post_init__()  # Fields may have been set since.
    return GappedText(self, tokenizer, cache_dir)


class GappedText(text.Text):
  """See `Config`; the interface is that of `data.text.Text`."""

  config: Config

  def __init__(self, config: Config, tokenizer: Any, cache_dir: Any = None):
    super().__init__(config, tokenizer, cache_dir)
    self._cuts = Cuts(config, tokenizer)

  def _transform(self, split: str) -> tokens_lib.Transform | None:
    """What is trained on has gaps."""
    return self._cuts if split == 'train' else None

  def corpus_id(self, split: str, max_bytes: int = 0) -> str:
    """See `text.Text`; gaps decide the bits, so they are part of it."""
    found = super().corpus_id(split, max_bytes)
    return f'{found}/{self._cuts.key}' if split == 'train' else found


class Cuts:
  """What becomes of documents; see `tokens.Transform`.

  Attributes:
    key: Names the tokens in caches.
    marks: Ids of the special tokens before prefix, suffix and middle.
  """

  def __init__(self, config: Config, tokenizer: Any):
    if tokenizer.kind != 'concat':
      raise ValueError(
        f'{tokenizer!r} is of kind {tokenizer.kind!r}, whose tokens depend on '
        'what is around them, so that parts of a text cannot be encoded by '
        "themselves. Use one of kind 'concat', such as hf.Train."
      )
    self._config, self._tokenizer = config, tokenizer
    self.marks = marks(tokenizer, config.names)
    c = config
    self.key = (
      f'fim={c.rate:g},{c.spm_rate:g},{c.spm},{c.piece_bytes},{c.cut_seed},'
      f'{self.marks}'
    )

  def __call__(
    self, data: bytes, index: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """See `tokens.Transform`: ids and charges of each piece."""
    size = self._config.piece_bytes or max(len(data), 1)
    for number, low in enumerate(range(0, max(len(data), 1), size)):
      yield self.piece(data[low : low + size], index, number)

  def piece(
    self, data: bytes, index: int, number: int = 0
  ) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n']]:
    """Ids and charges of piece `number` of document `index`."""
    config = self._config
    rng = np.random.default_rng((_CUTS, config.cut_seed, index, number))
    is_cut, is_spm = rng.random(2) < (config.rate, config.spm_rate)
    if not is_cut:
      return tokens_lib.charges_of(self._tokenizer, data)
    prefix, middle, suffix = split(data, rng)
    pre, suf, mid = self.marks
    if not is_spm:
      parts = (pre, prefix, suf, suffix, mid, middle)
    elif config.spm == 'apart':
      parts = (pre, suf, suffix, mid, prefix, middle)
    else:
      parts = (pre, suf, suffix, mid, prefix + middle)
    pairs = [
      (np.array([part], np.int32), np.zeros(1, np.int64))
      if isinstance(part, int)
      else tokens_lib.charges_of(self._tokenizer, part)
      for part in parts
    ]
    ids, charges = zip(*pairs, strict=True)
    return np.concatenate(ids), np.concatenate(charges)


def split(data: bytes, rng: np.random.Generator) -> tuple[bytes, bytes, bytes]:
  """Prefix, middle and suffix; any may be empty.

  The two cuts are drawn independently, each before any byte or at the end.
  """
  low, high = np.sort(rng.integers(0, len(data) + 1, 2))
  return data[:low], data[low:high], data[high:]


def marks(tokenizer: Any, names: tuple[str, ...] = NAMES) -> tuple[int, ...]:
  """Ids of the special tokens before prefix, suffix and middle.

  Raises:
    ValueError: If the tokenizer lacks one.
  """
  known = tokenizer.special.by_name()
  if missing := [name for name in names if name not in known]:
    raise ValueError(
      f'{tokenizer!r} has no special token {", ".join(missing)}, which stands '
      'before a part of a text with a gap. Train it with '
      f'hf.Train(new_special_tokens={names}), read it with '
      f'hf.Config(new_special_tokens={names}), or give the names that it has.'
    )
  return tuple(known[name] for name in names)

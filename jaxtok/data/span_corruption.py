# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Span corruption on bytes: T5's objective as ByT5 has it.

Raffel et al. 2020, arXiv:1910.10683, section 3.1.4; ByT5: Xue et al. 2022,
arXiv:2105.13626, section 3.2 (spans of 20 bytes on average). Random spans of a
piece of text are each replaced by one sentinel; the decoder writes them:

  text      T h e   q u i c k   b r o w n   f o x
  encoder   T h e   <0> k   b r o <1> EOS
  decoder   <0> q u i c <1> w n   f o x EOS

Both sides have a fixed length: pieces are as long as fits. A piece ends in a
span, as in T5's reference. Pieces are of the concatenated documents, without a
token between documents; the last one of a pass may be shorter.

Bits per byte of such rows are of the bytes in spans, given all others:
sentinels and EOS are predicted, and charged with no bytes.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import seq2seq, text
from jaxtok.data.batch import Batch
from jaxtok.data.permutation import Permutation
from jaxtok.data.tokens import Tokens

# Keys of random streams, unlike those of `window` and `pack`.
_DOCUMENTS, _PIECES, _SPANS = 3, 4, 5


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Sizes of a corrupted piece.

  Attributes:
    raw: Tokens of text.
    noise: Of them in spans.
    spans: Number of spans, and of sentinels on either side.
    source: Ids that the encoder reads, with EOS.
    target: Ids that the decoder writes, with EOS.
  """

  raw: int
  noise: int
  spans: int

  @property
  def source(self) -> int:
    return self.raw - self.noise + self.spans + 1

  @property
  def target(self) -> int:
    return self.noise + self.spans + 1


def span_lengths(raw: int, density: float, mean_span: float) -> Lengths:
  """How a piece of `raw` >= 1 tokens is corrupted.

  Args:
    raw: Tokens of text.
    density: Share of them in spans.
    mean_span: Tokens of a span, on average.
  """
  noise = min(max(round(raw * density), 1), max(raw - 1, 1))
  most = max(min(noise, raw - noise), 1)
  return Lengths(raw, noise, min(max(round(noise / mean_span), 1), most))


def fit(source_len: int, density: float, mean_span: float) -> Lengths:
  """The longest piece whose encoder side fits `source_len` ids.

  Raises:
    ValueError: If none does.
  """
  best, raw = None, 1
  while True:
    lengths = span_lengths(raw, density, mean_span)
    # Each token adds at most one span, which takes at least one of noise.
    if lengths.source <= source_len:
      best = lengths
    elif lengths.source > source_len + 2:
      break
    raw += 1
  if best is None or best.raw < 2:
    raise ValueError(
      f'seq_len={source_len} has no room for text, a sentinel and EOS; it must '
      'be >= 3.'
    )
  return best


def segment(rng: np.random.Generator, total: int, num: int) -> np.ndarray:
  """A random composition: `num` lengths >= 1 with a sum, all equally likely.

  A sum of 0 gives zeros.
  """
  if total < num:
    return np.array([total] + [0] * (num - 1))
  cuts = np.sort(rng.choice(total - 1, num - 1, replace=False)) + 1
  return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt_spans(
  ids: np.ndarray,
  num_bytes: np.ndarray,
  *,
  lengths: Lengths,
  sentinels: np.ndarray,
  eos: int,
  rng: np.random.Generator,
) -> seq2seq.Pair:
  """Replaces random spans by sentinels.

  Args:
    ids: A piece of text, int [lengths.raw].
    num_bytes: Source bytes of each.
    lengths: From `span_lengths`.
    sentinels: Ids, at least one per span.
    eos: Ends both sides.
    rng: Decides where the spans are.
  """
  kept = segment(rng, lengths.raw - lengths.noise, lengths.spans)
  spans = segment(rng, lengths.noise, lengths.spans)
  edges = np.cumsum(np.stack([kept, spans], axis=1))[:-1]
  parts, charges = np.split(ids, edges), np.split(num_bytes, edges)
  marks = [np.array([s], np.int32) for s in sentinels[: lengths.spans]]
  end, free = np.array([eos], np.int32), np.zeros(1, np.int32)
  join = lambda xs, ys: np.concatenate(
    [*itertools.chain.from_iterable(zip(xs, ys, strict=True))]
  )
  return seq2seq.Pair(
    source=np.append(join(parts[::2], marks), end),
    target=np.append(join(marks, parts[1::2]), end),
    num_bytes=np.append(join([free] * lengths.spans, charges[1::2]), free),
  )


class Pieces:
  """Pieces of one pass over the concatenated documents.

  Args:
    tokens: The documents.
    length: Tokens of a piece.
    order: Document numbers; None keeps their own order.
  """

  def __init__(
    self, tokens: Tokens, length: int, order: np.ndarray | None = None
  ):
    self._tokens, self._length, self._order = tokens, length, order
    sizes = tokens.lengths if order is None else tokens.lengths[order]
    self._starts = np.concatenate([[0], np.cumsum(sizes)])

  def __len__(self) -> int:
    return -(-int(self._starts[-1]) // self._length)

  def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a piece and the source bytes of each."""
    low = index * self._length
    high = min(low + self._length, int(self._starts[-1]))
    first = np.searchsorted(self._starts, low, side='right') - 1
    last = np.searchsorted(self._starts, high, side='left')
    place = np.arange(first, last)
    start = np.maximum(self._starts[place], low)
    stop = np.minimum(self._starts[place + 1], high)
    ids, charges = self._tokens.read(
      place if self._order is None else self._order[place],
      start - self._starts[place],
      stop - start,
    )
    return ids.astype(np.int32), charges.astype(np.int32)


class Rows:
  """Corrupted pieces of one pass, in document order.

  The spans of a piece depend on its number only.

  Args:
    pieces: The text.
    corruption: Of the run.
    key: Of the random numbers, besides the number of the piece.
  """

  def __init__(
    self, pieces: Pieces, corruption: '_Corruption', key: tuple[int, ...] = ()
  ):
    self._pieces, self._corruption, self._key = pieces, corruption, key
    self.seq_len = corruption.full.source

  def __len__(self) -> int:
    return len(self._pieces)

  def __getitem__(self, index: int) -> Batch:
    """One row: the keys of a batch without their batch axis."""
    if not 0 <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}.')
    return {key: value[0] for key, value in self.batch([index]).items()}

  def batch(self, rows: Any) -> Batch:
    """Several rows; those beyond the last give rows of padding."""
    make = lambda i: self.pair(i) if i < len(self) else None
    return self._corruption.lay_out([make(int(i)) for i in rows])

  def pair(self, index: int) -> seq2seq.Pair:
    """One row without padding."""
    rng = np.random.default_rng((_SPANS, *self._key, index))
    return self._corruption(*self._pieces[index], rng)


class Shuffled:
  """Batches of an endless stream of rows; see `window.Shuffled`.

  Documents and pieces come in another order in each epoch, with other spans.
  """

  def __init__(self, tokens: Tokens, corruption: '_Corruption', seed: int):
    self._tokens, self._corruption, self._seed = tokens, corruption, seed
    self.seq_len = corruption.full.source
    self.num_rows = len(Pieces(tokens, corruption.full.raw))
    self._epochs: dict[int, tuple[Rows, Permutation]] = {}

  def batch(self, rows: np.ndarray) -> Batch:
    """Rows of the endless stream by number."""
    pairs = []
    for epoch, number in zip(*np.divmod(rows, self.num_rows), strict=True):
      source, order = self._epoch(int(epoch))
      pairs.append(source.pair(int(order(np.array([number]))[0])))
    return self._corruption.lay_out(pairs)

  def _epoch(self, epoch: int) -> tuple[Rows, Permutation]:
    if epoch not in self._epochs:
      documents = len(self._tokens.lengths)
      order = Permutation(documents, self._seed, epoch, _DOCUMENTS).all()
      pieces = Pieces(self._tokens, self._corruption.full.raw, order)
      # Threads may ask for neighbouring epochs at the same time.
      recent = list(self._epochs.items())[-1:]
      self._epochs = dict(recent) | {
        epoch: (
          Rows(pieces, self._corruption, (self._seed, epoch)),
          Permutation(len(pieces), self._seed, epoch, _PIECES),
        )
      }
    return self._epochs[epoch]


@dataclasses.dataclass(frozen=True)
class _Corruption:
  """What happens to a piece.

  Attributes:
    full: Sizes of a full piece.
    density: See `Config`.
    mean_span: See `Config`.
    sentinels: Ids, which the text must not contain.
    eos: Ends both sides.
    pad: Behind the end, and where the decoder begins.
  """

  full: Lengths
  density: float
  mean_span: float
  sentinels: np.ndarray
  eos: int
  pad: int

  def __call__(self, ids, num_bytes, rng) -> seq2seq.Pair:
    if (found := np.isin(ids, self.sentinels)).any():
      raise ValueError(
        f"the text contains the id {ids[found][0]}, which sentinels='bytes' "
        'uses as a sentinel because no UTF-8 text contains its byte. For other '
        "data set sentinels='extra'."
      )
    lengths = span_lengths(len(ids), self.density, self.mean_span)
    return corrupt_spans(
      ids,
      num_bytes,
      lengths=lengths,
      sentinels=self.sentinels,
      eos=self.eos,
      rng=rng,
    )

  def lay_out(self, pairs: list[seq2seq.Pair | None]) -> Batch:
    return seq2seq.lay_out(
      pairs,
      source_len=self.full.source,
      target_len=self.full.target,
      start=self.pad,
      pad=self.pad,
    )


@configclass
class Config(text.Config):
  """Corrupted text; `seq_len` is the length of the encoder's row."""

  density: float = 0.15  # Share of the text in spans.
  mean_span: float = 20.0  # Tokens; ByT5's.
  sentinels: str = 'bytes'  # Or 'extra'; see `ByteTokenizer.sentinels`.

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.density < 1:
      raise ValueError(f'density={self.density} must be in (0, 1).')
    if self.mean_span < 1:
      raise ValueError(f'mean_span={self.mean_span} must be >= 1 (tokens).')
    if self.packing != 'window':
      raise ValueError(
        f"packing={self.packing!r} must be 'window': corrupted rows are pieces "
        'of the concatenated documents.'
      )

  @property
  def lengths(self) -> Lengths:
    """Sizes of a full piece."""
    return fit(self.seq_len, self.density, self.mean_span)

  def make(self, tokenizer: Any, cache_dir: Any = None) -> 'CorruptedText':
    """Builds the pipeline.

    Raises:
      ValueError: If the tokenizer has no, or too few, sentinels.
    """
    if not hasattr(tokenizer, 'sentinels'):
      raise ValueError(
        f'{tokenizer!r} has no ids for sentinels: span corruption needs '
        "tokenizers.bytes.Config(map='byt5')."
      )
    available = len(tokenizer.sentinels(self.sentinels))
    if (spans := self.lengths.spans) > available:
      raise ValueError(
        f'seq_len={self.seq_len} gives {spans} spans, but sentinels='
        f'{self.sentinels!r} has {available} ids. Make seq_len smaller or '
        "mean_span larger, or set sentinels='extra'."
      )
    return CorruptedText(self, tokenizer, cache_dir)


class CorruptedText(text.Text):
  """See `text.Text`; rows are corrupted pieces."""

  config: Config

  def corpus_id(self, split: str, max_bytes: int = 0) -> str:
    """Identifies the text and how it is corrupted: both decide the bits."""
    c = self.config
    how = f'{c.seq_len},{c.density:g},{c.mean_span:g}'
    return f'{super().corpus_id(split, max_bytes)}/spans={how}'

  def rows(self, split: str, max_bytes: int = 0) -> Rows:
    """One pass in document order."""
    tokens = self.tokens(split, max_bytes)
    pieces = Pieces(tokens, self.config.lengths.raw)
    return Rows(pieces, self._corruption())

  def stream(self, split: str, seed: int) -> Shuffled:
    """See `text.Text.stream`."""
    return Shuffled(self.tokens(split), self._corruption(), seed)

  def _corruption(self) -> _Corruption:
    c, special = self.config, self._tokenizer.special
    sentinels = self._tokenizer.sentinels(c.sentinels)[: c.lengths.spans]
    return _Corruption(
      full=c.lengths,
      density=c.density,
      mean_span=c.mean_span,
      sentinels=sentinels,
      eos=special.eos,
      pad=special.pad,
    )

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The covers of a text, as families, and what a byte does to them.

See `byte_probs`. A family is a token sequence that ends at or before the end of
the text, and the range of tokens that agree with the text beyond it, in the
order of the vocabulary. So a byte narrows ranges, and the language model runs
only where a token ends.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtok.config import configclass
from jaxtok.decoding import cover_pool
from jaxtok.decoding.covers import END, NUM_SYMBOLS

VALIDITY = ('canonical', 'all')


@configclass
class Config:
  """Which covers count."""

  validity: str = 'canonical'  # Or 'all': also what is no encoding.
  max_covers: int = 0  # Families kept per text; 0 keeps all.
  min_prob: float = 0.0  # Tokens less likely count as invalid; saves checks.

  def __post_init__(self):
    if self.validity not in VALIDITY:
      raise ValueError(
        f'validity={self.validity!r} must be one of {", ".join(VALIDITY)}.'
      )
    if self.max_covers < 0 or not 0 <= self.min_prob < 1:
      raise ValueError(
        f'max_covers={self.max_covers} must be >= 0 and min_prob='
        f'{self.min_prob} in [0, 1).'
      )


@dataclasses.dataclass
class _Family:
  """Covers that share all tokens but the last.

  Attributes:
    tokens: All tokens since the state's start, for `CoverState.covers`.
    tail: The last of them, see `covers.Canonical`.
    row: Of the pool; -1 if nothing but the end can follow.
    weight: Log-probability of the tokens.
    logp_n: Of each token of the vocabulary that may follow; -inf for others.
    end: Log-probability that the text ends here.
    low: First token that agrees with the bytes read since.
    high: One past the last.
    depth: Bytes read since.
    wait: Bytes that must come before this family begins (fill in the middle).
  """

  tokens: tuple[int, ...]
  tail: tuple[int, ...]
  row: int
  weight: float
  logp_n: np.ndarray
  end: float
  low: int
  high: int
  depth: int = 0
  wait: bytes = b''

  def mass(self) -> float:
    """Log-probability of all covers of the family."""
    if self.depth == 0:
      return self.weight  # It covers by itself; its tokens are beyond.
    return self.weight + logsumexp(self.logp_n[self.low : self.high])


def logsumexp(x: Any) -> float:
  """`log(sum(exp(x)))` in double precision; -inf of nothing."""
  x = np.asarray(x, np.float64)
  top = x.max(initial=-np.inf)
  if not np.isfinite(top):
    return float(top)
  return float(top + np.log(np.exp(x - top).sum()))


class CoverState:
  """The covers of several texts; `append` changes it.

  Where `append` raises an error, the state cannot be used any more.

  Attributes:
    num_bytes_b: Bytes read of each text since the start, prompts not settled
      beforehand included.
    missing_b: Largest share of a law's probability, over the bytes read, that
      went to invalid covers.
    dropped_b: Share of the probability lost to `max_covers`, all in all.
  """

  def __init__(self, model: Any, max_len: int, num_texts: int):
    self._model = model
    self._pool = cover_pool.CoverPool(model.model, max_len)
    self._families: list[list[_Family]] = [[] for _ in range(num_texts)]
    self._law = None
    self._is_whole = True  # False once `append` has failed midway.
    self.num_bytes_b = np.zeros(num_texts, np.int64)
    self.missing_b = np.zeros(num_texts)
    self.dropped_b = np.zeros(num_texts)

  def begin(
    self, rows: Sequence[tuple[int, Sequence[int], float, bytes]]
  ) -> None:
    """Adds families.

    Args:
      rows: The number of a text, the family's tokens, its log-weight, and the
        bytes that must come before it begins.
    """
    places, logits = self._pool.start([row for _, row, _, _ in rows])
    for (text, _, weight, wait), place, logits_v in zip(
      rows, places, logits, strict=True
    ):
      family = self._family((), (), place, weight, logits_v)
      family.wait = wait
      self._families[text].append(family)
    self._law = None

  def read_lead(self, lead: bytes, is_new_b: Sequence[bool]) -> None:
    """Reads what encoding puts before a text, unless the text is empty.

    Args:
      lead: The bytes.
      is_new_b: Which texts have none yet.
    """
    ends = [
      logsumexp([f.weight + f.end for f in own]) for own in self._families
    ]
    for byte in lead:
      self.append([byte if is_new else -1 for is_new in is_new_b])
    for text, (end, is_new) in enumerate(zip(ends, is_new_b, strict=True)):
      if not is_new:
        continue
      for family in self._families[text]:
        family.end = -np.inf  # The empty text is not encoded as the lead.
      nothing = np.full(len(self._model.vocabulary), -np.inf)
      self._families[text].append(
        _Family((), (), -1, end, nothing, 0.0, 0, len(nothing))
      )
      self.num_bytes_b[text] = 0
    self._law = None
    self.missing_b = np.where(is_new_b, 1 - np.exp(self.log_prob_b), 0.0)

  @property
  def stats(self) -> dict[str, int]:
    """Calls of the language model, rows computed in them, families alive."""
    alive = sum(map(len, self._families))
    return {
      'model_calls': self._pool.calls,
      'model_rows': self._pool.rows,
      'covers': alive,
    }

  @property
  def log_prob_b(self) -> Float[np.ndarray, 'b']:
    """Log-probability of each text since the settled part, nats."""
    self._check_whole()
    return np.array(
      [logsumexp([f.mass() for f in own]) for own in self._families]
    )

  def covers(self, text: int) -> list[tuple[tuple[int, ...], bytes, float]]:
    """All covers of one text, the heaviest first.

    Returns:
      Tokens since the settled part, their bytes beyond the text, and the
      log-probability.
    """
    self._check_whole()
    found, vocabulary = [], self._model.vocabulary
    for f in self._families[text]:
      if f.depth == 0:
        found.append((f.tokens, f.wait, f.weight))
        continue
      for i in range(f.low, f.high):
        if f.logp_n[i] > -np.inf:
          token = int(vocabulary.ids_n[i])
          beyond = vocabulary.texts[i][f.depth :]
          found.append(((*f.tokens, token), beyond, f.weight + f.logp_n[i]))
    return sorted(found, key=lambda cover: -cover[2])

  def logprobs(self, *, normalise: bool = True) -> Float[np.ndarray, 'b 257']:
    """The law of the next byte of each text; 256 is the text's end.

    Args:
      normalise: Whether probabilities sum to 1; otherwise they sum to 1 less
        what invalid covers have.

    Returns:
      float64 log-probabilities, nats.
    """
    self._check_whole()
    if self._law is None:
      self._law = np.stack([self._text_law(own) for own in self._families])
    if not normalise:
      return self._law - self.log_prob_b[:, None]
    total_b = np.array([logsumexp(law) for law in self._law])
    return self._law - total_b[:, None]

  def _text_law(self, families: list[_Family]) -> np.ndarray:
    """Log-probability of the text with each next byte."""
    law = np.full(NUM_SYMBOLS, -np.inf)
    for f in families:
      if f.wait:
        law[f.wait[0]] = np.logaddexp(law[f.wait[0]], f.weight)
        continue
      span = slice(f.low, f.high)
      byte = self._model.vocabulary.next_bytes(f.low, f.high, f.depth)
      top = f.logp_n[span].max(initial=-np.inf)
      if top > -np.inf:
        sums = np.bincount(
          byte, np.exp(f.logp_n[span] - top), minlength=NUM_SYMBOLS
        )
        with np.errstate(divide='ignore'):
          law = np.logaddexp(law, np.log(sums) + top + f.weight)
      if f.depth == 0:
        law[END] = np.logaddexp(law[END], f.weight + f.end)
    return law

  def append(self, bytes_b: Sequence[int]) -> None:
    """Reads a byte of each text; -1 leaves a text as it is.

    Raises:
      ValueError: If a text has no cover, i.e. probability 0, or exceeds the
        positions of the model.
    """
    symbols = self._check_bytes(bytes_b)
    laws, born = self.logprobs(normalise=False), []
    self._is_whole = False
    for text, byte in enumerate(symbols):
      if byte < 0:
        continue
      missing = max(1 - float(np.exp(laws[text]).sum()), 0.0)
      self.missing_b[text] = max(self.missing_b[text], missing)
      own, new = self._narrow(self._families[text], byte)
      self._families[text] = own
      born += [(text, family, i) for family, i in new]
      self.num_bytes_b[text] += 1
    self._grow(born)
    self._law = None
    for text, byte in enumerate(symbols):
      if byte >= 0:
        self._prune(text)
      if not self._families[text]:
        raise ValueError(
          f'no tokens stand for text {text} with byte {byte} at its end: its '
          'probability is 0. With min_prob or max_covers, allow more.'
        )
    self._is_whole = True

  def _check_bytes(self, bytes_b: Sequence[int]) -> list[int]:
    symbols = [int(b) for b in bytes_b]
    if len(symbols) != len(self._families):
      raise ValueError(
        f'{len(symbols)} bytes for {len(self._families)} texts; give one for '
        'each, -1 for none.'
      )
    if any(not -1 <= b < END for b in symbols):
      raise ValueError(f'bytes must be in 0..255, or -1; got {symbols}.')
    return symbols

  def _check_whole(self) -> None:
    if not self._is_whole:
      raise ValueError(
        'an earlier append to this state has failed, so that it holds no law '
        'any more. Begin again with start.'
      )

  def _narrow(
    self, families: list[_Family], byte: int
  ) -> tuple[list[_Family], list[tuple[_Family, int]]]:
    """Families that agree with a byte, and tokens that end with it."""
    kept, ended, vocabulary = [], [], self._model.vocabulary
    for f in families:
      if f.wait:
        if f.wait[0] == byte:
          f.wait = f.wait[1:]
          kept.append(f)
        else:
          self._release(f)
        continue
      f.low, f.high = vocabulary.narrow(f.low, f.high, f.depth, byte)
      f.depth += 1
      longer = vocabulary.complete(f.low, f.high, f.depth)
      ended += [(f, i) for i in range(f.low, longer) if f.logp_n[i] > -np.inf]
      f.low = longer
      if (f.logp_n[f.low : f.high] > -np.inf).any():
        kept.append(f)
      elif not any(g is f for g, _ in ended):
        self._release(f)
    return kept, ended

  def _grow(self, born: list[tuple[int, _Family, int]]) -> None:
    """Adds the families of sequences that have become longer by a token."""
    if not born:
      return
    ids_n = self._model.vocabulary.ids_n
    tokens = [int(ids_n[i]) for _, _, i in born]
    rows, logits = self._pool.extend([f.row for _, f, _ in born], tokens)
    done = {}
    for (text, f, i), token, row, logits_v in zip(
      born, tokens, rows, logits, strict=True
    ):
      family = self._family(
        (*f.tokens, token),
        (*f.tail, token),
        row,
        f.weight + f.logp_n[i],
        logits_v,
      )
      self._families[text].append(family)
      done[id(f)] = text, f
    for text, f in done.values():
      if not any(g is f for g in self._families[text]):
        self._release(f)

  def _release(self, family: _Family) -> None:
    if family.row >= 0:
      self._pool.give_back(family.row)

  def _family(self, tokens, tail, row, weight, logits_v) -> _Family:
    logp_n, end = self._model.split_logits(logits_v)
    config = self._model.config
    wanted_n = logp_n > -np.inf
    if config.min_prob:
      wanted_n &= logp_n >= np.log(config.min_prob)
    if config.validity == 'canonical':
      canonical = self._model.canonical
      tail = canonical.shorten(tail) if tail else tail
      wanted_n = canonical.allowed(tail, wanted_n)
      end = end if canonical.may_end(tail) else -np.inf
    return _Family(
      tokens=tokens,
      tail=tail,
      row=row,
      weight=float(weight),
      logp_n=np.where(wanted_n, logp_n, -np.inf),
      end=end,
      low=0,
      high=len(logp_n),
    )

  def _prune(self, text: int) -> None:
    """Keeps the heaviest families, and counts what the others had."""
    most, own = self._model.config.max_covers, self._families[text]
    if not most or len(own) <= most:
      return
    mass = np.array([f.mass() for f in own])
    order = np.argsort(-mass, kind='stable')
    lost = logsumexp(mass[order[most:]]) - logsumexp(mass)
    before = self.dropped_b[text]
    self.dropped_b[text] = 1 - (1 - before) * (1 - np.exp(lost))
    for i in order[most:]:
      self._release(own[i])
    self._families[text] = [own[i] for i in order[:most]]

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The exact coders in Python integers: the oracle of everything here.

Slow and plain. A model is a function from the tuple of symbols so far to a CDF,
a sequence of 258 integers from 0 to 2**16. The window coder accepts any number
of bits >= 16 (`window` is the fast one for 16, 32, 64, 128), so windows of 24
bits are coded here.

An interval is kept as `low` and `range` in units of 2**-fraction_bits of the
whole. The coder's own range `r` has at most 32 bits at `16 * p` bits below the
top, so `range = r << 16 * (p_max - p)`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

EOS = 256
NUM_SYMBOLS = 257

NextCdf = Callable[[tuple[int, ...]], Sequence[int]]

MAX_SYMBOLS = {16: 64, 24: 96, 32: 128, 64: 256, 128: 512}


class Node(NamedTuple):
  """A prefix of a window, as the interval of the code space it owns.

  Attributes:
    bits: Window size W.
    low: Start of the interval, in units of 2**-fraction_bits.
    r: The coder's 32-bit range.
    p: How often `r` was shifted by 16 bits.
    n: Number of symbols in the prefix.
  """

  bits: int
  low: int = 0
  r: int = 1 << 32
  p: int = 0
  n: int = 0

  @property
  def p_max(self) -> int:
    return -(-self.bits // 16) - 1

  @property
  def cell(self) -> int:
    """Width of a cell, i.e. of one of the 2**W words."""
    return 1 << (16 * self.p_max + 32 - self.bits)

  @property
  def scale(self) -> int:
    return 16 * (self.p_max - self.p)

  @property
  def high(self) -> int:
    return self.low + (self.r << self.scale)

  @property
  def first_word(self) -> int:
    """The first word whose cell starts inside."""
    return -(-self.low // self.cell)

  @property
  def feasible(self) -> bool:
    """Whether the interval contains a whole cell."""
    return (self.first_word + 1) * self.cell <= self.high

  def bounds(self, cdf: Sequence[int]) -> list[int]:
    """Where the children start, relative to `low`, in units of `r`."""
    if self.n == 0:
      return [c << 16 for c in cdf]
    r_high, r_low = self.r >> 16, self.r & 0xFFFF
    return [r_high * c + (r_low * c >> 16) for c in cdf]

  def child(self, bounds: Sequence[int], symbol: int) -> 'Node':
    low = self.low + (bounds[symbol] << self.scale)
    r, p = bounds[symbol + 1] - bounds[symbol], self.p
    if r < 1 << 16 and p < self.p_max:
      r, p = r << 16, p + 1
    return Node(self.bits, low, r, p, self.n + 1)

  def straddling_word(self, bounds: Sequence[int]) -> int | None:
    """The first word inside this node and inside none of its children."""
    low, high, cell, scale = self.low, self.high, self.cell, self.scale
    for x in bounds[1:-1]:
      word, offset = divmod(low + (x << scale), cell)
      if offset and low <= word * cell and (word + 1) * cell <= high:
        return word
    return None

  def zero_padded_word(self) -> int:
    """The shortest bit string inside, smallest first, padded with zeros."""
    low, high, cell = self.low, self.high, self.cell
    for size in range(self.bits, -1, -1):
      unit = cell << size
      start = -(-low // unit)
      if (start + 1) * unit <= high:
        return start << size
    raise AssertionError('only feasible nodes have a word')


def _cell_window(
  text: Sequence[int], next_cdf: NextCdf, node: Node, limit: int
) -> tuple[int, int]:
  """Rule `cell`: the longest prefix that some word decodes to."""
  best = None
  while True:
    if node.n == limit or node.n == len(text) or text[: node.n][-1:] == [EOS]:
      return node.n, node.first_word
    bounds = node.bounds(next_cdf(tuple(text[: node.n])))
    word = node.straddling_word(bounds)
    if node.n and word is not None:
      best = node.n, word
    node = node.child(bounds, text[node.n])
    if not node.feasible:
      assert best is not None  # The existence proof of the rule.
      return best


def _prefixes(
  text: Sequence[int], next_cdf: NextCdf, node: Node, limit: int
) -> list[Node]:
  """All feasible non-empty prefixes of the text, shortest first."""
  nodes = []
  while node.n < min(limit, len(text)):
    bounds = node.bounds(next_cdf(tuple(text[: node.n])))
    node = node.child(bounds, text[node.n])
    if not node.feasible:
      break
    nodes.append(node)
  return nodes


def encode_window(
  text: Sequence[int],
  next_cdf: NextCdf,
  bits: int,
  rule: str = 'cell',
  max_symbols: int | None = None,
) -> tuple[int, int]:
  """Codes one window.

  Args:
    text: What remains, as symbols; `EOS` ends it.
    next_cdf: The model.
    bits: Window size W, at least 16.
    rule: 'cell', 'delay' or 'greedy_zero_pad'.
    max_symbols: Most symbols in a window.

  Returns:
    The number of symbols covered, and the word.
  """
  if bits < 16:
    raise ValueError(f'bits={bits} must be at least the CDF precision, 16.')
  text, limit = list(text), max_symbols or MAX_SYMBOLS[bits]
  if rule == 'cell':
    return _cell_window(text, next_cdf, Node(bits), limit)
  nodes = _prefixes(text, next_cdf, Node(bits), limit)
  word = nodes[-1].zero_padded_word()
  if rule == 'delay':
    nodes = [x for x in nodes if x.zero_padded_word() == word][:1]
  elif rule != 'greedy_zero_pad':
    raise ValueError(f'rule={rule!r}: use cell, delay or greedy_zero_pad.')
  return nodes[-1].n, word


def encode_windows(
  text: bytes,
  next_cdf: NextCdf,
  bits: int,
  rule: str = 'cell',
  max_symbols: int | None = None,
) -> list[tuple[int, int]]:
  """Codes `text + EOS`, with the model reset at every window.

  Returns:
    `(number of symbols, word)` of each window.
  """
  symbols, windows = [*text, EOS], []
  while symbols:
    n, word = encode_window(symbols, next_cdf, bits, rule, max_symbols)
    windows.append((n, word))
    symbols = symbols[n:]
  return windows


def follow_word(
  word: int, next_cdf: NextCdf, bits: int, max_symbols: int | None = None
) -> list[tuple[int, Node]]:
  """The symbols whose intervals contain the whole cell of a word.

  Rule `cell` decodes a word to exactly these symbols.

  Returns:
    `(symbol, node after it)`, up to `max_symbols` or EOS.
  """
  node, path = Node(bits), []
  start = word * node.cell
  while node.n < (max_symbols or MAX_SYMBOLS[bits]):
    context = tuple(symbol for symbol, _ in path)
    bounds = node.bounds(next_cdf(context))
    offset = start - node.low >> node.scale
    symbol = sum(b <= offset for b in bounds[1:-1])
    child = node.child(bounds, symbol)
    if start + node.cell > child.high:
      break
    node = child
    path.append((symbol, node))
    if symbol == EOS:
      break
  return path


def candidate_lengths(
  word: int, next_cdf: NextCdf, bits: int, max_symbols: int | None = None
) -> list[int]:
  """Lengths of all prefixes whose zero-padded word is `word`, rising.

  With rule `delay` the first one is what was coded; with `greedy_zero_pad` it
  may be any of them, so that text cannot be recovered without more knowledge.
  """
  path = follow_word(word, next_cdf, bits, max_symbols)
  return [x.n for _, x in path if x.zero_padded_word() == word]


def decode_window(
  word: int,
  next_cdf: NextCdf,
  bits: int,
  rule: str = 'cell',
  max_symbols: int | None = None,
) -> list[int]:
  """Decodes one word of rule `cell` or `delay` to symbols.

  Words that rule `delay` never emits decode as with rule `cell`.
  """
  path = [s for s, _ in follow_word(word, next_cdf, bits, max_symbols)]
  if rule == 'cell':
    return path
  if rule != 'delay':
    raise ValueError(f'rule={rule!r} is not uniquely decodable: use cell.')
  return path[
    : (candidate_lengths(word, next_cdf, bits, max_symbols) or [None])[0]
  ]


def encode_stream(text: Sequence[int], next_cdf: NextCdf) -> list[int]:
  """Codes symbols with the unbounded range coder, to 16-bit digits."""
  low, r, shifts = 0, (1 << 32) - 1, 0
  for n, symbol in enumerate(text):
    bounds = Node(16, r=r, n=1).bounds(next_cdf(tuple(text[:n])))
    low += bounds[symbol]
    r = bounds[symbol + 1] - bounds[symbol]
    if r < 1 << 16:
      low, r, shifts = low << 16, r << 16, shifts + 1
  value = -(-low >> 16)
  return [value >> 16 * i & 0xFFFF for i in range(shifts, -1, -1)]


def decode_stream(
  digits: Sequence[int], num_symbols: int, next_cdf: NextCdf
) -> list[int]:
  """The inverse of `encode_stream`."""
  digits = [*digits, 0, 0]
  text, r, k = [], (1 << 32) - 1, 2
  rest = digits[0] << 16 | digits[1]
  for _ in range(num_symbols):
    bounds = Node(16, r=r, n=1).bounds(next_cdf(tuple(text)))
    symbol = sum(b <= rest for b in bounds[1:-1])
    text.append(symbol)
    rest, r = rest - bounds[symbol], bounds[symbol + 1] - bounds[symbol]
    if r < 1 << 16:
      rest, r = rest << 16 | (digits[k] if k < len(digits) else 0), r << 16
      k += 1
  return text

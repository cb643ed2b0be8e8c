# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rules that cut text into words, on the host.

Each gives the byte offsets at which words end; words tile the text, any bytes.
A byte that is no UTF-8 is a character that is no letter, mark or space.

  whitespace   Words end with a white-space character: HAT's main rule
               (Neitemeier et al. 2025, arXiv:2501.10322, section 3).
  uax29        Unicode's word boundaries, refined: the same paper's appendix C,
               in the wording of the splitter of its authors' 2026 models.
  code         Lexical units of source code: identifiers, numbers, strings,
               comments, operators, white space.

Rules that are decided on the device are in `nn.segmenters`.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import regex
from jaxtyping import Int

Ends = Int[np.ndarray, 'w']

_SPACE = regex.compile(r'\p{White_Space}')
_BOUNDARY = regex.compile(r'(?w)\b')
_PUNCTUATION = regex.compile(r'\p{P}')
_CAMEL = regex.compile(r'(?<=\p{Ll})(?=\p{Lu})')


def characters(data: bytes) -> tuple[str, Int[np.ndarray, 'n']]:
  """One character per UTF-8 character or invalid byte, and where each ends."""
  text = data.decode('utf-8', 'surrogateescape')
  sizes = [
    1 if 0xDC80 <= ord(c) <= 0xDCFF else len(c.encode('utf-8')) for c in text
  ]
  return text, np.cumsum(sizes, dtype=np.int64)


def whitespace_words(data: bytes) -> Ends:
  """Ends of words by the rule `whitespace`."""
  text, ends = characters(data)
  if not text:
    return ends
  is_end = np.zeros(len(text), bool)
  is_end[[m.start() for m in _SPACE.finditer(text)]] = True
  is_end[-1] = True
  return ends[is_end]


def uax29_words(data: bytes) -> Ends:
  """Ends of words by the rule `uax29`.

  (1) UAX#29 word boundaries; (2) cuts after punctuation; (3) cuts between a
  lower-case and an upper-case letter; (4) neighbouring single spaces join;
  (5) a piece is one space (S), other white space (W), a punctuation character
  (P) or else text (T); (6) from the left, a T joins an S before it, and a P
  joins an S, T or P before it.
  """
  text, ends = characters(data)
  if not text:
    return ends
  words, last = [], ''
  for start, stop in _joined(text, _pieces(text)):
    kind = _kind(text[start:stop])
    joins = (last == 'S' and kind == 'T') or (
      last in ('S', 'T', 'P') and kind == 'P'
    )
    if joins:
      words[-1] = stop
    else:
      words.append(stop)
    last = kind
  return ends[np.array(words) - 1]


def _pieces(text: str) -> list[tuple[int, int]]:
  """Steps 1 to 3."""
  cuts = {m.start() for m in _BOUNDARY.finditer(text)}
  cuts |= {m.end() for m in _PUNCTUATION.finditer(text)}
  cuts |= {m.start() for m in _CAMEL.finditer(text)}
  edges = sorted({0, len(text)} | cuts)
  return list(itertools.pairwise(edges))


def _joined(
  text: str, pieces: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
  """Step 4."""
  is_space = lambda piece: text[piece[0] : piece[1]].strip(' ') == ''
  for joined, group in itertools.groupby(pieces, is_space):
    if not joined:
      yield from group
      continue
    run = list(group)
    yield run[0][0], run[-1][1]


def _kind(piece: str) -> str:
  if piece == ' ':
    return 'S'
  if regex.fullmatch(r'\p{White_Space}+', piece):
    return 'W'
  return 'P' if _PUNCTUATION.fullmatch(piece) else 'T'


# Longest match first; every alternative takes at least one character.
_STRING_START = r'(?i:[rbu]|br|rb|f|fr|rf)?'
_CODE = regex.compile(
  r"""
    (?P<space> \s+ )
  | (?P<comment> \#[^\n]* )
  | (?P<string> (?:STRING) (?:
        \"\"\" (?: \\. | [^\\] )*? (?: \"\"\" | \Z )
      | ''' (?: \\. | [^\\] )*? (?: ''' | \Z )
      | \" (?: \\. | [^\\\n\"] )* \"?
      | ' (?: \\. | [^\\\n'] )* '?
    ) )
  | (?P<number>
        0[xX](?:_?[0-9a-fA-F])+ | 0[bB](?:_?[01])+ | 0[oO](?:_?[0-7])+
      | (?: \d(?:_?\d)* \.? (?:\d(?:_?\d)*)? | \. \d(?:_?\d)* )
        (?: [eE][+-]?\d(?:_?\d)* )? [jJ]?
    )
  | (?P<name> [\w--\d]\w* )
  | (?P<operator>
        \*\*= | //= | >>= | <<= | \.\.\.
      | != | -> | := | == | <= | >= | << | >> | // | \*\*
      | [-+*/%@&|^]= | .
    )
""".replace('STRING', _STRING_START),
  regex.VERBOSE | regex.DOTALL | regex.V1,
)


def code_units(data: bytes) -> list[tuple[int, int, str]]:
  """Lexical units of Python source: (start, stop, kind) in bytes; they tile.

  Kinds: 'space', 'comment', 'string' (with its prefix, f-strings whole),
  'number', 'name' (keywords too), 'operator'. Never fails: what is no Python
  comes out as operators of one character, an unfinished string as a string.
  """
  text, ends = characters(data)
  edges = np.concatenate([[0], ends])
  return [
    (int(edges[m.start()]), int(edges[m.end()]), m.lastgroup)
    for m in _CODE.finditer(text)
  ]


def code_words(data: bytes) -> Ends:
  """Ends of words by the rule `code`."""
  return np.array([stop for _, stop, _ in code_units(data)], np.int64)


def chunk_words(
  data: bytes, ends: Ends, longest: int
) -> Int[np.ndarray, 'chunks']:
  """Cuts words of more than `longest` bytes, between characters if possible.

  Raises:
    ValueError: If `longest` is below 1.
  """
  if longest < 1:
    raise ValueError(f'longest={longest} must be >= 1.')
  starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
  if not len(ends) or (ends - starts).max() <= longest:
    return ends
  result = []
  for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
    while stop - start > longest:
      cut = start + longest
      # Back to a byte that does not continue a character.
      while cut > start and 0x80 <= data[cut] <= 0xBF:
        cut -= 1
      start = cut if cut > start else start + longest
      result.append(start)
    result.append(stop)
  return np.array(result, np.int64)


RULES: dict[str, Callable[[bytes], Ends]] = {
  'whitespace': whitespace_words,
  'uax29': uax29_words,
  'code': code_words,
}


def split(data: bytes, rule: str, longest: int = 0) -> Ends:
  """Ends of words by a named rule, none longer than `longest` (0: no limit).

  Raises:
    ValueError: If there is no such rule.
  """
  if rule not in RULES:
    raise ValueError(f'rule={rule!r} must be one of {", ".join(RULES)}.')
  ends = RULES[rule](data)
  return chunk_words(data, ends, longest) if longest else ends

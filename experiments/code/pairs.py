# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Translation of programs: where the pairs come from.

java_cs     Methods in Java and C# (CodeXGLUE, code to code): 10,295 pairs for
            training, 1,000 for the test.
refinement  Java methods before and after a fix (CodeXGLUE, code refinement,
            small): 5,835 pairs for training, which are CodeXGLUE's for
            validation since those for training are not in the copy, and its
            5,835 for the test. Names are numbered: `METHOD_1`.
concode     What a Java method does, in English, with the fields and methods of
            its class, and the method (CONCODE): its 2,000 development examples,
            the only ones in the copy, of which 1,602 are for training, 199 for
            validation, which nothing reads here, and 199 for the test.
camel       Lines of Python's standard library with the names spelled in
            camelCase: `max_len` is `maxLen`. Needs no data.

All but the last read `code/codexglue.zip` in the folder that the environment
variable JAXTOK_DATA names. Numbers of refinement and concode are not those of
CodeXGLUE's leaderboard, whose models saw 46,680 and 100,000 pairs.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import sysconfig
from typing import Any

import numpy as np

from experiments.code import tasks
from jaxtok.config import configclass

# The languages of each kind's sources and targets; see `code_units.LANGUAGES`.
KINDS = {
  'java_cs': ('java', 'csharp'),
  'refinement': ('java', 'java'),
  'concode': ('java', 'java'),
  'camel': ('python', 'python'),
}
Pairs = list[tuple[bytes, bytes]]


@configclass
class Config:
  """Which pairs, and how many."""

  kind: str = 'java_cs'
  is_reversed: bool = False  # From target to source, as C# to Java.
  # Whose units are merged in what is read; '' means that of the kind.
  language: str = ''
  num_train: int = 10_000  # At most; 0 means all.
  num_test: int = 1000  # At most; 0 means all.

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'kind={self.kind!r} must be one of {", ".join(KINDS)}.')
    tasks.check_language(self.language)
    for name in ('num_train', 'num_test'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 0.')

  @property
  def rules(self) -> str:
    """The language whose units are merged."""
    return self.language or KINDS[self.kind][self.is_reversed]

  def load(self, seed: int) -> tuple[Pairs, Pairs]:
    """(source, target) for training and for the test, in random order."""
    make = {
      'java_cs': lambda: _files('java_cs/{}.java', 'java_cs/{}.cs', 'train'),
      'refinement': lambda: _files(
        'refinement_small/{}.buggy', 'refinement_small/{}.fixed', 'valid'
      ),
      'concode': lambda: _concode()[::2],
      'camel': _camel,
    }[self.kind]
    rng = np.random.default_rng(seed)
    parts = []
    for pairs, most in zip(
      make(), (self.num_train, self.num_test), strict=True
    ):
      order = rng.permutation(len(pairs))[: most or None]
      chosen = [pairs[i] for i in order]
      parts.append([p[::-1] for p in chosen] if self.is_reversed else chosen)
    return parts[0], parts[1]


def _files(source: str, target: str, split: str) -> tuple[Pairs, Pairs]:
  """Line i of one file and of the other, of a split and of the test.

  Raises:
    ValueError: If two files are not of one length.
  """
  parts = []
  with tasks.archive("kind='camel'") as archive:
    for part in (split, 'test'):
      names = source.format(part), target.format(part)
      sides = [archive.read(name).split(b'\n') for name in names]
      if len(sides[0]) != len(sides[1]):
        raise ValueError(
          f'code/codexglue.zip has {len(sides[0])} lines in {names[0]} and '
          f'{len(sides[1])} in {names[1]}; line i of both must be a pair.'
        )
      pairs = [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True)]
      parts.append([(a, b) for a, b in pairs if a and b])
  return parts[0], parts[1]


def _concode() -> tuple[Pairs, Pairs, Pairs]:
  """Training, validation and test, by a hash of the source: 80, 10, 10 %.

  Examples with the same source are on the same side.
  """
  with tasks.archive("kind='camel'") as archive:
    lines = archive.read('concode/dev.jsonl').splitlines()
  examples = map(json.loads, lines)
  pairs = [(x['nl'].encode(), x['code'].encode()) for x in examples]
  # Numbered by their hashes, so that the shares are exact but for twins.
  order = sorted({source for source, _ in pairs}, key=_hash)
  tenth = {source: 10 * i // len(order) for i, source in enumerate(order)}
  parts = [
    [pair for pair in pairs if tenth[pair[0]] in tenths]
    for tenths in (range(8), (8,), (9,))
  ]
  return parts[0], parts[1], parts[2]


def _hash(text: bytes) -> bytes:
  return hashlib.sha256(text).digest()


def _camel() -> tuple[Pairs, Pairs]:
  """Different lines with a name to spell anew; every tenth is for the test."""
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  lines: dict[bytes, None] = {}
  for name in tasks.MODULES:
    path = root / f'{name}.py'
    if not path.exists():  # A package in later versions of Python.
      path = root / name / '__init__.py'
    lines |= dict.fromkeys(map(bytes.strip, path.read_bytes().splitlines()))
  pairs = [
    (line, camel)
    for line in lines
    if line.isascii()
    and not line.startswith(b'#')
    and (camel := _spell(line)) != line
  ]
  is_test = np.arange(len(pairs)) % 10 == 9
  split = lambda chosen: [p for p, c in zip(pairs, chosen, strict=True) if c]
  return split(~is_test), split(is_test)


def _spell(line: bytes) -> bytes:
  return re.sub(rb'(?<=[a-z0-9])_([a-z])', lambda m: m[1].upper(), line)


@dataclasses.dataclass(frozen=True)
class Rows:
  """Pairs as arrays.

  Attributes:
    tokens_bs: What the encoder reads.
    units_bs: The unit of each token, -1 for padding.
    targets_bt: What the decoder begins with, then tokens to predict and the
      one that ends them; -1 is padding.
    pairs: The texts.
    num_long: Pairs that were left out because a side is too long.
  """

  tokens_bs: np.ndarray
  units_bs: np.ndarray
  targets_bt: np.ndarray
  pairs: Pairs
  num_long: int

  @property
  def arrays(self) -> tuple[np.ndarray, ...]:
    return self.tokens_bs, self.units_bs, self.targets_bt


def rows(
  tokenizer: Any, pairs: Pairs, length: int, ends: Any, *, language: str
) -> Rows:
  """Encodes pairs; those with a side of more than `length` are left out.

  Args:
    tokenizer: Of both sides.
    pairs: Texts.
    length: Most tokens of a side, special ones included; static.
    ends: See `pretrained.Ends`.
    language: Of the sources; see `code_units.units`.

  Raises:
    ValueError: If no pair is short enough.
  """
  kept, found = [], []
  for pair in pairs:
    source = tasks.surrounded(
      tokenizer,
      pair[0],
      length,
      ends.prefix,
      ends.suffix,
      language=language,
    )
    target = [ends.start, *tokenizer.encode(pair[1]), ends.stop]
    if len(source[0]) <= length and len(target) <= length:
      kept.append(pair)
      found.append((*source, target))
  if not kept:
    raise ValueError(
      f'length={length}: all {len(pairs)} pairs have more tokens. Raise it.'
    )
  shape = len(kept), length
  arrays = [np.full(shape, fill, np.int32) for fill in (0, -1, -1)]
  for i, row in enumerate(found):
    for array, values in zip(arrays, row, strict=True):
      array[i, : len(values)] = values
  return Rows(*arrays, kept, len(pairs) - len(kept))

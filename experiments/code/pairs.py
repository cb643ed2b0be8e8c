# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Translation of programs: where the pairs come from.

java_cs  Methods in Java and C# (CodeXGLUE, code to code), 10,295 for training
         and 1,000 for the test. Reads `code/codexglue.zip` in the folder that
         the environment variable JAXTOK_DATA names.
camel    Lines of Python's standard library with the names spelled in
         camelCase: `max_len` is `maxLen`. Needs no data.
"""

import dataclasses
import pathlib
import re
import sysconfig
from typing import Any

import numpy as np

from experiments.code import tasks
from jaxtok.config import configclass

KINDS = ('java_cs', 'camel')
Pairs = list[tuple[bytes, bytes]]


@configclass
class Config:
  """Which pairs, and how many."""

  kind: str = 'java_cs'
  is_reversed: bool = False  # From C# to Java.
  num_train: int = 10_000  # At most; 0 means all.
  num_test: int = 1000  # At most; 0 means all.

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'kind={self.kind!r} must be one of {", ".join(KINDS)}.')
    for name in ('num_train', 'num_test'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 0.')

  def load(self, seed: int) -> tuple[Pairs, Pairs]:
    """(source, target) for training and for the test, in random order."""
    make = _java_cs if self.kind == 'java_cs' else _camel
    rng = np.random.default_rng(seed)
    parts = []
    for pairs, most in zip(
      make(), (self.num_train, self.num_test), strict=True
    ):
      order = rng.permutation(len(pairs))[: most or None]
      chosen = [pairs[i] for i in order]
      parts.append([p[::-1] for p in chosen] if self.is_reversed else chosen)
    return parts[0], parts[1]


def _java_cs() -> tuple[Pairs, Pairs]:
  """CodeXGLUE's own splits."""
  parts = []
  with tasks.archive("kind='camel'") as archive:
    for split in ('train', 'test'):
      sides = [
        archive.read(f'java_cs/{split}.{side}').split(b'\n')
        for side in ('java', 'cs')
      ]
      pairs = zip(*sides, strict=True)
      parts.append([(a.strip(), b.strip()) for a, b in pairs if a and b])
  return parts[0], parts[1]


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


def rows(tokenizer: Any, pairs: Pairs, length: int, ends: Any) -> Rows:
  """Encodes pairs; those with a side of more than `length` are left out.

  Args:
    tokenizer: Of both sides.
    pairs: Texts.
    length: Most tokens of a side, special ones included; static.
    ends: See `pretrained.Ends`.

  Raises:
    ValueError: If no pair is short enough.
  """
  kept, found = [], []
  for pair in pairs:
    source = tasks.surrounded(
      tokenizer, pair[0], length, ends.prefix, ends.suffix
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

# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification of programs: where the programs and their labels come from.

modules  Functions of Python's standard library, by the module they are in.
         The modules' names do not occur in what is shown but by chance.
defects  Java methods before and after a fix (CodeXGLUE, code refinement,
         small): which of the two it is. Both of a pair are on the same side of
         the split.
cloze    Functions in Go, Java and JavaScript in which a word is hidden
         (CodeXGLUE, cloze test, max and min): which of the two it is.

The last two read `code/codexglue.zip` in the folder that the environment
variable JAXTOK_DATA names.

The copy of the cloze test lacks the answers of the words that are hidden in it.
A program is of use if there is another `max` or `min`: the first is hidden and
asked for (`ASKED`), what CodeXGLUE hides stays so (`HIDDEN`).
"""

import ast
import dataclasses
import json
import os
import pathlib
import sysconfig
import zipfile

import numpy as np

from jaxtok.config import configclass
from jaxtok.tokenizers import base, code_units

# Each kind's language; see `code_units.LANGUAGES`.
KINDS = {'modules': 'python', 'defects': 'java', 'cloze': 'c_family'}
ASKED, HIDDEN = '__asked__', '__hidden__'
MODULES = (
  *('argparse', 'ast', 'datetime', 'inspect', 'ipaddress'),
  *('pickle', 'statistics', 'tarfile', 'turtle', 'typing'),
)

_CLOZE = ('max', 'min')  # Class 0 and class 1.
_AROUND = 24  # Tokens of CodeXGLUE on each side of the word asked for.


def check_language(language: str) -> None:
  """Raises a ValueError if it is neither '' nor a language."""
  if language:
    code_units.check_language(language)


@configclass
class Config:
  """Which programs, and how many."""

  kind: str = 'modules'
  language: str = ''  # Whose units are merged; '' means that of the kind.
  num_examples: int = 2000  # In all.
  test_share: float = 0.2

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'kind={self.kind!r} must be one of {", ".join(KINDS)}.')
    check_language(self.language)
    if self.num_examples < 10:
      raise ValueError(f'num_examples={self.num_examples} must be >= 10.')
    if not 0 < self.test_share < 1:
      raise ValueError(f'test_share={self.test_share} must be in (0, 1).')

  @property
  def num_classes(self) -> int:
    return len(MODULES) if self.kind == 'modules' else 2

  @property
  def rules(self) -> str:
    """The language whose units are merged."""
    return self.language or KINDS[self.kind]

  def load(self, seed: int) -> tuple[list[bytes], np.ndarray, int]:
    """Programs, labels, and how many of them, the first, are for training."""
    make = {'modules': _modules, 'defects': _defects, 'cloze': _cloze}
    groups = make[self.kind]()
    order = np.random.default_rng(seed).permutation(len(groups))
    size = len(groups[0])
    order = order[: self.num_examples // size]
    num_train = round(len(order) * (1 - self.test_share)) * size
    rows = [example for i in order for example in groups[i]]
    programs, labels = zip(*rows, strict=True)
    return list(programs), np.array(labels, np.int32), num_train


def _modules() -> list[list[tuple[bytes, int]]]:
  """Functions with at least five lines, each a group of its own."""
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  groups = []
  for label, name in enumerate(MODULES):
    path = root / f'{name}.py'
    if not path.exists():  # A package in later versions of Python.
      path = root / name / '__init__.py'
    source = path.read_bytes()
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
      if not isinstance(node, ast.FunctionDef):
        continue
      # Columns count bytes of UTF-8.
      own = lines[node.lineno - 1 : node.end_lineno]
      own[-1] = own[-1][: node.end_col_offset]
      own[0] = own[0][node.col_offset :]
      if len(own) >= 5:
        groups.append([(b''.join(own), label)])
  return groups


def archive(instead: str) -> zipfile.ZipFile:
  """CodeXGLUE's parts; `instead` is the task that needs no data.

  Raises:
    ValueError: If JAXTOK_DATA is not set.
    FileNotFoundError: If its folder does not hold them.
  """
  folder = os.environ.get('JAXTOK_DATA')
  if not folder:
    raise ValueError(
      'the task reads code/codexglue.zip in the folder that JAXTOK_DATA names, '
      f'which is not set. Use task.{instead} without it.'
    )
  path = pathlib.Path(folder) / 'code' / 'codexglue.zip'
  if not path.exists():
    raise FileNotFoundError(
      f'JAXTOK_DATA={folder} has no code/codexglue.zip. Set it to the folder '
      f'of the data, or use task.{instead}.'
    )
  return zipfile.ZipFile(path)


def _defects() -> list[list[tuple[bytes, int]]]:
  """Pairs of a method with a defect (1) and without (0)."""
  with archive("kind='modules'") as opened:
    lines = {
      kind: opened.read(f'refinement_small/valid.{kind}').splitlines()
      for kind in ('buggy', 'fixed')
    }
  return [
    [(buggy.strip(), 1), (fixed.strip(), 0)]
    for buggy, fixed in zip(lines['buggy'], lines['fixed'], strict=True)
  ]


def _cloze() -> list[list[tuple[bytes, int]]]:
  """Programs with a `max` or `min` that is asked for, each its own group."""
  groups = []
  with archive("kind='modules'") as opened:
    for language in ('go', 'java', 'javascript'):
      lines = opened.read(f'cloze_maxmin/{language}.jsonl').splitlines()
      for line in lines:
        found = _asked(json.loads(line)['pl_tokens'])
        if found is not None:
          groups.append([found])
  return groups


def _asked(tokens: list[str]) -> tuple[bytes, int] | None:
  """The text around the first `max` or `min`, and which it is, if any."""
  at = next((i for i, token in enumerate(tokens) if token in _CLOZE), None)
  if at is None:
    return None
  shown = [HIDDEN if token == '<mask>' else token for token in tokens]
  shown[at] = ASKED
  # Behind a comment up to the end of its line a new one begins.
  words = [x + '\n' if x.startswith('//') else x + ' ' for x in shown]
  text = ''.join(words[max(at - _AROUND, 0) : at + _AROUND + 1])
  return text.strip().encode(), _CLOZE.index(tokens[at])


@dataclasses.dataclass(frozen=True)
class Rows:
  """Programs as arrays of one width.

  Attributes:
    tokens_bt: The first stands for the program; cut at the width.
    units_bt: The unit of each, -1 for padding.
    labels_b: Classes.
  """

  tokens_bt: np.ndarray
  units_bt: np.ndarray
  labels_b: np.ndarray

  def take(self, index: np.ndarray) -> 'Rows':
    """Some of the rows."""
    return Rows(
      self.tokens_bt[index], self.units_bt[index], self.labels_b[index]
    )

  @property
  def units_per_token(self) -> float:
    """Units for each token, the first not counted."""
    num_units = self.units_bt.max(axis=1)  # The first is unit 0.
    return float(num_units.sum() / ((self.units_bt >= 0).sum(1) - 1).sum())


def rows(
  tokenizer: base.Tokenizer,
  programs: list[bytes],
  labels: np.ndarray,
  length: int,
  *,
  language: str,
  prefix: tuple[int, ...] = (),
  suffix: tuple[int, ...] = (),
) -> Rows:
  """Encodes programs.

  Args:
    tokenizer: Of the model.
    programs: Their text.
    labels: Their classes.
    length: Tokens of a row; static. What is longer is cut before the suffix.
    language: See `code_units.units`.
    prefix: Ids before each; () is one new token, `tokenizer.vocab_size`.
    suffix: Ids after each.

  Raises:
    ValueError: If there is no room for a token of a program.
  """
  prefix = prefix or (tokenizer.vocab_size,)
  room = length - len(prefix) - len(suffix)
  if room < 1:
    raise ValueError(
      f'length={length} must be > {length - room}, the special tokens of a row.'
    )
  tokens_bt = np.zeros((len(programs), length), np.int32)
  units_bt = np.full((len(programs), length), -1, np.int32)
  for i, program in enumerate(programs):
    ids, unit = surrounded(
      tokenizer, program, room, prefix, suffix, language=language
    )
    tokens_bt[i, : len(ids)] = ids
    units_bt[i, : len(ids)] = unit
  return Rows(tokens_bt, units_bt, labels)


def surrounded(
  tokenizer: base.Tokenizer,
  program: bytes,
  room: int,
  prefix: tuple[int, ...],
  suffix: tuple[int, ...],
  *,
  language: str,
) -> tuple[np.ndarray, np.ndarray]:
  """Ids and units of a program between special tokens, units of one."""
  ids, unit = code_units.units(tokenizer, program, language=language)
  ids, unit = ids[:room], unit[:room]
  first = len(prefix)
  last = first + unit.max(initial=-1) + 1
  ids = np.concatenate([prefix, ids, suffix]).astype(np.int32)
  unit = [np.arange(first), unit + first, last + np.arange(len(suffix))]
  return ids, np.concatenate(unit).astype(np.int32)

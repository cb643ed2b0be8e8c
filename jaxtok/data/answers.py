# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions and answers in one row, for models that read both at once.

  [  padding  |  question  ][ answer  EOS EOS ... EOS ]
                            ^ column `prompt_len` of every row

Targets are the answer and the EOS tokens behind it, which a model that writes
all positions at once has to learn too (LLaDA, arXiv:2502.09992, section 2.3).
Padding stands before the question, so that all answers begin at one column, as
they do when they are generated; positions count columns.

The pairs are generated (`draw(rng)` and `key`, e.g. `tasks.word_problems`) or
read from JSON lines. Pairs that are too long are left out and counted.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxtok.config import configclass
from jaxtok.data import cache, jsonl, pairs
from jaxtok.data import source as source_lib
from jaxtok.data.batch import Batch
from jaxtok.data.permutation import Permutation

Texts = tuple[bytes, bytes]


@configclass
class Config:
  """Rows of questions and answers."""

  source: Any  # E.g. `tasks.word_problems.WordProblems`, or `data.jsonl.Jsonl`.
  question: str = 'question'  # Field of a line's object.
  answer: str = 'answer'  # Likewise.
  held_out: str = ''  # File of validation and test, if not parts of `source`.
  # Around each question, e.g. a chat template; names of special tokens in it
  # stand for them.
  before: str = ''
  behind: str = ''
  prompt_len: int = 128  # Tokens of a question and of what is around it.
  answer_len: int = 128  # Tokens of an answer and at least one EOS.
  num_held_out: int = 1024  # Records of a generated held-out split.
  prefetch: int = 8  # Batches that are kept ready.

  def __post_init__(self):
    for name in ('prompt_len', 'answer_len', 'num_held_out', 'prefetch'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be >= 1.')

  def documents(self, split: str) -> Iterator[bytes]:
    """Questions and answers of a split's first 1024 records, at most."""
    texts = self.texts(split, 0)
    for i in range(min(len(texts), self.num_held_out, 1024)):
      yield from texts[i]

  def texts(self, split: str, seed: int) -> '_Drawn | _Read':
    """The pairs of a split by number.

    Raises:
      ValueError: If the source has no pairs.
    """
    source_lib.check_split(split)
    if hasattr(self.source, 'draw'):
      return _Drawn(self, split, seed)
    return _Read(self, split)

  def make(self, tokenizer: Any, cache_dir: Any = None) -> 'Answers':
    """Builds the pipeline; nothing is cached."""
    del cache_dir
    return Answers(self, tokenizer)


class _Drawn:
  """Generated pairs; those of training never end."""

  def __init__(self, config: Config, split: str, seed: int):
    self.key = config.source.key
    self._draw, self._rng = config.source.draw, (split, seed)
    is_train = split == 'train'
    self._len = pairs.EPOCH if is_train else config.num_held_out

  def __len__(self) -> int:
    return self._len

  def __getitem__(self, index: int) -> Texts:
    return self._draw(pairs.rng_of(*self._rng, index))


class _Read:
  """Pairs of JSON lines."""

  def __init__(self, config: Config, split: str):
    given, held_out = config.source, config.held_out
    if not isinstance(given, jsonl.Jsonl):
      path = getattr(given, 'path', '')
      raise ValueError(
        f'source={type(given).__name__}{f" of {path!r}" if path else ""} holds '
        'no pairs. Use JSON lines '
        '(--data=FILE.jsonl), or a task with draw(rng).'
      )
    paths = dict(validation=held_out or given.validation)
    paths['test'] = held_out or given.test
    open_field = lambda field: jsonl.Jsonl(
      path=given.path, field=field, **paths
    ).make(split)
    self._questions = open_field(config.question)
    self._answers = open_field(config.answer)
    self.key = cache.digest(self._questions.key, self._answers.key)

  def __len__(self) -> int:
    return len(self._questions)

  def __getitem__(self, index: int) -> Texts:
    return self._questions[index]['data'], self._answers[index]['data']


class Rows(pairs.Rows):
  """Numbered rows of a split; see `pairs.Rows`.

  Attributes:
    key: Identifies the pairs.
  """

  def __init__(self, config: Config, tokenizer: Any, split: str, seed: int):
    self._config, self._tokenizer = config, tokenizer
    self.seq_len = config.prompt_len + config.answer_len
    self._texts = config.texts(split, seed)
    self._seed = seed if split == 'train' else None
    self._kept = None
    self.num_rows, self.key = len(self._texts), self._texts.key
    if isinstance(self._texts, _Read):
      fits = [self._fits(*self._texts[i]) for i in range(self.num_rows)]
      self._kept = np.flatnonzero(fits)
      self.num_rows = len(self._kept)
      if not self.num_rows:
        raise ValueError(
          f'prompt_len={config.prompt_len} and answer_len={config.answer_len} '
          f'are too short for all {len(fits)} pairs of {split}. Raise them.'
        )

  def _fits(self, question: bytes, answer: bytes) -> bool:
    config = self._config
    return len(self.prompt(question)) <= config.prompt_len and (
      len(self._tokenizer.encode(answer)) < config.answer_len
    )

  def prompt(self, question: bytes) -> np.ndarray:
    """The ids of a question with those around it, int32."""
    around = [
      self._tokenizer.encode(text, parse_special=True)
      for text in (self._config.before, self._config.behind)
    ]
    ids = self._tokenizer.encode(question)
    return np.concatenate([around[0], ids, around[1]]).astype(np.int32)

  @property
  def num_left_out(self) -> int:
    """Pairs that are too long, up to the last row if `num_rows` was lowered.

    0 if they are drawn, which is checked row by row.
    """
    if self._kept is None:
      return 0
    is_whole = self.num_rows == len(self._kept)
    seen = len(self._texts) if is_whole else self._kept[self.num_rows - 1] + 1
    return int(seen) - self.num_rows

  def pair(self, index: int) -> Texts:
    """Question and answer of a row; training goes round in a new order."""
    epoch, number = divmod(index, self.num_rows)
    if self._kept is not None:
      if self._seed is not None:
        order = Permutation(self.num_rows, self._seed, epoch)
        number = int(order(np.array([number]))[0])
      number = int(self._kept[number])
    return self._texts[number]

  def num_bytes(self, index: int) -> int:
    """Bytes of the answer."""
    return len(self.pair(index)[1])

  def batch(self, rows: Any) -> Batch:
    """Several rows; in held-out splits those beyond the last are padding."""
    shape = len(rows), self.seq_len
    batch = {
      'tokens_bt': np.zeros(shape, np.int32),
      'targets_bt': np.zeros(shape, np.int32),
      'loss_mask_bt': np.zeros(shape, np.float32),
      'segment_ids_bt': np.zeros(shape, np.int32),
      'positions_bt': np.tile(
        np.arange(self.seq_len, dtype=np.int32), (shape[0], 1)
      ),
      'num_bytes_bt': np.zeros(shape, np.int32),
    }
    for i, row in enumerate(rows):
      if self._seed is not None or row < self.num_rows:
        self._lay_out({k: v[i] for k, v in batch.items()}, int(row))
    return batch

  def ids(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and answer of a row, int32, without EOS.

    Raises:
      ValueError: If they do not fit.
    """
    question, answer = self.pair(index)
    prompt, answer = self.prompt(question), self._tokenizer.encode(answer)
    begin = self._config.prompt_len
    if len(prompt) > begin or len(answer) >= self._config.answer_len:
      raise ValueError(
        f'record {index} has {len(prompt)} and {len(answer)} tokens, but there '
        f'is room for prompt_len={begin} and answer_len='
        f'{self._config.answer_len} with one EOS. Make it larger.'
      )
    return prompt, answer

  def _lay_out(self, row: Batch, index: int) -> None:
    """Fills one row in place."""
    question, answer = self.ids(index)
    begin, end = self._config.prompt_len, len(answer)
    first = begin - len(question)
    targets = row['targets_bt']
    targets[first:begin] = question
    targets[begin : begin + end] = answer
    targets[begin + end :] = self._tokenizer.special.eos
    row['tokens_bt'][1:] = targets[:-1]
    row['segment_ids_bt'][first:] = 1
    row['loss_mask_bt'][begin:] = 1
    sizes = self._tokenizer.token_byte_lengths[answer]
    row['num_bytes_bt'][begin : begin + end] = sizes


class Answers(pairs.Pairs):
  """See `Config`; the interface is that of `data.text.Text`."""

  def __init__(self, config: Config, tokenizer: Any):
    if tokenizer.special.eos is None:
      raise ValueError(
        f'{tokenizer!r} has no eos token, which ends an answer. Use e.g. '
        'tokenizers.bytes.Config().'
      )
    self.config, self._tokenizer = config, tokenizer
    self._rows = functools.cache(functools.partial(Rows, config, tokenizer))

  def left_out(self, split: str, max_bytes: int = 0) -> int:
    """Pairs of a split that are too long for a row."""
    return self.rows(split, max_bytes).num_left_out

  def describe(self, split: str, max_bytes: int = 0) -> str:
    """One line."""
    line = super().describe(split, max_bytes)
    num = self.left_out(split, max_bytes)
    if num:
      line += f'; {num} are too long and left out'
    return line
